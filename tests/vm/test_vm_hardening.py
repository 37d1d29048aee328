"""Each hardening line of the units holds: what it forbids fails under the very unit, and only there.

A drop-in changes ExecStart= alone. An attempt that would fail without the unit as well shows nothing, and is a failure.
All is tried in one machine and one start of each unit; every line is a subtest of its own.
"""

import json
import re

import pytest

from tests.vm.forbidden import TABLE
from tests.vm.guide import ROOT
from tests.vm.machine import Done, Machine

PROGRAM = "/usr/bin/python3 /usr/local/lib/attempts.py"
OUTSIDE = """
mkdir -p /srv/outside; cd /srv/outside; umask 022
echo 1234 > uid; echo secret > of-another; chmod 0600 of-another
cp /usr/bin/id id-of-another; chown 1234 of-another id-of-another; chmod 4755 id-of-another
readlink /proc/1/ns/mnt > mnt
systemctl show -P MainPID door > pid
echo outside > /tmp/outside; chmod 0644 /tmp/outside
mknod -m 0666 nvidiactl c 195 255
mknod -m 0666 disk b $(( $(stat -c 0x%t /dev/vda) )) $(( $(stat -c 0x%T /dev/vda) ))
"""
KEYS = """
import ctypes, os, pwd
libc = ctypes.CDLL(None, use_errno=True)
for user in "root", "bedplate":  # each leaves one in the keyring of all its sessions
    if not os.fork():
        os.setuid(pwd.getpwnam(user).pw_uid)
        key = libc.syscall(248, b"user", b"bedplate-outside", b"x", 1, -4)
        libc.syscall(250, 5, key, 0x3f3f3f3f)
        os._exit(key < 0)
    assert os.wait()[1] == 0, f"{user} cannot leave a key"
"""


@pytest.mark.spoils
def test_what_a_line_forbids_fails_under_the_unit_and_nowhere_else(bench: Machine, subtests: pytest.Subtests) -> None:
    _prepare(bench)
    names = {name for table in TABLE.values() for row in table.values() for name in row}
    outside = json.loads(
        bench.sh(f"systemd-run --quiet --pipe --wait -p KeyringMode=shared {PROGRAM} {' '.join(names)}")
    )
    bench.sh(f"ipcrm -M 0xbed; systemctl daemon-reload; systemctl restart {' '.join(TABLE)}")
    for unit, table in TABLE.items():
        said = bench.sh(f"journalctl -o cat --sync; journalctl -o cat _PID=$(systemctl show -P MainPID {unit})")
        inside = json.loads(re.findall(r"^\{.*\}$", said, re.MULTILINE)[-1])
        for line, row in table.items():
            with subtests.test(line, unit=unit):
                assert {name: outside[name] for name in row} == dict.fromkeys(row, "done")
                assert {name: inside[name] for name in row} == row
    with subtests.test("what the provisioner left in memory goes when it stops"):
        bench.sh("grep -w 3053 /proc/sysvipc/shm; systemctl stop provisioner; ! grep -w 3053 /proc/sysvipc/shm")


def _prepare(bench: Machine) -> None:
    """What stands outside of the units, and the units with the attempts in place of their programs."""
    bench.run("tee", "/usr/local/lib/attempts.py", given=(ROOT / "tests/vm/attempts.py").read_text())
    bench.sh(OUTSIDE)
    assert bench.run("python3", "-c", KEYS) == Done(0, "", "")
    for unit, table in TABLE.items():
        names = {name for row in table.values() for name in row}
        drop_in = f"[Service]\nExecStart=\nExecStart={PROGRAM} {' '.join(names)}\n"
        bench.sh(f"mkdir -p /run/systemd/system/{unit}.service.d")
        bench.run("tee", f"/run/systemd/system/{unit}.service.d/attempts.conf", given=drop_in)
