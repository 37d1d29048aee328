"""A captured machine replays to the snapshot that was taken, byte for byte."""

import errno
import io
import json
import tarfile
import threading
from pathlib import Path

import pytest
from trees import captured, machine, plant

from bedplate.v1.snapshot_pb2 import Problem, Snapshot
from nodeagent.capture import CHUNK_BYTES, capture, capture_tar, tar, write
from nodeagent.errors import BedplateError, Unanswered
from nodeagent.host import Host, live, replayed
from nodeagent.observe import scan
from nodeagent.record import Record
from nodeagent.shipped import SAFELY

MACHINES = Path(__file__).parent / "machines"


def exact(snapshot: Snapshot) -> bytes:
    return snapshot.SerializeToString(deterministic=True)


def test_this_host_replays_byte_for_byte(tmp_path):
    taken = capture(live(), scrub=False)
    write(taken, tmp_path / "machine")
    assert taken.snapshot.inventory.identity.hostname
    assert exact(scan(replayed(tmp_path / "machine"))) == exact(taken.snapshot)


@pytest.mark.parametrize("name", ["dgx2", "h100", "vm"])
def test_a_capture_of_a_captured_machine_is_the_same_machine(tmp_path, name):
    host = replayed(MACHINES / name)
    write(capture(host, scrub=False), tmp_path / "again")
    assert exact(scan(replayed(tmp_path / "again"))) == exact(scan(host))


def test_what_could_not_be_read_is_captured_as_such(tmp_path):
    dmi = "sys/devices/virtual/dmi/id"
    files = {f"{dmi}/product_serial": "hidden", f"{dmi}/sys_vendor": "Dell"}
    refused = {f"{dmi}/product_serial": errno.EACCES, "sys/bus/pci/devices": errno.EIO}
    host = machine(tmp_path / "host", files, {"sys/class/dmi": "../devices/virtual/dmi"}, {"uname": {}}, refused)
    taken = capture(host, scrub=False)
    write(taken, tmp_path / "machine")
    assert {"product_serial", "devices"} <= {Path(p.part).name for p in taken.snapshot.problems}
    assert exact(scan(replayed(tmp_path / "machine"))) == exact(taken.snapshot)
    assert b"hidden" not in b"".join(taken.files.values())


def test_a_question_without_an_answer_is_captured_as_such(tmp_path):
    def ask(name):
        kind = "TIMEOUT" if name == "links" else "NO_PERMISSION"
        raise Unanswered(kind, f"cannot ask {name}: it is night")

    host = machine(tmp_path / "host")
    taken = capture(Host(host.root, ask, host.clock_ns), scrub=False)
    write(taken, tmp_path / "machine")
    assert {(p.probe, p.kind) for p in taken.snapshot.problems} >= {
        ("links", Problem.KIND_TIMEOUT),
        ("memory", Problem.KIND_NO_PERMISSION),
    }
    assert exact(scan(replayed(tmp_path / "machine"))) == exact(taken.snapshot)


def test_each_question_is_asked_once_however_many_probes_ask_it(tmp_path):
    asked = []
    lock = threading.Lock()

    def ask(name):
        with lock:
            asked.append(name)
        return {"total_bytes": len(asked), "available_bytes": len(asked), "gpus": []} if name != "links" else []

    host = machine(tmp_path / "host")
    capture(Host(host.root, ask, host.clock_ns), scrub=False)
    assert len(asked) == len(set(asked))


def test_empty_folders_and_empty_files_survive_and_add_nothing(tmp_path):
    plant(tmp_path / "host", {"sys/class/infiniband/mlx5_0/ports/1/state": "", "sys/class/net/eth0/device/x": ""})
    (tmp_path / "host/sys/class/infiniband/mlx5_1").mkdir()
    taken = capture(machine(tmp_path / "host"), scrub=False)
    write(taken, tmp_path / "machine")
    again = replayed(tmp_path / "machine")
    assert again.root.names("sys/class/infiniband") == ["mlx5_0", "mlx5_1"]
    assert again.root.names("sys/class/infiniband/mlx5_1") == []
    assert exact(scan(again)) == exact(taken.snapshot)


