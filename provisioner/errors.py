"""Errors that a person reads: `cannot verb thing: cause`, in one line.

A class stands here only where somebody catches it.
"""


class BedplateError(Exception):
    """Something that a person can act on; `str` is the whole line, `cannot …: …`, and no traceback is shown."""


class ConfigError(BedplateError):
    """The configuration cannot be used."""


class PeerError(Exception):
    """The agent broke the rules of the conversation; `str` says how. The stream is to be ended."""

    def __init__(self, line: str, reason: str = "RULES") -> None:
        super().__init__(line)
        self.reason = reason  # one word, to be counted by
