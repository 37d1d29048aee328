"""The terminal and the real provisioner: what one sends the other understands, and its refusals read well."""

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator

import pytest

from provisioner import credentials
from provisioner.pki import PersonIdentity, Role
from provisioner.store import Store
from provisioner.world import Accepted, Asked
from tests.running import BIN, Site, site

pytestmark = pytest.mark.slow

DAY_S = 86400.0
PENDING, LET_IN = "m-pppppppp", "m-llllllll"


def _asked(name: str, hostname: str, waits: str) -> Asked:
    return Asked(
        machine_id=name,
        incarnation=1,
        key_sha256=hostname.encode(),
        evidence=b"",
        hostname=hostname,
        product="NVIDIA DGX H100",
        serial="1660224000123",
        token_id="t-1",
        waits_because=waits,
        at=time.time() - 60,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A provisioner that knows one machine that waits and one that is let in."""
    made = site(tmp_path_factory.mktemp("site"))
    store = Store.open(made.folder / "provisioner/bedplate.db")
    store.begin_epoch()
    waits = "its token asks for review"
    store.write([_asked(PENDING, "gpu-01", waits), _asked(LET_IN, "gpu-02", ""), Accepted(LET_IN, time.time())])
    store.close()
    with made.run() as provisioner:
        provisioner.wait_for("READY=1")
        yield made


def _line(place: Site, code: int, *arguments: str) -> str:
    done = place.bedplate(*arguments, check=False)
    assert done.returncode == code, done
    return done.stderr.splitlines()[-1]


def test_a_pending_machine_is_found_accepted_and_forgotten(place):
    found = json.loads(place.bedplate("machines", "--phase", "pending", "-o", "json").stdout)
    assert [one["machine_id"] for one in found] == [PENDING]
    assert "its token asks for review" in place.bedplate("machines").stdout
    assert place.bedplate("explain", "gpu-01").stdout.startswith(f"gpu-01 ({PENDING}) is pending: ")
    accepted = place.bedplate("machine", "accept", "m-pppp")
    what, why = accepted.stderr.splitlines()
    assert what.startswith(
        f"accepting gpu-01 ({PENDING}), NVIDIA DGX H100, serial 1660224000123: it gets a certificate"
    )
    assert why.startswith("it waits for a person: ")
    assert accepted.stdout == f"gpu-01 ({PENDING}) is accepted: it gets a certificate the next time it asks\n"
    again = place.bedplate("machine", "accept", "gpu-01").stdout
    assert again == f"gpu-01 ({PENDING}) was let in before: nothing is changed\n"
    assert json.loads(place.bedplate("machines", "-o", "json", "--sort", "-hostname").stdout)[1]["phase"] == (
        "PHASE_ACCEPTED"
    )
    assert place.bedplate("machine", "forget", "gpu-01", "--yes").stdout == f"gpu-01 ({PENDING}) is forgotten\n"
    assert place.bedplate("machines").stdout.splitlines()[-1] == "1 machine: 1 accepted"
    assert "machine.forgotten" in place.bedplate("events", "--kind", "machine.").stdout


def test_a_machine_without_a_snapshot_has_a_page_and_no_topology(place):
    assert "It has sent no snapshot yet." in place.bedplate("machine", "show", "gpu-02").stdout
    assert "cannot show the topology of" in _line(place, 1, "topology", "gpu-02")


def test_a_filter_that_is_wrong_is_told_with_its_position(place):
    assert _line(place, 2, "machines", "--filter", "phase=silent gpus=>8").startswith(
        "bedplate: cannot read filter: at position 19: "
    )
    assert "the fields are id, hostname" in _line(place, 2, "machines", "--sort", "colour")


def test_a_token_is_made_listed_and_revoked(place):
    made = place.bedplate("token", "create", "--uses", "3", "--ttl", "2h")
    assert made.stdout.startswith("bedplate1.")
    assert made.stdout.count("\n") == 1
    name = next(word for word in made.stderr.split() if word.startswith("t-")).rstrip(":")
    assert f"{name}  open   0 of 3  in 2h" in place.bedplate("token", "list").stdout
    assert f"token {name} is revoked, after 0 uses" in place.bedplate("token", "revoke", name).stdout
    assert f"{name}  revoked" in place.bedplate("token", "list").stdout
    assert _line(place, 3, "token", "revoke", "t-nobody").endswith("; see `bedplate token list`")


def test_a_viewer_may_look_and_may_not_touch(place):
    folder = place.folder / "vera"
    command = [str(BIN / "provisioner"), "--config", str(place.config), "credential", "vera", "--role", "viewer"]
    subprocess.run([*command, "--out", str(folder)], check=True, capture_output=True, timeout=60)
    address = f"127.0.0.1:{place.port}"
    place.bedplate("context", "add", "vera", "--address", address, "--credentials", str(folder))
    assert "vera (viewer)" in place.bedplate("--context", "vera", "status").stdout
    assert place.bedplate("--context", "vera", "machines").returncode == 0
    assert "cannot" in _line(place, 5, "--context", "vera", "token", "create")


def test_a_watch_of_machines_begins_with_all_there_are(place):
    command = [str(BIN / "bedplate"), "watch", "--filter", "id=" + LET_IN]
    environment = {"XDG_CONFIG_HOME": str(place.folder / "xdg"), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as watch:
        line = watch.stdout.readline()
        watch.terminate()
    assert "accepted  gpu-02: let in" in line


@pytest.mark.slow
def test_a_watch_outlives_the_provisioner_and_misses_nothing(tmp_path):
    own = site(tmp_path)
    environment = {"XDG_CONFIG_HOME": str(tmp_path / "xdg"), "PATH": "/usr/bin:/bin"}
    command = [str(BIN / "bedplate"), "watch", "--events"]
    with own.run() as provisioner:
        provisioner.wait_for("READY=1")
        watch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        while not select.select([watch.stdout], [], [], 0)[0]:
            own.bedplate("token", "create")
            assert watch.poll() is None
        provisioner.stop()
    assert "went away" in watch.stderr.readline()
    with watch, own.run() as provisioner:
        provisioner.wait_for("READY=1")
        name = next(word for word in own.bedplate("token", "create").stderr.split() if word.startswith("t-")).rstrip(
            ":"
        )
        assert any(f"made join token {name}" in line for line in iter(watch.stdout.readline, ""))
        watch.terminate()


@pytest.mark.slow
def test_a_simulation_gets_its_token_without_being_told(place):
    done = place.bedplate("simulate", "--machines", "1", "--once", "--state", str(place.folder / "simulated"))
    assert done.returncode == 0
    found = json.loads(place.bedplate("machines", "-o", "json", "--filter", "gpus>0").stdout)
    assert len(found) == 1
    name = found[0]["machine_id"]
    assert "NVLinks each" in place.bedplate("machine", "show", name).stdout
    assert "GPUs to NICs" in place.bedplate("topology", name).stdout
    assert json.loads(place.bedplate("topology", name, "-o", "json").stdout)["topology"]["parts"]


def test_no_token_is_made_for_a_simulation_that_cannot_be(place):
    before = place.bedplate("token", "list", "-o", "json").stdout
    for words, code, says in [
        (["--machines", "0"], 2, "argument --machines: must be 1 to 10000"),
        (["--machines", "8", "--chaos"], 2, "unrecognized arguments: --chaos"),
        (["--machines", "8", "--help"], 0, ""),
        (["--plan", "0"], 0, ""),
        (["--join-token", "garbled", "--state", str(place.folder / "none")], 1, "it does not begin with"),
        (["--state", "/dev/null/state"], 1, "/dev/null/state: Not a directory"),
        (["--state", str(place.folder / "none"), "--events", "/proc/none/events"], 1, "cannot write events /proc/none"),
    ]:
        done = place.bedplate("simulate", *words, check=False)
        assert (done.returncode, says in done.stderr) == (code, True), done.stderr
        assert done.stdout.count("usage:") == ("--help" in words)
    assert place.bedplate("token", "list", "-o", "json").stdout == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("forget", "gpu-02"), "its certificate will be worth nothing; the host itself is not touched"),
        (("revoke", "gpu-02"), "its certificate will be worth nothing; the machine stays known"),
        (("accept", "gpu-02", "--replaces", "gpu-02"), f"it takes the place of gpu-02 ({LET_IN})"),
        (("accept", "gpu-02", "--beside", "gpu-02"), f"it is another machine than gpu-02 ({LET_IN})"),
    ],
)
def test_what_cannot_be_taken_back_is_told_first_and_wants_a_yes(place, words, says):
    before = place.bedplate("events", "-o", "json").stdout
    done = place.bedplate("machine", *words, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.endswith(": nobody is here to be asked; say --yes if it is meant\n")
    assert place.bedplate("events", "-o", "json").stdout == before


def test_a_watch_of_events_from_0_begins_with_the_oldest_that_is_kept(place):
    place.bedplate("token", "create")
    kept = json.loads(place.bedplate("events", "--limit", "1000", "-o", "json").stdout)
    environment = {**os.environ, "XDG_CONFIG_HOME": str(place.folder / "xdg")}
    command = [str(BIN / "bedplate"), "watch", "--events", "--from", "0", "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as watch:
        assert watch.stdout
        told = json.loads(watch.stdout.readline())["event"]
        watch.terminate()
    assert int(told["revision"]) == min(int(one["revision"]) for one in kept)


def test_a_machine_is_revoked_and_gets_a_token_of_its_own(place):
    revoked = place.bedplate("machine", "revoke", "gpu-02", "--yes")
    assert "its certificate will be worth nothing; the machine stays known" in revoked.stderr
    assert revoked.stdout.endswith(f"is revoked; to let it in again: bedplate machine rekey {LET_IN}\n")
    made = place.bedplate("machine", "rekey", "gpu-02", "--ttl", "2h")
    assert made.stdout.startswith("bedplate1.")
    assert made.stderr.startswith("making a join token for gpu-02 (")
    assert "the certificate that the machine has now is worth nothing" in made.stderr
    assert f"-for-{LET_IN}: ends" in made.stderr
    told = " ".join(place.bedplate("explain", "gpu-02").stdout.split())
    assert f"bedplate machine rekey {LET_IN}" in told
    refused = _line(place, 1, "machine", "accept", "gpu-02", "--replaces", "gpu-02", "--yes")
    assert "it does not wait for a person" in refused


def test_a_certificate_that_is_over_or_not_yet_begun_and_a_wrong_port_are_named(place):
    ca, now, address = credentials.load(place.folder / "provisioner"), time.time(), f"127.0.0.1:{place.port}"
    for name, at, says in (("late", now - 20 * DAY_S, " ended on "), ("early", now + 20 * DAY_S, " begins on ")):
        folder = place.folder / name
        folder.mkdir(mode=0o700)
        chain, key = ca.issue_person(PersonIdentity(name, Role.ADMIN), now=at, lifetime_s=10 * DAY_S)
        for file, content in {"ca.pem": ca.roots_pem, "cert.pem": chain, "key.pem": key}.items():
            (folder / file).touch(mode=0o600)
            (folder / file).write_bytes(content)
        place.bedplate("context", "add", name, "--address", address, "--credentials", str(folder))
        assert f"the certificate {folder}/cert.pem{says}" in _line(place, 4, "--context", name, "machines")
    door, admin = f"127.0.0.1:{place.enrol_port}", str(place.folder / "provisioner/admin")
    place.bedplate("context", "add", "door", "--address", door, "--credentials", admin)
    assert _line(place, 1, "--context", "door", "machines").endswith("or its port for newcomers")


def test_a_credential_is_listed_taken_back_and_worth_nothing_then(place):
    command = [str(BIN / "provisioner"), "--config", str(place.config), "credential", "eve", "--role", "operator"]
    subprocess.run([*command, "--out", str(place.folder / "eve")], check=True, capture_output=True, timeout=60)
    address = f"127.0.0.1:{place.port}"
    place.bedplate("context", "add", "eve", "--address", address, "--credentials", str(place.folder / "eve"))
    (eve,) = json.loads(place.bedplate("credential", "list", "--name", "eve", "-o", "json").stdout)
    (row,) = [line for line in place.bedplate("credential", "list").stdout.splitlines() if line.startswith("eve")]
    assert row.split()[1:3] == ["operator", "good"]
    assert row.endswith(f"in 365d  {eve['serial_number']}")
    assert _line(place, 5, "--context", "eve", "credential", "revoke", "admin", "--yes").endswith(
        "Fleet/RevokeCredential: eve (operator) may not; it takes the role admin"
    )
    assert _line(place, 3, "credential", "revoke", "nobody", "--yes") == (
        "bedplate: cannot revoke credential nobody: none was made for that name; see bedplate credential list"
    )
    assert _line(place, 2, "credential", "revoke", "eve") == (
        "bedplate: cannot revoke credential eve: nobody is here to be asked; say --yes if it is meant"
    )
    said = place.bedplate("credential", "revoke", "eve", "--yes")
    assert said.stderr.splitlines()[0] == (
        "revoking all certificates of eve (1 good one known here): calls are refused and open streams end, at once"
    )
    refused = _line(place, 5, "--context", "eve", "status")
    assert refused.endswith("was revoked: another is made on the provisioner's host, with `provisioner credential`")
    assert "credential.revoked" in place.bedplate("events").stdout
    (entry,) = json.loads(place.bedplate("audit", "--who", "admin", "-n", "1", "-o", "json").stdout)
    assert (entry["who"], entry["role"], entry["method"]) == ("admin", "admin", "RevokeCredential")
