"""The one door to the database: an object with verbs, and no SQL to be seen from outside.

Rule 1: one writer. `begin_epoch`, `write` and `prune` take turns behind a lock, on a connection of their own; reads run
        in any number of threads beside them, each on a connection of a pool, and see what was last committed.
Rule 2: one batch is one transaction. It is fenced: where another program has written since, nothing is written at all.
Rule 3: what a batch makes of the facts is decided by `World.after` and nowhere else; rows are only its image.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, select, update

from provisioner.chain import Entry, Link
from provisioner.packing import Packer
from provisioner.store import auditing, delivering, reading
from provisioner.store.errors import FAULTS, StoreError, UnknownInventoryError, told
from provisioner.store.opening import engines, path_of
from provisioner.store.pruning import SLICE, Slice, plan, total
from provisioner.store.rows import Answer, Event, Policy, Pruned, Seen, Sink, VitalsRow
from provisioner.store.schema import counters
from provisioner.store.writing import gather, put_down
from provisioner.world import Audited, Change, World

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class _Turn:
    """A transaction under way, and the world as it will be once it is committed."""

    connection: Connection
    world: World


class Store:
    """Made by `Store.open`. Every method may be called from any thread."""

    def __init__(self, path: Path, writing: Engine, reading_: Engine) -> None:
        self.path = path
        self._reading = reading_
        self._writing = writing
        self._turn = threading.Lock()
        self._packer = Packer()  # whose turn it is has it
        self._world = self._read(reading.world, 0.0)
        self.fleet = self._read(reading.fleet)  # a name that no other store has

    @classmethod
    def open(cls, url_or_path: str | os.PathLike[str]) -> "Store":
        """Makes the store where there is none, and brings it up to date. StoreError where it cannot."""
        path = path_of(url_or_path)
        writing, reading_ = engines(path)
        try:
            return cls(path, writing, reading_)
        except StoreError as error:
            reading_.dispose()
            writing.dispose()
            raise StoreError(str(error).replace("cannot read", "cannot open", 1)) from error

    def close(self) -> None:
        with self._turn:
            self._reading.dispose()
            self._writing.dispose()

    @property
    def world(self) -> World:
        """As of the last write: what `World.after` makes of its changes, so that a caller need not do it again."""
        return self._world

    # -- writing ---------------------------------------------------------------------------------------------------

    def begin_epoch(self) -> int:
        """A new life of the provisioner: its number, durably. A `Store` of an earlier life writes no more."""
        with self._transaction() as turn:
            epoch: int = turn.connection.execute(select(counters.c.epoch)).scalar_one() + 1
            turn.connection.execute(update(counters).values(epoch=epoch))
            turn.world = reading.world(turn.connection, turn.world.started_at)
        return epoch

    def load(self, started_at: float) -> World:
        """The world as it was last written. Its bodies stay here."""
        with self._turn:
            self._world = self._read(reading.world, started_at)
            return self._world

    def write(self, changes: Sequence[Change]) -> list[int]:
        """Puts all of them down in one transaction; the revision of each, in order. StoreError: none was put down.

        KeyError where a change concerns a machine or a token that nobody knows.
        """
        if not changes:
            return []
        with self._transaction() as turn:
            before = turn.world
            first = before.revision + 1
            numbered = list(enumerate(changes, first))
            batch, turn.world = gather(before, numbered), before.after(numbered)
            self._fence(turn.connection, before, turn.world.revision)
            self._demand(turn.connection, batch.unsent)
            put_down(turn.connection, batch, turn.world, self._packer)
        return list(range(first, first + len(changes)))

    def put_aside(self, change: Audited) -> None:
        """An entry of the audit alone: from a command on the host, also while a provisioner runs on this store."""
        with self._transaction() as turn:
            auditing.append(turn.connection, [change])

    def prune(self, now: float, policy: Policy) -> Pruned:
        """Drops what the policy does not keep."""
        return total(self.pruning(now, policy))

    def pruning(self, now: float, policy: Policy, most: int = SLICE) -> Iterator[Pruned]:
        """As `prune`, a slice of so many rows each time that the next is asked for: others write in between."""
        return map(self._drop, self._read(plan, now, policy, most))

    def _drop(self, part: Slice) -> Pruned:
        with self._transaction() as turn:
            self._fence(turn.connection, turn.world, turn.world.revision)
            return part(turn.connection)

    def keep_sinks(self, wanted: Mapping[str, bool]) -> tuple[list[str], list[str]]:
        """These are the sinks from now on; True: one that is new begins at the oldest event, and not at the next.

        Who is new, and who is gone.
        """
        with self._transaction() as turn:
            self._fence(turn.connection, turn.world, turn.world.revision)
            return delivering.keep(turn.connection, wanted, turn.world.events_revision)

    def delivered(self, places: Mapping[str, int]) -> None:
        """Each of these sinks has had all events up to that revision."""
        with self._transaction() as turn:
            self._fence(turn.connection, turn.world, turn.world.revision)
            delivering.move(turn.connection, places)

    @contextmanager
    def _transaction(self) -> Iterator["_Turn"]:
        """What the turn leaves as its world is ours once it is committed."""
        with self._turn:
            try:
                with self._writing.begin() as connection:
                    yield (turn := _Turn(connection, self._world))
            except (*FAULTS, OverflowError) as error:
                raise told("write", str(self.path), error) from error
            self._world = turn.world

    def _fence(self, connection: Connection, before: World, revision: int) -> None:
        ours = (counters.c.epoch == before.epoch, counters.c.revision == before.revision)
        if connection.execute(update(counters).where(*ours).values(revision=revision)).rowcount != 1:
            raise StoreError(
                f"cannot write store {self.path}: another provisioner has taken it over; end one of the two"
            )

    def _demand(self, connection: Connection, digests: set[bytes]) -> None:
        if missing := sorted(digest for digest in digests if not reading.has_inventory(connection, digest)):
            raise UnknownInventoryError(str(self.path), missing)

    # -- reading ---------------------------------------------------------------------------------------------------

    def _read(self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with self._reading.connect() as connection:
                return function(connection, *args, **kwargs)
        except FAULTS as error:
            raise told("read", str(self.path), error) from error

    def inventory(self, digest: bytes) -> bytes | None:
        """bedplate.v1.Inventory, as the machine sent it."""
        return self._read(reading.inventory, digest)

    def has_inventory(self, digest: bytes) -> bool:
        return self._read(reading.has_inventory, digest)

    def vitals(self, machine_id: str) -> VitalsRow | None:
        return self._read(reading.vitals_of, machine_id)

    def evidence(self, machine_id: str) -> bytes | None:
        """bedplate.v1.Evidence, as it was when the machine last asked to enrol."""
        return self._read(reading.evidence, machine_id)

    def history(self, machine_id: str) -> list[Seen]:
        """The inventories that are kept of the machine: the one that it has now first, then the newest."""
        return self._read(reading.history, machine_id)

    def events(  # noqa: PLR0913 - a query, by name
        self,
        *,
        after: int = 0,
        before: int | None = None,
        machine_id: str = "",
        kind_prefix: str = "",
        limit: int = 100,
        newest_first: bool = False,
    ) -> list[Event]:
        """Events younger than `after` and older than `before`, at most `limit`, from the end that is asked for."""
        return self._read(
            reading.events_of,
            after=after,
            before=before,
            machine_id=machine_id,
            kind_prefix=kind_prefix,
            limit=limit,
            newest_first=newest_first,
        )

    def oldest_event_revision(self) -> int:
        """From this revision on every event is kept: 1 until some were pruned."""
        return self._read(reading.pruned_revision) + 1

    def sinks(self) -> list[Sink]:
        return self._read(delivering.sinks_of)

    def events_behind(self, revision: int) -> int:
        """How many events are younger than that."""
        return self._read(delivering.waiting, revision)

    def answered(self, caller: str, request_id: str) -> Answer | None:
        return self._read(reading.answered, caller, request_id)

    def audit(  # noqa: PLR0913 - a query, by name
        self,
        *,
        after: int = 0,
        before: int | None = None,
        who: str = "",
        machine_id: str = "",
        since_ns: int | None = None,
        until_ns: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> tuple[list[Entry], Link]:
        """Entries of the audit between `after` and `before`, and where its chain ends at the same instant."""
        return self._read(
            auditing.entries_of,
            after=after,
            before=before,
            who=who,
            machine_id=machine_id,
            since_ns=since_ns,
            until_ns=until_ns,
            limit=limit,
            newest_first=newest_first,
        )

    def audit_of(self, methods: Sequence[str]) -> list[Entry]:
        """All entries of these methods, of which there are few: commands on the host."""
        return self._read(auditing.by_methods, methods)

    def certified_until(self) -> dict[str, float]:
        return self._read(reading.certified_until)

    def is_issued(self, serial_number: str) -> bool:
        """Whether a machine got a certificate of this number from us."""
        return self._read(reading.is_issued, serial_number)
