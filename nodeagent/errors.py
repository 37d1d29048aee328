"""Errors that a person reads: `cannot verb thing: cause`, in one line.

A class stands here only where somebody catches it.
"""


class BedplateError(Exception):
    """Something that a person can act on; `str` is the whole line, `cannot …: …`, and no traceback is shown."""


class ConfigError(BedplateError):
    """The configuration cannot be used."""


class Unanswered(Exception):  # noqa: N818 - it is an answer of a kind: the frame of the probes makes a problem of it
    """A door that is not a file had nobody behind it. `kind` is a Problem.Kind without its prefix: "ABSENT"."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
