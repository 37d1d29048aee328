"""The program as a person runs it: a process, its two outputs and its exit code, against a Fleet over mTLS."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import click
import pytest
import yaml

from bedplate.v1.fleet_pb2 import Phase
from provisioner import credentials
from provisioner.cli.commands import COMMANDS
from tests.canned_fleet import CannedFleet, serving
from tests.cli_machines import machine

pytestmark = pytest.mark.slow

CAPTURED = Path(__file__).parent / "machines"


@dataclass(frozen=True)
class Person:
    """Somebody with a home folder and a shell."""

    home: Path

    def environment(self, **more: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "BEDPLATE_CONTEXT"}}
        return {**kept, "HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / "xdg"), **more}

    def bedplate(self, *arguments: str, given: str | None = None, **environment: str):
        return subprocess.run(
            [sys.executable, "-m", "provisioner.cli", *arguments],
            capture_output=True,
            text=True,
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            timeout=30,
            env=self.environment(**environment),
            check=False,
        )

    def refused(self, code: int, *arguments: str) -> str:
        """The one line that it says."""
        done = self.bedplate(*arguments)
        assert (done.returncode, done.stdout) == (code, ""), done
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("bedplate: cannot ")
        return done.stderr

    def knows(self, address: str, folder: Path, name: str = "lab") -> "Person":
        arguments = ("context", "add", name, "--address", address, "--credentials", str(folder), "--use", "--replace")
        assert self.bedplate(*arguments).returncode == 0
        return self


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


@pytest.fixture
def fleet() -> CannedFleet:
    silent = machine(9, Phase.PHASE_SILENT, because="not heard for 12 minutes", revision=9)
    return CannedFleet([*(machine(n, revision=n) for n in range(1, 9)), silent])


@pytest.fixture
def admin(person: Person, fleet: CannedFleet, tmp_path: Path) -> Iterator[Person]:
    """Somebody with an admin's credentials for a provisioner that runs."""
    with serving(tmp_path / "state", fleet) as (address, authority):
        credentials.write_credential(authority, "alice", "viewer", tmp_path / "alice", now=time.time())
        yield person.knows(address, tmp_path / "state/admin")


def test_every_command_has_its_line_in_the_help_and_examples_of_its_own():
    files = {path.stem for path in Path(import_module("provisioner.cli.commands").__file__).parent.glob("[!_]*.py")}
    assert set(COMMANDS) == files

    def visit(name: str, command: click.Command) -> None:
        text = command.get_help(click.Context(command, info_name=name))
        assert "Examples:" in text, name
        assert all(len(line) <= 92 for line in text.splitlines()), name
        for child, found in getattr(command, "commands", {}).items():
            visit(f"{name} {child}", found)

    for name, line in COMMANDS.items():
        command = import_module(f"provisioner.cli.commands.{name}").command
        assert command.name == name
        assert (command.help or "").startswith(line.removesuffix("."))
        visit(name, command)


def test_help_names_commands_and_exit_codes_and_needs_no_configuration(person):
    done = person.bedplate("--help")
    assert done.returncode == 0
    assert "Exit codes:" in done.stdout
    assert all(name in done.stdout for name in COMMANDS)
    assert person.bedplate("machnes").returncode == 2


def test_without_click_one_line_says_what_to_install(person):
    program = "import sys; sys.modules['click'] = None; from provisioner.cli.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    line = "bedplate: cannot start: its packages are not installed; pip install 'bedplate[cli]'\n"
    assert done.stderr == line


def test_machines_are_listed_as_a_table_as_json_and_as_yaml(admin):
    done = admin.bedplate("machines", COLUMNS="80")
    assert done.stderr == ""
    assert done.stdout.splitlines()[-2:] == ["    not heard for 12 minutes", "9 machines: 8 present, 1 silent"]
    found = json.loads(admin.bedplate("machines", "-o", "json").stdout)
    assert found[0]["hostname"] == "gpu-01"
    assert found[0]["problem_count"] == 0
    assert yaml.safe_load(admin.bedplate("machines", "-o", "yaml").stdout) == found


