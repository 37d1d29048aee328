"""The audit as a list. What an entry holds says `audited`."""

from google.protobuf.timestamp_pb2 import Timestamp

from bedplate.v1 import fleet_pb2 as pb
from provisioner import paging
from provisioner.chain import Entry
from provisioner.service.finding import find_ever
from provisioner.service.ledger import Ledger
from provisioner.service.refusals import invalid

LONGEST_NAME = 128
MOST = (1 << 63) - 1
NANOS = 1_000_000_000


def listed(ledger: Ledger, request: pb.ListAuditRequest) -> pb.ListAuditResponse:
    if len(request.who) > LONGEST_NAME:
        raise invalid("who", f"cannot list the audit: who has more than {LONGEST_NAME} characters")
    machine_id = find_ever(ledger.world, request.machine).id if request.machine else ""
    since = _nanoseconds(request.since) if request.HasField("since") else None
    until = _nanoseconds(request.until) if request.HasField("until") else None
    size, newest_first = paging.size(request.page_size), request.newest_first
    listing = ("audit", request.who, machine_id, str(since), str(until), str(newest_first))
    place = paging.key_of(listing, request.page_token, int)
    found, head = ledger.store.audit(
        after=0 if newest_first else min(place or 0, MOST),
        before=place if newest_first else None,
        who=request.who,
        machine_id=machine_id,
        since_ns=since,
        until_ns=until,
        limit=size + 1,
        newest_first=newest_first,
    )
    return pb.ListAuditResponse(
        entries=[_entry(one) for one in found[:size]],
        next_page_token=paging.token(listing, found[size - 1].sequence) if len(found) > size else "",
        head_sequence=head.sequence,
        head_sha256=head.sha256,
    )


def _nanoseconds(at: Timestamp) -> int:
    """Also of one that is none: further away than the store can say is as good as for ever."""
    return max(-MOST, min(at.seconds * NANOS + at.nanos, MOST))


def _entry(kept: Entry) -> pb.AuditEntry:
    at = Timestamp()
    at.FromNanoseconds(kept.at_ns)
    return pb.AuditEntry(
        sequence=kept.sequence,
        at=at,
        who=kept.who,
        role=kept.role,
        method=kept.method,
        request_id=kept.request_id,
        machine_id=kept.machine_id,
        before=kept.before,
        after=kept.after,
        previous_sha256=kept.previous_sha256,
        sha256=kept.sha256,
    )
