"""The provisioner's log, received by a socket as journald's is: fields for who searches, sentences for who reads."""

import ast
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from socket import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner import logs
from provisioner.logs import about
from tests.journal import journal, received, waiting
from tests.vm import guide

LOG = logging.getLogger("provisioner")
PROVISIONER = guide.ROOT / "provisioner"
SAID = "import sys; from pathlib import Path; from provisioner import logs; import logging"
SAYS = f"{SAID}; logs.set_up('info', 'auto', journal=Path(sys.argv[1])); logging.getLogger('provisioner').info('said')"


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def door(tmp_path: Path) -> Iterator[socket]:
    with journal(tmp_path / "j") as one:
        logs.set_up("info", "journal", journal=tmp_path / "j")
        yield one


def test_a_line_about_a_machine_is_found_by_the_machine_and_reads_as_its_sentence(door: socket) -> None:
    LOG.warning("machine %s broke it", "m-4kq7zt2x", extra=about("m-4kq7zt2x", reason="DECODE"))
    fields = dict(received(door))
    assert fields.pop("CODE_FILE").endswith("test_provisioner_logs.py")
    assert fields.pop("CODE_LINE").isdecimal()
    assert fields == {
        "MESSAGE": "machine m-4kq7zt2x broke it",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "provisioner",
        "SYSLOG_PID": str(os.getpid()),
        "CODE_FUNC": "test_a_line_about_a_machine_is_found_by_the_machine_and_reads_as_its_sentence",
        "MACHINE_ID_BEDPLATE": "m-4kq7zt2x",
        "REASON": "DECODE",
    }


def test_a_line_about_several_machines_is_found_by_each(door: socket) -> None:
    LOG.info("2 silent", extra=about("m-1", "m-2"))
    assert [value for name, value in received(door) if name == "MACHINE_ID_BEDPLATE"] == ["m-1", "m-2"]


def test_an_entry_about_a_whole_fleet_names_as_many_machines_as_the_journal_takes(door: socket) -> None:
    LOG.info("2000 machines", extra=about(*(f"m-{number}" for number in range(2000)), reason="MANY"))
    told = received(door)
    named = [value for name, value in told if name == "MACHINE_ID_BEDPLATE"]
    assert named == [f"m-{number}" for number in range(500)]
    assert ("REASON", "MANY") in told
    assert len(told) < 1024, "of which journald drops an entry, since version 240"


def test_what_a_library_says_goes_the_same_way(door: socket) -> None:
    logging.getLogger("grpc._cython.cygrpc").error("it broke")
    logging.getLogger("alembic").info("of no interest")
    logging.getLogger("asyncio").log(25, "of a level of its own")
    told = [dict(received(door)) for _ in range(2)]
    assert [(one["MESSAGE"], one["PRIORITY"]) for one in told] == [("it broke", "3"), ("of a level of its own", "6")]


def test_nothing_that_a_peer_says_forges_a_field_or_a_line(door: socket) -> None:
    LOG.info("x", extra=about("m-1"))
    names = [name for name, _ in received(door)]

    @given(st.text(), st.text())
    def holds(said: str, value: str) -> None:
        LOG.info("%s", said, extra=about(value))
        told = received(door)
        assert [name for name, _ in told] == names
        assert len(told[0][1].splitlines()) <= 1
        assert told[-1][1] == value.encode("utf-8", "backslashreplace").decode()

    holds()


def test_an_error_nobody_expected_reads_as_ever_and_has_its_traceback_in_a_field_too(door: socket) -> None:
    try:
        {}["gone"]
    except KeyError:
        LOG.exception("the tick failed")
    fields = dict(received(door))
    assert fields["MESSAGE"] == f"the tick failed\n{fields['TRACEBACK']}"
    assert fields["TRACEBACK"].endswith("KeyError: 'gone'")


def test_a_full_journal_holds_nobody_up_and_the_loss_is_told(door: socket) -> None:
    for number in range(1000):  # far more than the kernel keeps for a socket
        LOG.info("%d", number)
    kept = [one["MESSAGE"] for one in waiting(door)]
    assert kept == [str(number) for number in range(len(kept))]
    LOG.info("here again")
    LOG.info("and again")
    first, second = waiting(door)
    assert (first["MESSAGE"], first["ENTRIES_LOST"]) == ("here again", str(1000 - len(kept)))
    assert "ENTRIES_LOST" not in second


