"""What a person reads when it did not work: one line, and an exit code that a script can tell apart.

    0  it worked
    1  the provisioner said no, or had an error
    2  what was typed makes no sense: usage, a filter, a context that is not there
    3  there is no such machine or token
    4  the provisioner cannot be reached
    5  this certificate may not do that

The line is made of the gRPC status and its google.rpc details: `cannot VERB THING: cause; what to do`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from provisioner.errors import BedplateError

NO, USAGE, NOT_FOUND, UNREACHABLE, NOT_ALLOWED = 1, 2, 3, 4, 5

EXIT_CODES: Mapping[str, int] = {
    "INVALID_ARGUMENT": USAGE,
    "OUT_OF_RANGE": USAGE,
    "NOT_FOUND": NOT_FOUND,
    "UNAVAILABLE": UNREACHABLE,
    "DEADLINE_EXCEEDED": UNREACHABLE,
    "PERMISSION_DENIED": NOT_ALLOWED,
    "UNAUTHENTICATED": NOT_ALLOWED,
}
ADVICE: Mapping[str, str] = {
    "NOT_FOUND": "see `bedplate machines`",
    "DEADLINE_EXCEEDED": "see whether the provisioner is well, and try again",
    "PERMISSION_DENIED": "ask for credentials with a role that may, or choose another context",
    "UNAUTHENTICATED": "this context's certificate says nobody that the provisioner knows",
    "UNIMPLEMENTED": "it is an older provisioner (see `bedplate version`), or its port for newcomers",
    "RESOURCE_EXHAUSTED": "ask for less, or try again later",
    "INTERNAL": "the provisioner's log says more",
    "UNKNOWN": "the provisioner's log says more",
}
A_ROLE_HELPS = ("", "ROLE_TOO_LOW")  # and not where a certificate is worth nothing whatever its role


class RefusedError(BedplateError):
    """`str` is the whole line; `exit_code` is what the program ends with."""

    def __init__(self, line: str, exit_code: int = NO) -> None:
        super().__init__(line)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Status:
    """A gRPC status with what its details say: broken fields, and links or sentences that help."""

    code: str
    message: str
    violations: tuple[str, ...] = ()
    help: tuple[str, ...] = ()
    reason: str = ""  # in capitals, for programs


def refused(doing: str, status: Status) -> RefusedError:
    """`doing` is "list machines"."""
    message = " ".join(status.message.split()) or status.code.lower().replace("_", " ")
    message = message.removeprefix(f"cannot {doing}: ")
    more = [violation for violation in status.violations if violation not in message]
    cause = "; ".join([message, *more])
    # A server that says what to do has said it after a semicolon or in its details: its word goes before ours.
    cure = "; ".join(status.help) or ("" if ";" in cause else _advice(doing, status))
    if cause.startswith("cannot "):
        return RefusedError("; ".join(filter(None, (cause, cure))), EXIT_CODES.get(status.code, NO))
    return RefusedError(f"cannot {doing}: " + "; ".join(filter(None, (cause, cure))), EXIT_CODES.get(status.code, NO))


def _advice(doing: str, status: Status) -> str:
    if status.code == "NOT_FOUND" and " token " in doing:
        return "see `bedplate token list`"
    if status.code == "PERMISSION_DENIED" and status.reason not in A_ROLE_HELPS:
        return ""
    return ADVICE.get(status.code, "")