def test_a_bad_filter_shows_the_provisioner_s_own_words_with_their_position(admin):
    assert admin.refused(2, "machines", "--filter", "bogus") == (
        "bedplate: cannot list machines: bad filter; at 1: 'bogus' is no field\n"
    )


def test_one_machine_is_shown_and_explained(admin):
    page = admin.bedplate("machine", "show", "gpu-01", COLUMNS="80").stdout
    assert "8 x NVIDIA H100 80GB HBM3, 18 NVLinks each" in page
    assert max(map(len, page.splitlines())) <= 80
    explained = admin.bedplate("explain", "gpu-09").stdout
    assert explained == admin.bedplate("machine", "explain", "gpu-09").stdout
    assert explained.endswith("  - last heard 05:00:00Z\nWhat to do: see whether it has power\n")
    assert admin.refused(3, "machine", "show", "nobody") == (
        "bedplate: cannot show machine nobody: no machine nobody; see `bedplate machines`\n"
    )


def test_a_topology_is_read_from_the_fleet_from_a_file_and_from_a_pipe(admin, tmp_path):
    from_fleet = admin.bedplate("topology", "gpu-01").stdout
    shown = admin.bedplate("machine", "show", "gpu-01", "-o", "json").stdout
    from_pipe = admin.bedplate("topology", "-", given=shown).stdout
    assert from_pipe.splitlines()[1:] == from_fleet.splitlines()[1:]
    assert "gpu-01 (m-00000001): 8 GPUs, 12 NICs" in from_fleet


def test_the_topology_of_a_captured_machine_fits_eighty_columns(person):
    for name in ("h100", "dgx2"):
        text = person.bedplate("topology", str(CAPTURED / name), COLUMNS="80").stdout
        assert max(map(len, text.splitlines())) <= 80
        assert "GPUs to NICs" in text


def test_a_write_is_tried_again_with_the_same_request_id(admin, fleet):
    fleet.unavailable = 2
    done = admin.bedplate("machine", "accept", "gpu-01")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("accepting gpu-01 (m-00000001), NVIDIA DGX H100: it was let in before: nothing will ")
    assert done.stdout.startswith("gpu-01 (m-00000001) was let in before")
    assert len(fleet.request_ids) == 3
    assert len(set(fleet.request_ids)) == 1


def test_forgetting_says_what_it_will_do_and_wants_a_yes(admin, fleet):
    done = admin.bedplate("machine", "forget", "gpu-01")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "bedplate: cannot forget machine gpu-01: nobody is here to be asked; say --yes if it is meant"
    )
    assert fleet.request_ids == []
    done = admin.bedplate("machine", "forget", "gpu-01", "--yes")
    assert "its certificate will be worth nothing; the host itself is not touched" in done.stderr
    assert done.stdout == "gpu-01 (m-00000001) is forgotten\n"


def test_a_new_token_stands_alone_on_the_standard_output(admin):
    done = admin.bedplate("token", "create", "--uses", "3", "--ttl", "2d", "--review")
    assert done.stdout == "bedplate1.secret\n"
    assert "for 3 machines" in done.stderr
    assert "bedplate machine accept" in done.stderr
    assert admin.bedplate("token", "create", "--ttl", "soon").returncode == 2


def test_a_certificate_without_rights_is_told_apart(admin, tmp_path):
    address = json.loads(admin.bedplate("context", "show", "-o", "json").stdout)["address"]
    admin.knows(address, tmp_path / "alice", "alice")
    done = admin.bedplate("machine", "accept", "gpu-01")
    assert done.returncode == 5
    assert "cannot accept machine gpu-01: alice (viewer) may not accept machines; ask for cred" in done.stderr
    assert admin.bedplate("--context", "lab", "machine", "accept", "gpu-01").returncode == 0


def test_a_watch_prints_lines_at_once_and_ends_quietly(admin):
    command = [sys.executable, "-m", "provisioner.cli", "watch", "-o", "json"]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=admin.environment()) as watch:
        lines = [json.loads(watch.stdout.readline()) for _ in range(9)]
        watch.send_signal(signal.SIGINT)
        _, said = watch.communicate(timeout=10)
    assert [line["revision"] for line in lines][-1] == "9"
    assert (watch.returncode, said.strip()) == (130, "")


