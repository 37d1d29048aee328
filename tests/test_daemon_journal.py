"""Whoever looks for one machine in a journal of many finds all that its agent said."""

from pathlib import Path

from nodeagent import logs
from nodeagent.config import Config
from nodeagent.daemon import Daemon
from nodeagent.identity import Identity
from tests.journal import journal, received

WHO = Identity("m-4kq7zt2x", 1, 0.0, 1.0, 0.0, "t-1", (), "", "", "")


def test_entries_name_the_machine_once_it_has_an_identity(tmp_path: Path) -> None:
    with journal(tmp_path / "j") as door:
        logs.start("journal", "info", journal=tmp_path / "j")
        try:
            daemon = Daemon(tmp_path / "nodeagent.toml", Config(), {})
            daemon._say("not connected yet")
            daemon._who = lambda: WHO
            daemon._say("connected")
        finally:
            logs.stop()
        first, second = dict(received(door)), dict(received(door))
    assert "MACHINE_ID_BEDPLATE" not in first
    assert second["MACHINE_ID_BEDPLATE"] == "m-4kq7zt2x"
