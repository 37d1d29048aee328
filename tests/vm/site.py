"""One machine with both units, installed and enrolled as docs/install.md says, and saved while it runs.

Rule: from the page come all commands; what stands here is what the page says in words.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.vm import guide, image
from tests.vm.machine import HARDWARE, KERNEL, Machine, machine

PROGRAMS = "PATH=/opt/bedplate/bin:$PATH; cd /root\n"
INSTALLED = ("apt-get ", "python3 -m venv", "/opt/bedplate/bin/pip")  # what the disk has of the page's lines
CONNECTED = "connected to provisioner.example:7443"
STATUS = "systemctl show --property StatusText --value"
AS_IT_WAS = f"""
sha256sum --check --strict --status ~/laid-down
[ ! -e /dev/nvme0n1 ]
[ -z "$(ls /run/systemd/system)" ]
systemctl is-active --quiet nodeagent
systemctl is-active --quiet provisioner
for second in {{1..12}}; do ! {STATUS} nodeagent | grep -q '^connected to ' || break; sleep 1; done  # as of its tick
{STATUS} provisioner | grep -q '^1 present'
"""
FROM_HERE = "date +@%s.%N > /run/here"
SINCE = '--since="$(cat /run/here)"'


def enrolled() -> Path:
    """The folder of the saved machine."""
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, check=True).stdout
    return image.saved("enrolled", _save, Path(__file__).read_bytes(), repr((HARDWARE, KERNEL)).encode(), qemu)


def _save(folder: Path) -> None:
    folder.mkdir()
    with machine(image.image()) as made:
        install(made)
        made.save(folder)


def install(made: Machine) -> None:
    """From a disk that has the programs to a machine that its provisioner knows."""
    made.sh(PROGRAMS + guide.blocks("The provisioner")[1])
    credential, context = guide.blocks("People and tools")
    made.sh(PROGRAMS + credential + "mv /var/lib/bedplate/provisioner/alice ~/bedplate-alice; " + context)
    made.sh(
        PROGRAMS + "mv /var/lib/bedplate/provisioner/admin ~/bedplate-admin; bedplate context add admin "
        "--address provisioner.example:7443 --credentials ~/bedplate-admin --use"
    )
    token, agent, _ = guide.blocks("The agents")
    made.sh(PROGRAMS + token)
    made.sh(PROGRAMS + guide.without(agent, *INSTALLED))
    made.until(f"{STATUS} nodeagent | grep '^{CONNECTED}; '")
    made.sh("rm /etc/bedplate/join-token; > /etc/bedplate/nodeagent.toml; systemctl reload nodeagent")
    made.sh(PROGRAMS + "bedplate machine show gpu-01 -o json > known.json")
    made.sh("sha256sum /etc/bedplate/*.toml /etc/systemd/system/*.service > ~/laid-down")


def as_it_was(made: Machine) -> bool:
    """Whether the next test may have it: both units run as they were installed, and the two know each other."""
    try:
        return made.run("bash", "-ec", AS_IT_WAS).code == 0
    except (AssertionError, OSError):
        return False


def known(made: Machine) -> dict[str, Any]:
    """What the provisioner knew of the machine when it was saved: it need not be asked once more."""
    return dict(json.loads(made.sh("cat ~/known.json")))
