"""What this service refuses, in the words of google.rpc: a line for people, details for programs.

Rule: a line reads `cannot verb thing: cause; what to do`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as details

from provisioner.access import RefusedError
from provisioner.filters import FilterError
from provisioner.paging import PageError
from provisioner.store import StoreError

Code = grpc.StatusCode
STORE_AGAIN_S = 10
BY = {"machine": "id or host name", "credential": "name"}


@contextmanager
def refusing() -> Iterator[None]:
    """Errors of the rooms below become statuses."""
    try:
        yield
    except (FilterError, PageError) as error:
        raise invalid(error.field, str(error)) from error
    except StoreError as error:
        again = details.RetryInfo(retry_delay=Duration(seconds=STORE_AGAIN_S))
        raise RefusedError(Code.UNAVAILABLE, "STORE", str(error), again) from error


def invalid(field: str, line: str, reason: str = "INVALID_FIELD") -> RefusedError:
    bad = details.BadRequest()
    bad.field_violations.add(field=field, description=line, reason=reason)
    return RefusedError(Code.INVALID_ARGUMENT, reason, line, bad)


def not_found(kind: str, name: str) -> RefusedError:
    """`kind` is "machine", "token" or "credential"."""
    line = f"cannot find {kind} {name!r}: nothing here has that {BY.get(kind, 'id')}"
    what = details.ResourceInfo(resource_type=f"bedplate.v1.{kind.title()}", resource_name=name, description=line)
    return RefusedError(Code.NOT_FOUND, f"{kind.upper()}_NOT_FOUND", line, what)


def precondition(kind: str, name: str, line: str) -> RefusedError:
    """`kind` says for programs what stands in the way: "EVIDENCE_COLLIDES"."""
    failure = details.PreconditionFailure()
    failure.violations.add(type=kind, subject=name, description=line)
    return RefusedError(Code.FAILED_PRECONDITION, kind, line, failure)


def other_request(request_id: str, method: str) -> RefusedError:
    line = f"cannot answer: the request id {request_id!r} was used for another request ({method}); choose a new one"
    what = details.ResourceInfo(resource_type="request_id", resource_name=request_id, description=line)
    return RefusedError(Code.ALREADY_EXISTS, "REQUEST_ID_REUSED", line, what)


def out_of_range(line: str, oldest: int, newest: int) -> RefusedError:
    """A watch cannot resume there. The bounds say where it can."""
    bad = details.BadRequest()
    bad.field_violations.add(
        field="from_revision", description=f"from {oldest} to {newest}, or 0", reason="REVISION_NOT_KEPT"
    )
    return RefusedError(Code.OUT_OF_RANGE, "REVISION_NOT_KEPT", line, bad)