def test_an_entry_too_large_for_a_datagram_is_not_lost(door: socket, capsys: pytest.CaptureFixture[str]) -> None:
    LOG.error("%s", "x" * 4_000_000)
    assert door.recv(16) == b""  # a file
    assert capsys.readouterr().err == ""


def test_while_the_journal_is_away_lines_go_to_stderr_and_back_to_it_once_it_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.set_up("info", "journal", journal=tmp_path / "j")
    LOG.warning("a\n<0>forged\0<0>forged", extra=about("m-1"))
    assert capsys.readouterr().err == "<4>a\\x0a<0>forged\\x00<0>forged\n"
    for word in ("here", "restarted"):
        with journal(tmp_path / "j") as door:
            LOG.info("%s", word)
            assert dict(received(door))["MESSAGE"] == word
        LOG.info("away")
        assert capsys.readouterr().err == "<6>away\n"


def test_a_traceback_on_its_way_through_stderr_forges_no_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.set_up("info", "journal", journal=tmp_path / "j")
    try:
        raise ValueError("a\n<0>forged")  # noqa: TRY301 - as a library does
    except ValueError:
        LOG.exception("it broke")
    first, *rest = capsys.readouterr().err.splitlines()
    assert first == "<3>it broke"
    assert all(line.startswith("  ") for line in rest)
    assert rest[-1] == "  <0>forged"


@pytest.mark.parametrize("kind", ["auto", "stderr"])
def test_at_a_terminal_a_line_is_a_time_a_level_and_a_sentence(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", kind)
    LOG.warning("machine m-1 broke it\n\x1b[31m", extra=about("m-1", reason="DECODE"))
    LOG.debug("not said")
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING machine m-1 broke it\\x0a\\x1b\[31m\n", capsys.readouterr().err)


def test_a_call_that_cannot_be_written_ends_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with journal(tmp_path / "j") as door:
        logs.set_up("info", "journal", journal=tmp_path / "j")  # here, where it takes the place of pytest's handlers
        LOG.info("%d machines", "m-1")
        LOG.info("and on")
        assert dict(received(door))["MESSAGE"] == "and on"
    assert "TypeError" in capsys.readouterr().err


@pytest.mark.parametrize("said", ["{device}:{inode}", "{device}:1", "7:{inode}", "", "soon", "1:2:3"])
def test_stderr_leads_to_the_journal_where_it_is_the_stream_that_systemd_has_made(said: str, tmp_path: Path) -> None:
    with journal(tmp_path / "j") as door, (tmp_path / "stderr").open("wb") as stderr:
        status = os.fstat(stderr.fileno())
        stream = said.format(device=status.st_dev, inode=status.st_ino)
        command = [sys.executable, "-c", SAYS, str(tmp_path / "j")]
        subprocess.run(command, stderr=stderr, env={**os.environ, "JOURNAL_STREAM": stream}, check=True)
        entries = [one["MESSAGE"] for one in waiting(door)]
    lines = (tmp_path / "stderr").read_text()
    if "{device}:{inode}" in said:
        assert (entries, lines) == (["said"], "")
    else:
        assert entries == []
        assert re.fullmatch(r"\d\d:\d\d:\d\d INFO    said\n", lines)


def _calls(of: str) -> Iterator[ast.Call]:
    """Each call whose function is of that name, or of an object of that name."""
    for path in sorted(PROVISIONER.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(value=ast.Name(id=name))) if name == of:
                    yield node


def test_each_line_that_names_a_machine_or_a_sink_has_it_in_a_field_too() -> None:
    calls = {ast.unparse(call): {one.arg for one in call.keywords} for call in _calls("LOG")}
    assert len(calls) > 15
    named = {call: has for call, has in calls.items() if re.search(r"machine_id|sink\.name|self\.name|\bname\b", call)}
    assert len(named) > 8
    assert [call for call, has in named.items() if "extra" not in has] == []


def test_each_field_has_its_row() -> None:
    table = guide.part("The log", guide.ROOT / "docs/operations.md")
    rows = set(re.findall(r"^\| `([A-Z_]+)` \|", table, flags=re.MULTILINE))
    given = {one.arg.upper() for call in _calls("about") for one in call.keywords if one.arg}
    assert given == {"REASON", "SINK"}
    assert rows == given | {"MACHINE_ID_BEDPLATE", "TRACEBACK", "ENTRIES_LOST"}
