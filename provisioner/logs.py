"""Logs: one line each, to standard error; where that is the journal, with its priority in front.

Source: sd-daemon(3): a line that begins with <N> has the syslog priority N.
"""

import logging
import os
import sys

PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _Journal(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record).replace("\n", "\n  ")
        return f"<{PRIORITIES.get(record.levelno, 6)}>{text}"


def set_up(level: str, kind: str = "auto") -> None:
    """`kind` is journal, stderr or auto: the journal where systemd says that standard error leads there."""
    handler = logging.StreamHandler(sys.stderr)
    if kind == "journal" or (kind == "auto" and "JOURNAL_STREAM" in os.environ):
        handler.setFormatter(_Journal("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
