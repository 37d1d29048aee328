"""Bytes that nobody should send: to everything that reads bytes from outside, and in the files of a machine."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedplate.v1.snapshot_pb2 import Inventory
from nodeagent.host import replayed
from nodeagent.observe import scan
from nodeagent.page import page
from tests.fuzz import wires
from tests.fuzz.decoder import Decoder, plain
from tests.fuzz.decoders import DECODERS
from tests.fuzz.found import FOUND
from tests.fuzz.inputs import NASTY, spoilt
from tests.fuzz.places import entered, good_day, left_out
from tests.fuzz.run import BrokenError, again, packed, searched, unpacked

MACHINES = Path(__file__).parent / "machines"
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_reads_or_refuses_whatever_it_is_handed(name: str) -> None:
    searched(name, DECODERS[name].examples)


def test_on_a_good_day_all_is_read_and_no_place_that_decodes_is_without_a_row() -> None:
    """Where it is: give it a row in tests/fuzz, or say in `places.OURS` that nobody else makes what it reads."""
    assert left_out(entered(lambda: good_day(DECODERS))) == []


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_once_is_stood_since(name: str) -> None:
    for body in FOUND[name]:
        again(name, body)


def test_every_method_of_every_service_is_met() -> None:
    assert {f"wire: {name}" for name in wires.METHODS} <= set(DECODERS)


class _Bytes(Decoder):
    """Of the inputs that are made from a corpus it is the library's affair how small they get."""

    inputs = st.binary()


def test_what_a_decoder_does_not_stand_is_shrunk_and_told_with_the_command_that_reads_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = _Bytes(plain(lambda body: 1 // (b"\xff" not in body)), [b"good"])
    monkeypatch.setitem(DECODERS, "broken", broken)
    with pytest.raises(BrokenError) as told:
        searched("broken", 300, 1)
    lines = str(told.value).splitlines()
    assert lines[0].startswith("broken: ZeroDivisionError: ")
    found = unpacked(lines[2].split()[-1])
    assert found == b"\xff"
    with pytest.raises(BrokenError):
        again("broken", found)


def test_an_input_that_failed_is_one_argument_of_the_command_that_reads_it_again() -> None:
    for body in NASTY:
        assert unpacked(packed(body)) == body


# -- the files of a machine --------------------------------------------------------------------------------------------


def _directory(path: Path, _: bytes) -> None:
    path.mkdir()


def _pipe(path: Path, _: bytes) -> None:
    os.mkfifo(path)


def _link(path: Path, body: bytes) -> None:
    """Out of the folder, round in a circle, to nowhere."""
    path.symlink_to((b"/etc/shadow", path.name.encode(), b"nowhere", b"../../../../../..")[len(body) % 4].decode())


def _huge(path: Path, _: bytes) -> None:
    """A terabyte, with nothing in it."""
    with path.open("wb") as file:
        file.truncate(1 << 40)


def _bytes(path: Path, body: bytes) -> None:
    path.write_bytes(body)


KINDS = (_bytes, _bytes, _bytes, _directory, _pipe, _link, _huge)


@pytest.mark.parametrize("model", ["vm", "h100"])
def test_a_machine_whose_files_are_anything_is_scanned_with_problems(tmp_path: Path, model: str) -> None:
    root = shutil.copytree(MACHINES / model, tmp_path / model, symlinks=True)
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    good = {path: path.read_bytes() for path in files if path.name != "capture.json"}

    @settings(max_examples=12)
    @given(st.data())
    def look(data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from([*good]), min_size=1, max_size=40, unique=True))
        kinds = [data.draw(st.sampled_from(KINDS)) for _ in chosen]
        bodies = [data.draw(spoilt([good[path], *NASTY])) for path in chosen]  # what is too much to draw ends here
        try:
            for path, kind, body in zip(chosen, kinds, bodies, strict=True):
                path.unlink()
                kind(path, body)
            _is_scanned(root)
        finally:
            for path in chosen:
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
                path.write_bytes(good[path])

    look()


def _is_scanned(root: Path) -> None:
    snapshot = scan(replayed(root))
    assert page(snapshot)
    Inventory.FromString(snapshot.inventory.SerializeToString())
    assert [problem.detail for problem in snapshot.problems if "\n" in problem.detail] == []