def test_links_in_a_capture_are_relative_and_stay_inside(tmp_path):
    links = {"etc/os-release": "/usr/lib/os-release", "etc/machine-id": "../../../../../var/id"}
    plant(tmp_path / "host", {"usr/lib/os-release": "ID=x", "var/id": "0123"}, links)
    taken = capture(machine(tmp_path / "host"), scrub=False)
    write(taken, tmp_path / "machine")
    assert {path: str((tmp_path / "machine" / path).readlink()) for path in links} == {
        "etc/os-release": "../usr/lib/os-release",
        "etc/machine-id": "../var/id",
    }
    assert exact(scan(replayed(tmp_path / "machine"))) == exact(taken.snapshot)


def test_the_manifest_says_what_the_folder_is(tmp_path):
    write(capture(replayed(MACHINES / "vm"), scrub=True), tmp_path / "machine")
    manifest = json.loads((tmp_path / "machine/capture.json").read_text())
    assert manifest["format"] == 1
    assert manifest["scrubbed"] is True
    assert manifest["provenance"]["kind"] == "recorded"
    assert manifest["taken_at"] == json.loads((MACHINES / "vm/capture.json").read_text())["taken_at"]


def test_a_folder_that_has_something_in_it_is_not_touched(tmp_path):
    plant(tmp_path, {"mine": "x"})
    with pytest.raises(BedplateError, match=r"cannot write capture .*: it is not empty; name a new folder"):
        write(capture(machine(tmp_path / "none"), scrub=False), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    plant(tmp_path, {"file": "x"})
    with pytest.raises(BedplateError, match=r"cannot write capture .*/file/machine: Not a directory"):
        write(capture(machine(tmp_path / "none"), scrub=False), tmp_path / "file/machine")


def test_the_tar_unpacks_to_the_same_machine_and_its_pieces_fit_a_message(tmp_path):
    host = replayed(MACHINES / "h100")
    pieces = list(capture_tar(host, scrub=False))
    assert max(map(len, pieces)) <= CHUNK_BYTES
    assert len(pieces) > 1
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        archive.extractall(tmp_path / "machine", **SAFELY)
    assert exact(scan(replayed(tmp_path / "machine"))) == exact(scan(host))


def test_a_tar_gives_pieces_before_it_is_whole():
    taken = capture(replayed(MACHINES / "h100"), scrub=False)
    assert len(next(iter(tar(taken)))) == CHUNK_BYTES


@pytest.mark.parametrize(
    ("manifest", "cause"),
    [
        (None, "it has no capture.json; make one with nodeagent capture DIR"),
        ("{", "capture.json is not JSON"),
        ("[]", "capture.json is not of format 1"),
        ('{"format": 2}', "capture.json is not of format 1"),
        ('{"format": 1}', "capture.json has no usable taken_at"),
        ('{"format": 1, "taken_at": "yesterday"}', "capture.json has no usable taken_at"),
    ],
)
def test_a_folder_that_is_no_capture_is_one_sentence(tmp_path, manifest, cause):
    plant(tmp_path, {} if manifest is None else {"capture.json": manifest})
    with pytest.raises(BedplateError) as refusal:
        replayed(tmp_path)
    assert str(refusal.value).startswith(f"cannot read capture {tmp_path}: {cause}")


def test_an_answer_that_is_not_json_is_a_problem_and_not_the_end(tmp_path):
    folder = captured(tmp_path, {"answers/memory.json": "{", "answers/cpu.json": "[1, 2]"})
    problems = {p.probe: p.detail for p in scan(replayed(folder)).problems}
    assert problems["memory"].startswith("cannot ask memory: the capture's answer is unusable")
    assert problems["cpu"].startswith("cannot probe cpu: AttributeError")


def test_a_record_of_a_folder_that_is_gone_is_empty(tmp_path):
    host = machine(tmp_path)
    record = Record()
    assert host.root.recording(record).names("sys/class/net") == []
    assert record.there == {}
