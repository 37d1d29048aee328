"""Where sentences go: the systemd journal, field by field, or standard error, a line each.

Rule 1: logging never holds up the event loop: what a full journal would not take is counted, and the count said later.
Rule 2: what is about a machine says so in a field, for whoever searches: `about`. The sentence says all that a person
        needs: at a terminal, and where nobody listens at the journal's socket, a line is its sentence alone.
Rule 3: nothing that a peer chose can forge a line or a field: control characters are shown, and fields have lengths.
Rule 4: secrets are no arguments of log calls; there is no filter that would find them.

The journal's socket is spoken to by `logging-journald`'s transport, which is told not to wait: docs/decisions/0026.
Source of the lines that go there by standard error: sd-daemon(3): one that begins with <N> has the syslog priority N.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from logging_journald import JournaldTransport, check_journal_stream

MOST_MACHINES = 500  # in one entry: the journal drops one of more than 1,024 fields whole
PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))  # syslog's
SHOWN = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {0x2028: "\\u2028", 0x2029: "\\u2029"}
INDENTED = SHOWN | {ord("\n"): "\n  "}


def set_up(level: str, kind: str = "auto", *, journal: Path = JournaldTransport.SOCKET_PATH) -> None:
    """`kind` is journal, stderr or auto: the journal where systemd says that standard error leads there."""
    lines = logging.StreamHandler(sys.stderr)
    handler: logging.Handler = lines
    if kind == "journal" or (kind == "auto" and _stderr_leads_there()):
        lines.setFormatter(_Prefixed("%(message)s"))
        handler = _Journal(journal, lines)
    else:
        lines.setFormatter(_Line("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def about(*machine_ids: str, **fields: str) -> Mapping[str, object]:
    """The `extra` of a log call: the machines that it is about, so many of them as an entry can have, and fields, which
    are upper case in the journal.
    """
    machines = [("MACHINE_ID_BEDPLATE", machine_id) for machine_id in machine_ids[:MOST_MACHINES]]
    return {"bedplate": [*machines, *((name.upper(), value) for name, value in fields.items())]}


def _stderr_leads_there() -> bool:
    """Whether it is the stream that systemd has made: it says which one in JOURNAL_STREAM, as device:inode."""
    with contextlib.suppress(OSError, ValueError):  # standard error is no file, or what is said there no numbers
        return check_journal_stream()
    return False


class _Line(logging.Formatter):
    """A traceback follows on lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record).translate(SHOWN)


class _Prefixed(_Line):
    """'<4>machine m-4kq7zt2x broke the conversation: …'"""

    def format(self, record: logging.LogRecord) -> str:
        return f"<{_priority(record)}>{super().format(record).translate(INDENTED)}"


class _Journal(logging.Handler):
    """One entry of the journal for each record; `otherwise` has those for which nobody listens there."""

    def __init__(self, path: Path, otherwise: logging.Handler) -> None:
        super().__init__()
        self.setFormatter(_Line("%(message)s"))
        self._lost = 0
        self._otherwise = otherwise
        self._door = JournaldTransport(path, connected=False)  # it finds the socket of a journal that was restarted
        self._door.socket.settimeout(0)  # rule 1

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._door.send(self._entry(record))
        except BlockingIOError:
            self._lost += 1
        except OSError:  # the journal is away, or the kernel has no memory for a datagram (ENOBUFS)
            self._otherwise.handle(record)
        except Exception:  # noqa: BLE001 - as each handler of `logging` does: a call that cannot be written ends nobody
            self.handleError(record)
        else:
            self._lost = 0

    def close(self) -> None:
        self._door.socket.close()
        self._otherwise.close()
        super().close()

    def _entry(self, record: logging.LogRecord) -> Iterator[tuple[str, bytes]]:
        """As bytes: such a value is sent with its length, whatever is in it."""
        for name, value in self._fields(record):
            yield name, value.encode("utf-8", "backslashreplace")

    def _fields(self, record: logging.LogRecord) -> Iterator[tuple[str, str]]:
        yield "MESSAGE", self.format(record)
        yield "PRIORITY", str(_priority(record))
        yield "SYSLOG_IDENTIFIER", "provisioner"
        yield "SYSLOG_PID", str(record.process)
        yield "CODE_FILE", record.pathname
        yield "CODE_LINE", str(record.lineno)
        yield "CODE_FUNC", record.funcName
        if record.exc_info:
            yield "TRACEBACK", logging.Formatter().formatException(record.exc_info)
        if self._lost:
            yield "ENTRIES_LOST", str(self._lost)
        yield from getattr(record, "bedplate", ())


def _priority(record: logging.LogRecord) -> int:
    return next(priority for level, priority in PRIORITIES if record.levelno >= level)