def test_a_reader_that_goes_away_is_not_an_error_to_shout_about(admin):
    command = f"{sys.executable} -m provisioner.cli watch | head -n 1"
    done = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, env=admin.environment(), timeout=30, check=False
    )
    assert re.fullmatch(r"\S+Z  present   gpu-01: .*\n", done.stdout)
    assert done.stderr == ""


def test_status_and_versions_come_from_both_sides(admin, person):
    assert "admin (admin)" in admin.bedplate("status").stdout
    assert json.loads(admin.bedplate("version", "-o", "json").stdout)["server"] == "9.9"
    assert "there is no context yet" in person.bedplate("version", XDG_CONFIG_HOME="/nonexistent").stdout


def test_a_provisioner_that_is_not_there_or_is_another_is_told_in_a_line(admin, person, tmp_path):
    address = json.loads(admin.bedplate("context", "show", "-o", "json").stdout)["address"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{taken.getsockname()[1]}"
        person.knows(closed, tmp_path / "state/admin")
        assert f"{closed}: connection refused; see whether" in person.refused(4, "machines")
    credentials.init(tmp_path / "other", now=time.time())
    person.knows(address, tmp_path / "other/admin")
    assert f"{address} is not the provisioner that" in person.refused(4, "machines")
    mixed = tmp_path / "mixed"
    mixed.mkdir(mode=0o700)
    for name, source in (("ca", "state"), ("cert", "other"), ("key", "other")):
        shutil.copy(tmp_path / source / f"admin/{name}.pem", mixed)
    person.knows(address, mixed)
    assert "get new credentials from it" in person.refused(4, "machines")


def test_credentials_that_cannot_be_used_are_named(admin, person, tmp_path):
    address = json.loads(admin.bedplate("context", "show", "-o", "json").stdout)["address"]
    key = tmp_path / "alice/key.pem"
    person.knows(address, tmp_path / "alice")
    key.write_text("no key")
    assert f"{key}: is no key that belongs to {tmp_path}/alice/cert.pem" in person.refused(4, "machines")
    key.unlink()
    assert f"cannot list machines: context lab: {key}: No such file or directory" in person.refused(4, "machines")


def test_a_port_that_speaks_no_tls_is_told_in_a_line(person, tmp_path):
    credentials.init(tmp_path / "state", now=time.time())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        person.knows(address, tmp_path / "state/admin")
        command = [sys.executable, "-m", "provisioner.cli", "machines"]
        with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=person.environment()) as asking:
            while asking.poll() is None:
                listener.settimeout(0.2)
                try:
                    caller, _ = listener.accept()
                except TimeoutError:
                    continue
                with caller:
                    caller.recv(1)
                    caller.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                    caller.settimeout(2)
                    with contextlib.suppress(OSError):
                        while caller.recv(4096):
                            pass
            assert asking.stderr.read() == (
                f"bedplate: cannot list machines: {address} speaks no TLS; see whether it is the provisioner's port\n"
            )
            assert asking.returncode == 4


def test_contexts_are_added_listed_used_and_removed(person, tmp_path):
    credentials.init(tmp_path / "state", now=time.time())
    folder = str(tmp_path / "state/admin")
    person.knows("127.0.0.1:7443", tmp_path / "state/admin")
    again = person.refused(2, "context", "add", "lab", "--address", "other:1", "--credentials", folder)
    assert "say --replace to replace it" in again
    assert "*  lab   127.0.0.1:7443" in person.bedplate("context", "list").stdout
    assert "there is none of that name; there are: lab" in person.refused(2, "--context", "prod", "machines")
    assert person.bedplate("context", "remove", "lab").returncode == 0
    assert "no context; make one" in person.bedplate("context", "list").stdout


def test_completion_scripts_are_the_shell_s_own(person):
    assert "_BEDPLATE_COMPLETE=bash_complete" in person.bedplate("completion", "bash").stdout
    asked = {"_BEDPLATE_COMPLETE": "bash_complete", "COMP_WORDS": "bedplate mach", "COMP_CWORD": "1"}
    assert person.bedplate(**asked).stdout == "plain,machines\nplain,machine\n"
