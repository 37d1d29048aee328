"""Two agents on one state folder, and folders that cannot be used."""

import subprocess
import sys
from pathlib import Path

import pytest

from nodeagent.errors import BedplateError
from nodeagent.lock import alone

HOLDER = """
import pathlib, sys
from nodeagent.lock import alone
with alone(pathlib.Path(sys.argv[1])):
    print(1, flush=True)
    input()
"""
WITHOUT_ROOM = """
import pathlib, resource, sys
from nodeagent.errors import BedplateError
from nodeagent.lock import alone
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    with alone(pathlib.Path(sys.argv[1]), somebody="somebody" in sys.argv):
        pass
except BedplateError as error:
    print(error)
"""


READ_ONLY = """
set -e
mount -t tmpfs -o mode=0700 none "$1"
touch "$1/lock"
mount -o remount,ro "$1"
shift
exec "$@"
"""
TAKING = """
import pathlib, sys
from nodeagent.errors import BedplateError
from nodeagent.lock import alone
try:
    with alone(pathlib.Path(sys.argv[1]), somebody="somebody" in sys.argv):
        print("held")
except BedplateError as error:
    print(error)
"""


def test_a_second_agent_on_a_state_folder_is_told_who_holds_it(tmp_path):
    folder = tmp_path / "state"
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"1\n"
        with (
            pytest.raises(BedplateError, match=rf"another agent \(process {holder.pid}\) holds it; end it, or"),
            alone(folder),
        ):
            pass
        holder.kill()
    with alone(folder):  # the lock ended with its holder
        pass


def test_a_state_folder_is_made_for_us_alone(tmp_path):
    with alone(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "a" / "b" / "lock").stat().st_mode & 0o777 == 0o600


def test_a_state_folder_that_others_may_enter_is_refused(tmp_path):
    (tmp_path / "state").mkdir(mode=0o755)
    with pytest.raises(BedplateError, match=r"others may enter it; chmod 0700 "), alone(tmp_path / "state"):
        pass


def test_a_state_folder_that_is_none_is_refused(tmp_path):
    (tmp_path / "state").write_text("")
    with pytest.raises(BedplateError, match=r"cannot use state folder .*state: File exists"), alone(tmp_path / "state"):
        pass
    with (
        pytest.raises(BedplateError, match=r"cannot use state folder .*: Not a directory"),
        alone(tmp_path / "state/x"),
    ):
        pass


def test_a_state_folder_that_cannot_be_written_is_refused():
    with pytest.raises(BedplateError, match=r"cannot use state folder /proc/bedplate: "), alone(Path("/proc/bedplate")):
        pass


def test_a_state_folder_without_room_is_refused(tmp_path):
    command = [sys.executable, "-c", WITHOUT_ROOM, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"cannot write state folder {tmp_path}: File too large\n"


def test_a_machine_that_is_somebody_goes_on_without_room(tmp_path):
    command = [sys.executable, "-c", WITHOUT_ROOM, str(tmp_path), "somebody"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "File too large; it works until the certificate has to be renewed" in done.stderr


@pytest.mark.parametrize(("who", "told"), [("somebody", "held"), ("nobody", "cannot use state folder ")])
def test_a_disk_that_turned_read_only_keeps_out_only_who_is_nobody_yet(tmp_path, who, told):
    taking = [sys.executable, "-c", TAKING, str(tmp_path), who]
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", READ_ONLY, "sh", str(tmp_path), *taking]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode and not done.stdout:
        return  # this kernel gives us no mounts of our own
    assert done.stdout.startswith(told), done.stderr
