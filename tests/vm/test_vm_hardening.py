"""Each hardening line of the units holds: what it forbids fails under the very unit, and only there.

A drop-in changes ExecStart= alone. An attempt that would fail without the unit as well shows nothing, and is a failure.
"""

import json
import re

import pytest

from tests.vm.forbidden import TABLE
from tests.vm.guide import ROOT
from tests.vm.machine import Machine

OTHER = {"nodeagent": "provisioner", "provisioner": "nodeagent"}
USER = {"nodeagent": "root", "provisioner": "bedplate"}
PROGRAM = "/usr/bin/python3 /usr/local/lib/attempts.py"
LEAVE_A_KEY = """
import ctypes
key = ctypes.CDLL(None, use_errno=True).syscall(248, b"user", b"bedplate-outside", b"x", 1, -4)
assert key > 0, ctypes.get_errno()
ctypes.CDLL(None).syscall(250, 5, key, 0x3f3f3f3f)
"""
OUTSIDE = """
mkdir -p /srv/outside; cd /srv/outside; umask 022
echo 1234 > uid; echo secret > of-another; chmod 0600 of-another
cp /usr/bin/id id-of-another; chown 1234 of-another id-of-another; chmod 4755 id-of-another
readlink /proc/1/ns/mnt > mnt
echo outside > /tmp/outside; chmod 0644 /tmp/outside
mknod -m 0666 nvidiactl c 195 255
mknod -m 0666 disk b $(( $(stat -c 0x%t /dev/vda) )) $(( $(stat -c 0x%T /dev/vda) ))
"""


@pytest.mark.parametrize("unit", TABLE)
def test_what_a_line_forbids_fails_under_the_unit_and_nowhere_else(bench: Machine, unit: str) -> None:
    expected = {name: answer for row in TABLE[unit].values() for name, answer in row.items()}
    _prepare(bench, unit)
    outside = f"systemd-run --quiet --pipe --wait -p KeyringMode=shared {PROGRAM} {' '.join(expected)}"
    assert json.loads(bench.sh(outside)) == dict.fromkeys(expected, "done")
    drop_in = f"[Service]\nExecStart=\nExecStart={PROGRAM} {' '.join(expected)}\n"
    bench.run("tee", f"/run/systemd/system/{unit}.service.d/attempts.conf", given=drop_in)
    bench.sh(f"ipcrm -M 0xbed 2>/dev/null || :; systemctl daemon-reload; systemctl restart {unit}")
    said = bench.sh(f"journalctl -o cat --sync; journalctl -o cat _PID=$(systemctl show -P MainPID {unit})")
    found = json.loads(re.findall(r"^\{.*\}$", said, re.MULTILINE)[-1])
    assert found == expected


def test_what_the_provisioner_leaves_in_memory_goes_when_it_stops(bench: Machine) -> None:
    _prepare(bench, "provisioner")
    drop_in = f"[Service]\nExecStart=\nExecStart={PROGRAM} memory_left_behind\n"
    bench.run("tee", "/run/systemd/system/provisioner.service.d/attempts.conf", given=drop_in)
    bench.sh("systemctl daemon-reload; systemctl restart provisioner; grep -w 3053 /proc/sysvipc/shm")
    bench.sh("systemctl stop provisioner; ! grep -w 3053 /proc/sysvipc/shm")


def _prepare(bench: Machine, unit: str) -> None:
    bench.run("tee", "/usr/local/lib/attempts.py", given=(ROOT / "tests/vm/attempts.py").read_text())
    bench.sh(f"mkdir -p /run/systemd/system/{unit}.service.d")
    bench.sh(OUTSIDE + f"systemctl show -P MainPID {OTHER[unit]} > pid")
    shared = f"systemd-run --quiet --pipe --wait -p KeyringMode=shared -p User={USER[unit]} python3 -c"
    done = bench.run(*shared.split(), LEAVE_A_KEY)
    assert done.code == 0, done.error
    if unit == "provisioner":  # whoever tries it outside is root
        assert bench.run(*shared.replace("User=bedplate", "User=root").split(), LEAVE_A_KEY).code == 0
