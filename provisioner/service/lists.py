"""Lists, a page at a time. They run in a thread: a page of ten thousand machines keeps nobody waiting."""

from bedplate.v1 import fleet_pb2 as pb
from provisioner import brief, filters, paging
from provisioner.filters import Key
from provisioner.service import messages
from provisioner.service.finding import find_ever
from provisioner.service.ledger import Ledger
from provisioner.service.refusals import invalid

LONGEST_PREFIX = 64


def machines(ledger: Ledger, request: pb.ListMachinesRequest) -> pb.ListMachinesResponse:
    revision = ledger.world.revision  # before the rows are read: a watch from here misses nothing
    chosen, order = filters.parse(request.filter), filters.parse_order(request.order_by)
    listing = ("machines", str(chosen), str(order))
    after = paging.key_of(listing, request.page_token, Key)
    through = chosen.through(messages.rows(ledger))
    page, following = order.page(through, after, paging.size(request.page_size))
    return pb.ListMachinesResponse(
        machines=[messages.machine(row.facts, ledger) for row in page],
        next_page_token=paging.token(listing, following) if following else "",
        total_size=len(through),
        revision=revision,
    )


def events(ledger: Ledger, request: pb.ListEventsRequest) -> pb.ListEventsResponse:
    if len(request.kind_prefix) > LONGEST_PREFIX:
        raise invalid("kind_prefix", f"cannot list events: kind_prefix has more than {LONGEST_PREFIX} characters")
    machine_id = find_ever(ledger.world, request.machine).id if request.machine else ""
    size, newest_first = paging.size(request.page_size), request.newest_first
    listing = ("events", machine_id, request.kind_prefix, str(newest_first))
    place = paging.key_of(listing, request.page_token, int)
    found = ledger.store.events(
        after=0 if newest_first else place or 0,
        before=place if newest_first else None,
        machine_id=machine_id,
        kind_prefix=request.kind_prefix,
        limit=size + 1,
        newest_first=newest_first,
    )
    return pb.ListEventsResponse(
        events=[messages.event(kept) for kept in found[:size]],
        next_page_token=paging.token(listing, found[size - 1].revision) if len(found) > size else "",
    )


def tokens(ledger: Ledger, request: pb.ListTokensRequest) -> pb.ListTokensResponse:
    """Newest first."""
    size, listing = paging.size(request.page_size), ("tokens",)
    before = paging.key_of(listing, request.page_token, tuple[float, str])
    keyed = sorted((((facts.created_at, facts.id), facts) for facts in ledger.world.tokens.values()), reverse=True)
    behind = [(key, facts) for key, facts in keyed if before is None or key < before]
    page = behind[:size]
    return pb.ListTokensResponse(
        tokens=[brief.token(facts) for _, facts in page],
        next_page_token=paging.token(listing, page[-1][0]) if len(behind) > size else "",
    )
