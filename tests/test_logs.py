"""The log and the words to systemd, received by sockets as journald's and systemd's are."""

import fcntl
import io
import logging
import os
import re
import socket
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent import logs
from nodeagent.errors import ConfigError
from nodeagent.logs import LOG, OnChange, leads_to_journal
from nodeagent.notify import notify, watchdog_interval_s
from tests.journal import decoded, journal, received, waiting


@pytest.fixture(autouse=True)
def _log_as_it_was():
    level = LOG.level
    yield
    logs.stop()
    LOG.setLevel(level)


@pytest.fixture
def receiver(tmp_path):
    with journal(tmp_path / "socket") as door:
        yield door


def to_journal(tmp_path, level="info"):
    stream = io.StringIO()
    logs.start("journal", level, journal=tmp_path / "socket", stream=stream)
    return stream


def test_an_entry_reaches_the_journal_field_by_field(tmp_path, receiver):
    to_journal(tmp_path)
    LOG.warning("cannot read %s", "x", extra={"fields": {"probe": "rdma", "bad name": "left out", "message": "forged"}})
    fields = dict(received(receiver))
    assert fields["MESSAGE"] == "cannot read x"
    assert (fields["PRIORITY"], fields["SYSLOG_IDENTIFIER"], fields["PROBE"]) == ("4", "nodeagent", "rdma")
    assert fields["CODE_FILE"].endswith("test_logs.py")
    assert "BAD NAME" not in fields


def test_what_every_entry_carries_is_said_once(tmp_path, receiver):
    to_journal(tmp_path)
    logs.mark(MACHINE_ID_BEDPLATE="m-4kq7zt2x")
    LOG.info("a")
    LOG.info("b")
    assert [dict(received(receiver))["MACHINE_ID_BEDPLATE"] for _ in "ab"] == ["m-4kq7zt2x"] * 2


def test_a_peer_cannot_forge_a_field(tmp_path, receiver):
    to_journal(tmp_path)
    LOG.info("x")
    names = [name for name, _ in received(receiver)]

    @given(st.text(), st.text())
    def holds(said, value):
        LOG.info("%s", said, extra={"fields": {"probe": value}})
        told = received(receiver)
        assert [name for name, _ in told] == [*names, "PROBE"]
        shown = [text.encode("utf-8", "backslashreplace").decode() for text in (said, value)]
        assert [told[0][1], told[-1][1]] == shown

    holds()
    LOG.info("a\nPRIORITY=0\n")
    assert [value for name, value in received(receiver) if name in ("MESSAGE", "PRIORITY")] == ["a\nPRIORITY=0\n", "6"]


def test_an_entry_too_large_for_a_datagram_travels_as_a_sealed_file(tmp_path, receiver):
    to_journal(tmp_path)
    LOG.error("%s", "x" * 4_000_000)
    data, (handle,), *_ = socket.recv_fds(receiver, 16, 1)
    with os.fdopen(handle, "rb") as file:
        assert fcntl.fcntl(handle, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
        file.seek(0)
        assert data == b""
        assert dict(decoded(file.read()))["MESSAGE"] == "x" * 4_000_000


def test_an_error_nobody_expected_brings_its_traceback(tmp_path, receiver):
    to_journal(tmp_path)
    try:
        {}["gone"]
    except KeyError:
        LOG.exception("the probe broke")
    assert "KeyError: 'gone'" in dict(received(receiver))["TRACEBACK"]


def test_a_full_journal_delays_nobody_and_the_loss_is_told(tmp_path, receiver):
    to_journal(tmp_path)
    while not LOG.handlers[0].lost:
        LOG.info("x")
    LOG.info("lost too")
    for _ in range(3):
        received(receiver)
    LOG.info("here again")
    assert list(waiting(receiver))[-1]["ENTRIES_LOST"] == "2"


def test_without_a_journal_the_line_goes_to_stderr(tmp_path, receiver):
    stream = to_journal(tmp_path)
    receiver.close()
    LOG.info("still said")
    assert "still said" in stream.getvalue()


def test_a_journal_that_was_restarted_is_found_again(tmp_path):
    with journal(tmp_path / "socket") as door:
        stream = to_journal(tmp_path)
        LOG.info("before")
        assert dict(received(door))["MESSAGE"] == "before"
    with journal(tmp_path / "socket") as door:
        LOG.info("after")
        assert dict(received(door))["MESSAGE"] == "after"
    assert stream.getvalue() == ""


def test_a_journal_that_is_not_there_is_an_error_of_the_configuration(tmp_path):
    with pytest.raises(ConfigError, match=r'cannot log to the journal: .*nowhere: .*set log = "stderr"'):
        logs.start("journal", "info", journal=tmp_path / "nowhere")


def test_a_line_on_stderr_is_one_line(tmp_path):
    stream = io.StringIO()
    logs.start("auto", "info", journal=tmp_path / "nowhere", stream=stream)
    LOG.debug("not said")
    LOG.info("a\n12:00:00 forged \x1b[31m")
    LOG.warning("hm", extra={"fields": {"probe": "rdma"}})
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d a\\x0a12:00:00 forged \\x1b\[31m", first)
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning: hm \(probe rdma\)", second)


def test_starting_again_replaces_what_was(tmp_path):
    first, second = io.StringIO(), io.StringIO()
    logs.start("stderr", "info", stream=first)
    logs.start("stderr", "debug", stream=second)
    LOG.debug("once")
    assert (first.getvalue(), second.getvalue().count("once")) == ("", 1)


def test_stderr_that_systemd_made_is_known_by_its_inode(tmp_path):
    with (tmp_path / "f").open("w") as file:
        status = os.fstat(file.fileno())
        assert leads_to_journal(file, f"{status.st_dev}:{status.st_ino}")
        assert not leads_to_journal(file, "1:2")
        assert not leads_to_journal(file, "")
    assert not leads_to_journal(io.StringIO(), "1:2")


def test_a_sentence_is_said_when_it_changes_and_not_when_it_repeats():
    stream = io.StringIO()
    logs.start("stderr", "info", stream=stream)
    on_change = OnChange()
    said = [on_change.say("rdma", sentence, logging.WARNING) for sentence in ("down", "down", "up", "down")]
    assert said == [True, False, True, True]
    assert on_change.say("net", "down")
    on_change.forget("net")
    assert on_change.say("net", "down")
    assert len(stream.getvalue().splitlines()) == 5


def test_systemd_hears_what_happens(tmp_path, receiver):
    environment = {"NOTIFY_SOCKET": str(tmp_path / "socket")}
    notify("READY=1", "STATUS=waiting for\nWATCHDOG=trigger", environment=environment)
    notify("RELOADING=1", environment=environment)
    assert receiver.recv(4096) == b"READY=1\nSTATUS=waiting for WATCHDOG=trigger"
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", receiver.recv(4096).decode())


def test_an_abstract_socket_is_reached():
    name = f"bedplate-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind(f"\0{name}")
        door.settimeout(5)
        notify("WATCHDOG=1", environment={"NOTIFY_SOCKET": f"@{name}"})
        assert door.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "vsock:2:1", "@nobody-listens-here"])
def test_where_nobody_listens_nothing_happens(address):
    notify("READY=1", environment={"NOTIFY_SOCKET": address})


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_systemd_asks(environment, interval_s):
    assert watchdog_interval_s(environment, pid=7) == interval_s
