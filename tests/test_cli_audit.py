"""`bedplate audit` and `provisioner audit`, as people run them, on a provisioner that runs."""

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing

import pytest

from bedplate.v1.fleet_pb2 import AuditEntry
from provisioner.cli.views.audit import change
from tests.running import BIN, Site, site

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = site(tmp_path_factory.mktemp("audit"))
    with made.run() as provisioner:
        provisioner.wait_for("READY=1")
        made.bedplate("token", "create", "--uses", "3")
        _provisioner(made, "credential", "vera", "--role", "viewer", "--out", str(made.folder / "vera"))
        made.bedplate("token", "create")
        yield made


def _provisioner(place: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "provisioner"), "--config", str(place.config), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_it_lists_the_writes_of_people_and_those_on_the_host(place: Site) -> None:
    text = place.bedplate("audit").stdout
    assert text.splitlines()[0].split() == ["ENTRY", "AT", "WHO", "WHAT", "CHANGE"]
    said = " ".join(text.split())
    for part in (
        "provisioner init admin: made, role admin, serial_number ",
        "Z admin (admin) CreateToken t-",
        "provisioner credential vera: made, role viewer, ",
    ):
        assert part in said


def test_a_change_is_told_in_words() -> None:
    moved = AuditEntry(
        before='{"machines":[{"machine_id":"m-1","phase":"PHASE_PENDING"}]}',
        after='{"machines":[{"machine_id":"m-1","phase":"PHASE_ACCEPTED","accepted_at":"2026-11-23T11:47:04Z"}]}',
    )
    assert change(moved) == "m-1: phase pending -> accepted, accepted_at none -> 2026-11-23T11:47:04Z"
    assert change(AuditEntry(before=moved.before)) == "m-1: gone"
    assert change(AuditEntry(before='{"machines":[{"machine_id":"m-1","hostname":"gpu-1"}]}')) == "m-1 (gpu-1): gone"
    came = '{"machines":[{"machine_id":"m-1","asked_at":"2026-11-23T11:47:04.018247168Z"}],'
    came += '"tokens":[{"token_id":"t-1","uses":2}],"standings":[{"machine_id":"m-1","key_sha256":"9f86"}]}'
    before = '{"tokens":[{"token_id":"t-1","uses":1}]}'
    made = "m-1: made, asked_at 2026-11-23T11:47:04Z, key_sha256 9f86; t-1: uses 1 -> 2"
    assert change(AuditEntry(before=before, after=came)) == made
    assert change(AuditEntry(machine_id="m-1")) == "m-1: was so already"
    assert change(AuditEntry(before="[1]", after="no JSON")) == "[1] -> no JSON"


def test_it_filters_and_exports_lines_of_json(place: Site) -> None:
    export = place.bedplate("audit", "-o", "jsonl").stdout.splitlines()
    assert [int(json.loads(line)["sequence"]) for line in export] == [1, 2, 3, 4]
    mine = json.loads(place.bedplate("audit", "--who", "admin", "--since", "1h", "-o", "json").stdout)
    assert [entry["method"] for entry in mine] == ["CreateToken", "CreateToken"]
    (last,) = place.bedplate("audit", "-o", "jsonl", "--limit", "1").stdout.splitlines()
    assert json.loads(last) == json.loads(export[-1])
    assert place.bedplate("audit", "--until", "2020-01-01").stdout == "no entry\n"
    yaml = place.bedplate("audit", "--who", "admin", "-o", "yaml").stdout
    assert yaml.startswith("- sequence: ")


@pytest.mark.parametrize(
    ("code", "said", "arguments"),
    [
        (2, "is no time", ["--since", "yesterday"]),
        (2, "is no time", ["--until", "2026-13-01"]),
        (2, "cannot read anchor '42'", ["verify", "--anchor", "42"]),
        (3, "nothing here has that id or host name", ["--machine", "gpu-99"]),
        (1, "entry 1 is not the one of the anchor", ["verify", "--anchor", "1:" + "0" * 64]),
    ],
)
def test_bad_input_is_one_line(place: Site, code: int, said: str, arguments: list[str]) -> None:
    done = place.bedplate("audit", *arguments, check=False)
    assert done.returncode == code, done
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_both_ends_find_the_chain_whole_and_agree_on_its_anchor(place: Site) -> None:
    online = place.bedplate("audit", "verify")
    assert "4 entries: the chain is whole" in online.stderr
    offline = _provisioner(place, "audit", "verify", "--anchor", online.stdout.strip())
    assert (offline.returncode, offline.stdout) == (0, online.stdout), offline.stderr


def test_a_copy_that_somebody_touched_is_found_and_said_in_one_line(place: Site) -> None:
    path = place.folder / "copy.db"
    with (
        closing(sqlite3.connect(place.folder / "provisioner/bedplate.db")) as source,
        closing(sqlite3.connect(path)) as copy,
    ):
        source.backup(copy)
        copy.execute("UPDATE audit SET who = 'mallory' WHERE sequence = 2")
        copy.commit()
    done = _provisioner(place, "audit", "verify", "--store", str(path))
    assert done.returncode == 1
    assert done.stderr.startswith("provisioner: cannot trust the audit: entry 2 was changed after it was written")
    missing = _provisioner(place, "audit", "verify", "--store", str(place.folder / "none.db"))
    assert missing.stderr.startswith("provisioner: cannot verify the audit: there is no store ")
