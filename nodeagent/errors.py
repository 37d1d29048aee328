"""Errors that a person reads: `cannot verb thing: cause`, in one line.

A class stands here only where somebody catches it.
"""


class BedplateError(Exception):
    """Something that a person can act on; `str` is the whole line, `cannot …: …`, and no traceback is shown."""


class ConfigError(BedplateError):
    """The configuration cannot be used."""
