"""Where sentences go: the systemd journal, field by field, or stderr, a line each.

Rule 1: a sentence is logged when it changes, not when it repeats: `OnChange`.
Rule 2: logging never blocks the tick: what a full journal would not take is counted, and the count is said later.
Rule 3: nothing that a peer chose can forge a line or a field: control characters are shown, and fields have lengths.
Rule 4: secrets are no arguments of log calls; there is no filter that would find them.

The journal's socket is spoken to by `logging-journald`'s transport, which is told not to wait: docs/decisions/0026.
"""

import logging
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from logging_journald import JournaldTransport

from nodeagent.errors import ConfigError

LOG = logging.getLogger("nodeagent")
JOURNAL = JournaldTransport.SOCKET_PATH
PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))  # syslog's
FIELD_NAME = re.compile(r"[A-Z0-9][A-Z0-9_]{0,63}")
CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {0x2028: "\\u2028", 0x2029: "\\u2029"}


def start(where: str, level: str, *, journal: Path = JOURNAL, stream: TextIO | None = None) -> None:
    """Point the agent's log at "journal", "stderr", or at the journal where stderr already leads there ("auto")."""
    stream = stream or sys.stderr
    if where == "journal" and not journal.exists():
        raise ConfigError(f'cannot log to the journal: {journal}: No such file or directory; set log = "stderr"')
    lines = logging.StreamHandler(stream)
    lines.setFormatter(Lines())
    native = where == "journal" or (where == "auto" and journal.exists() and leads_to_journal(stream))
    stop()
    LOG.addHandler(Journal(journal, lines) if native else lines)
    LOG.setLevel(level.upper())
    LOG.propagate = False


def stop() -> None:
    """Back to where a program stands that has not started its log."""
    for handler in LOG.handlers[:]:
        LOG.removeHandler(handler)
        handler.close()
    LOG.propagate = True


def mark(**fields: str) -> None:
    """Fields of every entry in the journal from now on: MACHINE_ID_BEDPLATE, once there is one."""
    for handler in LOG.handlers:
        if isinstance(handler, Journal):
            handler.always.update(fields)


def leads_to_journal(stream: TextIO, said: str | None = None) -> bool:
    """Whether systemd connected this stream to the journal: it says so as device:inode in JOURNAL_STREAM."""
    said = os.environ.get("JOURNAL_STREAM", "") if said is None else said
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return said == f"{status.st_dev}:{status.st_ino}"


@dataclass(slots=True)
class OnChange:
    """Says a sentence only when it is another than the last one under its key."""

    log: logging.Logger = LOG
    _said: dict[str, str] = field(default_factory=dict)

    def say(self, key: str, sentence: str, level: int = logging.INFO, **fields: str) -> bool:
        """Whether it was news. `fields` go to the journal under their names, in upper case."""
        if self._said.get(key) == sentence:
            return False
        self._said[key] = sentence
        self.log.log(level, "%s", sentence, extra={"fields": fields})
        return True

    def forget(self, key: str) -> None:
        """The matter is over: the same sentence is news again."""
        self._said.pop(key, None)


class Lines(logging.Formatter):
    """'12:01:07 warning: cannot read …: Permission denied (probe rdma)'; a traceback follows on lines of its own."""

    default_time_format = "%H:%M:%S"

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        fields = ", ".join(f"{name.lower()} {value}" for name, value in _fields(record).items())
        line = f"{message} ({fields})" if fields else message
        time = self.formatTime(record, self.default_time_format)
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return f"{time} {level}{line.translate(CONTROL)}{trace}"


class Journal(logging.Handler):
    """`always` are fields of every entry."""

    def __init__(self, path: Path, otherwise: logging.Handler) -> None:
        super().__init__()
        self.always: dict[str, str] = {}
        self.lost = 0
        self._otherwise = otherwise
        self._door = JournaldTransport(path, connected=False)  # it finds the socket of a journal that was restarted
        self._door.socket.settimeout(0)  # rule 2

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._door.send(sized(self.always | entry(record) | self._confession()))
        except BlockingIOError:
            self.lost += 1
        except OSError:  # the journal is away, or no memory for a datagram (ENOBUFS): stderr is better than nothing
            self._otherwise.handle(record)
        else:
            self.lost = 0

    def close(self) -> None:
        self._door.socket.close()
        self._otherwise.close()
        super().close()

    def _confession(self) -> dict[str, str]:
        return {"ENTRIES_LOST": str(self.lost)} if self.lost else {}


def entry(record: logging.LogRecord) -> dict[str, str]:
    """The journal's fields of one record."""
    priority = next(priority for level, priority in PRIORITIES if record.levelno >= level)
    fields = {
        "MESSAGE": record.getMessage(),
        "PRIORITY": str(priority),
        "SYSLOG_IDENTIFIER": "nodeagent",
        "SYSLOG_PID": str(record.process),
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName,
    }
    if record.exc_info:
        fields["TRACEBACK"] = logging.Formatter().formatException(record.exc_info)
    return fields | {name: value for name, value in _fields(record).items() if name not in fields}


def sized(fields: Mapping[str, str]) -> list[tuple[str, bytes]]:
    """As bytes: such a value is sent with its length, whatever is in it."""
    return [(name, value.encode("utf-8", "backslashreplace")) for name, value in fields.items()]


def _fields(record: logging.LogRecord) -> dict[str, str]:
    """What the caller added, under names that the journal takes."""
    given: Mapping[str, str] = getattr(record, "fields", {})
    return {name.upper(): str(value) for name, value in given.items() if FIELD_NAME.fullmatch(name.upper())}
