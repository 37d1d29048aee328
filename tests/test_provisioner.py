"""The program `provisioner`, run as an operator runs it, with what goes wrong at 2 a.m."""

import contextlib
import http.client
import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import BIN, Site, site, toml

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def place(tmp_path: Path) -> Site:
    return site(tmp_path)


def _provisioner(*arguments: str) -> tuple[int, str]:
    command = [str(BIN / "provisioner"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.strip()


def test_it_is_ready_and_ends_when_asked(place: Site) -> None:
    with place.run() as program:
        program.wait_for("READY=1")
        assert place.bedplate("status").returncode == 0
        assert program.stop() == 0


def test_a_second_one_on_the_same_folder_is_refused(place: Site) -> None:
    with place.run() as program:
        program.wait_for("READY=1")
        code, line = _provisioner("--config", str(place.config), "run")
    assert (code, line) == (
        1,
        f"provisioner: cannot use state folder {place.folder}/provisioner: another provisioner runs on it",
    )


@pytest.mark.parametrize("key", ["listen", "enrol_listen", "metrics_listen"])
def test_a_port_that_is_taken_is_one_line_that_names_the_key(place: Site, key: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        lines = [line for line in place.config.read_text().splitlines() if not line.startswith(f"{key} =")]
        place.config.write_text("\n".join(lines) + "\n" + toml(**{key: address}))
        code, line = _provisioner("--config", str(place.config), "run")
    assert code == 1
    assert line.splitlines()[-1].startswith("provisioner: cannot ")
    assert address in line
    assert f"choose another {key}" in line


def test_a_folder_without_a_ca_says_how_to_make_one(tmp_path: Path) -> None:
    code, line = _provisioner("--state", str(tmp_path / "nowhere"), "run")
    assert code == 1
    assert line == (
        f"provisioner: cannot use state folder {tmp_path}/nowhere: No such file or directory; "
        "make it with provisioner init"
    )


def test_init_never_replaces_a_ca(place: Site) -> None:
    before = (place.folder / "provisioner" / "ca.pem").read_bytes()
    code, line = _provisioner("--config", str(place.config), "init")
    assert code == 1
    assert "there is one already" in line
    assert (place.folder / "provisioner" / "ca.pem").read_bytes() == before


def test_secrets_are_for_their_owner_alone(place: Site) -> None:
    state = place.folder / "provisioner"
    keys = [path for path in state.rglob("*") if path.suffix == ".key" or path.name == "key.pem"]
    assert len(keys) == 2
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    assert state.stat().st_mode & 0o777 == 0o700


def test_a_key_that_is_garbled_is_one_line(place: Site) -> None:
    path = place.folder / "provisioner" / "ca.key"
    path.write_text("not a key")
    code, line = _provisioner("--config", str(place.config), "run")
    assert code == 1
    assert line.startswith(f"provisioner: cannot read {path}: ")


def test_a_store_that_is_no_store_is_one_line(place: Site) -> None:
    path = place.folder / "provisioner" / "bedplate.db"
    path.write_bytes(b"not a database, but long enough to have a header of a hundred bytes" * 3)
    code, line = _provisioner("--config", str(place.config), "run")
    assert code == 1
    assert line.startswith(f"provisioner: cannot open store {path}: ")


def test_a_state_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.touch()
    code, line = _provisioner("--state", str(blocker / "state"), "init")
    assert code == 1
    assert line.startswith("provisioner: cannot ")
    assert "Not a directory" in line


def test_a_viewers_credential_may_look_and_not_touch(place: Site) -> None:
    out = place.folder / "viewer"
    command = [str(BIN / "provisioner"), "--config", str(place.config), "credential", "eve", "--role", "viewer"]
    subprocess.run([*command, "--out", str(out)], check=True, capture_output=True)
    place.bedplate("context", "add", "eve", "--address", f"127.0.0.1:{place.port}", "--credentials", str(out))
    with place.run() as program:
        program.wait_for("READY=1")
        assert place.bedplate("--context", "eve", "machines").returncode == 0
        refused = place.bedplate("--context", "eve", "token", "create", check=False)
    assert refused.returncode == 5
    assert "it takes the role operator" in refused.stderr


def test_metrics_are_served_where_they_are_asked_for(tmp_path: Path) -> None:
    from urllib.request import urlopen  # noqa: PLC0415

    from tests.running import free_ports  # noqa: PLC0415

    (port,) = free_ports(1)
    place = site(tmp_path, metrics_listen=f"127.0.0.1:{port}")
    with place.run() as program:
        program.wait_for("READY=1")
        with pytest.raises((http.client.HTTPException, OSError)):  # no TLS
            urlopen(f"http://127.0.0.1:{place.enrol_port}/", timeout=5)
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    assert 'bedplate_machines{phase="silent"} 0.0' in text
    assert "process_cpu_seconds_total" in text
    assert 'bedplate_connections_total{port="enrol_listen"} 1.0' in text
    assert 'bedplate_connections_with_a_call_total{port="enrol_listen"} 0.0' in text


def test_strangers_write_nothing_into_its_log(place: Site) -> None:
    """Each handshake that failed would be a line of gRPC's own, in another form than ours."""
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    with place.run() as program:
        program.wait_for("READY=1")
        for port in (place.port, place.enrol_port):
            with socket.create_connection(("127.0.0.1", port), 5) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
                plain.shutdown(socket.SHUT_WR)
                while plain.recv(4096):
                    pass
        plain = socket.create_connection(("127.0.0.1", place.port), 5)
        with plain, stranger.wrap_socket(plain) as tls, contextlib.suppress(OSError):
            while tls.recv(4096):
                pass
        assert place.bedplate("status").returncode == 0
        assert program.stop() == 0
        assert [line for line in program.text().splitlines() if " INFO " not in line] == []


def test_nothing_is_left_running(place: Site) -> None:
    with place.run() as program:
        program.wait_for("READY=1")
        pid = program.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_without_its_packages_it_says_which_to_install() -> None:
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import provisioner.__main__"
    done = subprocess.run([sys.executable, "-ISc", start], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (
        1,
        "provisioner: cannot start: alembic is not installed; pip install 'bedplate[provisioner]'\n",
    )


@pytest.mark.parametrize("command", [(), ("ca", "rotate"), ("audit", "verify")])
def test_its_help_shows_examples_a_line_each(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [str(BIN / "provisioner"), *command, "--help"], capture_output=True, text=True, timeout=30, check=True
    )
    assert "\n  Examples:\n    provisioner " in done.stdout
