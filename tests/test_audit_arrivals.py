"""Who comes in leaves an entry: by which token, and what was there before and after; in a storm as one by one."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bedplate.v1 import fleet_pb2 as pb
from bedplate.v1.enrolment_pb2_grpc import EnrolmentStub
from provisioner import onhost, tokens
from provisioner.access import Caller, RefusedError
from provisioner.cli.views.audit import change
from provisioner.enrolment import ROUND, EnrolmentServicer, Renewals
from provisioner.pki import new_key
from provisioner.ports import host_of
from provisioner.world import Accepted, Asked, Change, Forgotten, Revoked, TokenMade, World
from tests.doors import dial
from tests.enrolment_desk import asking, csr_of, minted_in, showing
from tests.newcomers import Yard, story
from tests.served import Served, refusal, served
from tests.simulation.arrivals import Arrivals
from tests.test_every_door import site

NAMES = {"M": r"m-[a-z2-7]{8}", "T": r"t-[a-z2-7]{8}", "KEY": r"\b[0-9a-f]{64}\b", "TIME": r"20\d\d-\S+Z"}

WAYS_IN = """\
T1 (token) Enrol M1: made, incarnation 1, hostname gpu-07, phase accepted, product DGX, serial J1234567, \
asked_at TIME, accepted_at TIME, key_sha256 KEY1, from 10.0.0.7; T1: uses none -> 1
alice (admin) ForgetMachine M1 (gpu-07): gone
T2 (token) Enrol M1: made, incarnation 2, hostname gpu-07, phase accepted, serial J1234567, asked_at TIME, \
accepted_at TIME, key_sha256 KEY2, from 10.0.0.7; T2: uses none -> 1
alice (admin) RekeyMachine M1: as it was; T3-for-M1: made, created_at TIME, expires_at TIME, uses_allowed 1, \
created_by alice (admin), machine_id M1
alice (admin) RevokeMachine M1: incarnation 2 -> 3, key_sha256 KEY2 -> none
T3-for-M1 (token) Enrol M1: incarnation 3 -> 4, key_sha256 none -> KEY3, from 10.0.0.7; T3-for-M1: uses none -> 1
T4 (token) Enrol M2: made, incarnation 1, hostname gpu-07, phase pending, serial J1234567, asked_at TIME, \
key_sha256 KEY4, waits_because it shows the serial number j1234567 of machine M1 (gpu-07), whose key it does not have, \
from 10.0.0.7; T4: uses none -> 1
alice (admin) AcceptMachine M1: incarnation 4 -> 5, key_sha256 KEY3 -> KEY4; M2 (gpu-07): gone"""
BESIDE = """\
alice (admin) AcceptMachine M2: phase pending -> accepted, waits_because it shows the serial number batch-2024-07 of \
machine M1 (gpu-07), whose key it does not have -> none, accepted_at none -> TIME; beside M1 (gpu-07)"""


async def _told(here: Served, **query: Any) -> list[str]:
    """The audit as people read it, with what is drawn by chance as M1, T1, KEY1."""
    entries = (await here.stub().ListAudit(pb.ListAuditRequest(**query))).entries
    text = "\n".join(f"{entry.who} ({entry.role}) {entry.method} {change(entry)}" for entry in entries)
    for name, pattern in NAMES.items():
        found = list(dict.fromkeys(re.findall(pattern, text)))
        for number, one in enumerate(found, 1):
            text = text.replace(one, name if name == "TIME" else f"{name}{number}")
    return text.split("\n") if text else []


def test_each_way_in_leaves_one_entry_that_says_by_which_token_and_what_was_there_before(tmp_path: Path) -> None:
    async def tell(yard: Yard) -> None:
        here, stub = yard.here, yard.here.stub()
        first = (await yard.come(new_key(), await yard.token(uses=2), product="DGX")).credentials.machine_id
        await stub.ForgetMachine(pb.ForgetMachineRequest(machine=first, request_id=yard.intent()))
        await yard.come(new_key(), await yard.token(uses=1))
        rekeyed = await stub.RekeyMachine(pb.RekeyMachineRequest(machine=first, request_id=yard.intent()))
        await stub.RevokeMachine(pb.RevokeMachineRequest(machine=first, request_id=yard.intent()))
        await yard.come(new_key(), rekeyed.join_token)
        waiting = (await yard.come(new_key(), await yard.token(uses=1))).pending.machine_id
        await yard.accept(waiting, first)
        told = await _told(here)
        assert "\n".join(line for line in told if "CreateToken" not in line) == WAYS_IN
        token_id = rekeyed.token.token_id
        assert len(await _told(here, who=token_id)) == 1, "a token's id finds who came in by it"
        assert len(await _told(here, machine=waiting)) == 2, "it was forgotten, and is found by its id"

    story(tmp_path, tell)
    onhost.verify(tmp_path / "bedplate.db", ())


def test_an_entry_says_from_which_address_its_machine_called(tmp_path: Path) -> None:
    async def work() -> None:
        async with site(tmp_path) as here, dial(here.door, here.ca, (None, None)) as channel:
            await EnrolmentStub(channel).Enrol(asking(await minted_in(here.fleet), evidence=showing()))
            ((entry,), _) = here.fleet.store.audit(limit=1, newest_first=True)
            (standing,) = json.loads(entry.after)["standings"]
            assert (entry.method, standing["peer"]) == ("Enrol", "127.0.0.1")

    asyncio.run(work())


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.7:41234", "10.0.0.7"),
        ("ipv6:%5B2001:db8::1%5D:41234", "2001:db8::1"),
        ("ipv6:[::1]:41234", "::1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:41234", "fe80::1%eth0"),
        ("unix:", "unix:"),
    ],
)
def test_an_address_has_no_port_and_is_whole(peer: str, host: str) -> None:
    assert host_of(peer) == host


def test_who_is_known_by_its_key_leaves_none_when_it_polls_comes_again_or_renews(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        door, key = EnrolmentServicer(here.fleet, here.ca), new_key()
        waiting = (await door.enrol(asking(await minted_in(here.fleet, review=True), key=key))).pending.machine_id
        (before,) = await _told(here)
        assert "waits_because its join token T1 asks for review" in before
        await door.enrol(asking(key=key))
        await here.write(Accepted(waiting, here.clock.now))
        for _ in range(2):
            assert (await door.enrol(asking(key=key))).credentials.machine_id == waiting
        await Renewals(here.fleet, here.ca).renew(Caller(waiting, "machine", waiting, 1), csr_of())
        assert await _told(here) == [before]

    _run(tmp_path, work)


def test_who_is_refused_leaves_none(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        door, minted = EnrolmentServicer(here.fleet, here.ca), await minted_in(here.fleet)
        for token_id, secret in ((minted.token_id, b"guess"), ("t-none", minted.secret)):
            with pytest.raises(RefusedError, match="does not know the join token"):
                await door.enrol(asking(token_id=token_id, token_secret=secret))
        assert await _told(here) == []

    _run(tmp_path, work)


def test_what_a_newcomer_says_of_itself_is_cut_where_no_honest_host_has_as_much_to_say(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        door = EnrolmentServicer(here.fleet, here.ca)
        await door.enrol(asking(await minted_in(here.fleet), evidence=showing("ä" * 5000, "s" * 5000)))
        (line,) = await _told(here)
        assert f"hostname {'ä' * 255}…, phase accepted, serial {'s' * 255}…, " in line

    _run(tmp_path, work)


def test_the_machine_that_one_is_let_in_beside_is_in_the_entry_and_finds_it(tmp_path: Path) -> None:
    async def tell(yard: Yard) -> None:
        token, batch = await yard.token(), {"product_serial": "BATCH-2024-07"}
        first = (await yard.come(new_key(), token, (), **batch)).credentials.machine_id
        other = (await yard.come(new_key(), token, (), **batch, hostname="gpu-08")).pending.machine_id
        request = pb.AcceptMachineRequest(machine=other, request_id=yard.intent(), beside=first)
        await yard.here.stub().AcceptMachine(request)
        told = await _told(yard.here, machine=first)
        assert [line.split()[2] for line in told] == ["Enrol", "AcceptMachine"]
        assert told[-1] == BESIDE

    story(tmp_path, tell)


def test_a_forgotten_machine_is_found_by_its_id_and_by_a_host_name_that_only_it_had(tmp_path: Path) -> None:
    async def tell(yard: Yard) -> None:
        stub = yard.here.stub()
        door, first = yard.door, await minted_in(yard.here.fleet, uses=0)

        async def come(name: str, serial: str) -> str:
            return (await door.enrol(asking(first, evidence=showing(name, serial)))).credentials.machine_id

        seven, eight = await come("gpu-07", "S7"), await come("gpu-08", "S8")
        for name in (seven, eight):
            await stub.ForgetMachine(pb.ForgetMachineRequest(machine=name, request_id=yard.intent()))
        for name in ("gpu-07", seven):
            entries = (await stub.ListAudit(pb.ListAuditRequest(machine=name))).entries
            assert [entry.method for entry in entries] == ["Enrol", "ForgetMachine"], name
            events = (await stub.ListEvents(pb.ListEventsRequest(machine=name))).events
            assert {event.machine_id for event in events} == {seven}
            assert events[-1].kind == "machine.forgotten"
        assert (await refusal(stub.ListEvents(pb.ListEventsRequest(machine="gpu-09")))).code == "NOT_FOUND"
        known = await come("gpu-07", "another")
        events = (await stub.ListEvents(pb.ListEventsRequest(machine="gpu-07"))).events
        assert {event.machine_id for event in events} == {known}, "who is known goes before"
        for name in (known, await come("gpu-08", "a third")):
            await stub.ForgetMachine(pb.ForgetMachineRequest(machine=name, request_id=yard.intent()))
        no = await refusal(stub.ListAudit(pb.ListAuditRequest(machine="gpu-08")))
        assert no.line.startswith("cannot tell which machine 'gpu-08' is: 2 had that host name, and were forgotten: m-")

    story(tmp_path, tell)


# -- a storm ---------------------------------------------------------------------------------------------------------


@dataclass
class Watched:
    """A fleet's ledger. What is durable is judged."""

    here: Served
    arrivals: Arrivals = field(default_factory=Arrivals)
    asked: list[Asked] = field(default_factory=list)

    @property
    def world(self) -> World:
        return self.here.fleet.world

    @property
    def settings(self) -> Any:
        return self.here.fleet.settings

    def now(self) -> float:
        return self.here.clock.now

    async def write(self, changes: Sequence[Change]) -> list[int]:
        revisions = await self.here.fleet.write(changes)
        self.arrivals.committed(changes)
        self.asked += [change for change in changes if isinstance(change, Asked)]
        return revisions

    async def token(self, **how: Any) -> tokens.Minted:
        return await minted_in(self, **how)

    async def token_for(self, machine_id: str) -> tokens.Minted:
        minted, now = tokens.mint(machine_id), self.now()
        await self.write([TokenMade(minted.token_id, minted.secret_sha256, now, now + 60, 1, False, "ada (admin)")])  # noqa: FBT003
        return minted


async def _wave(ledger: Watched, random: Random) -> None:
    """Newcomers, clones of those that are known, those that were forgotten, those with a token of their own."""
    door = EnrolmentServicer(ledger, ledger.here.ca)
    many, few, review = await ledger.token(uses=0), await ledger.token(uses=9), await ledger.token(uses=0, review=True)
    asks = []
    for number in range(2 * ROUND):
        shown = showing(f"gpu-{number}", f"SN-{random.randrange(3 * ROUND)}")
        asks += [asking(random.choice((many, many, few, review)), evidence=shown)] * random.choice((1, 1, 1, 2))
    let_in = [facts for facts in ledger.world.known if facts.accepted_at is not None]
    for facts in random.sample(let_in, min(10, len(let_in))):
        if random.random() < 0.5:
            await ledger.write([Revoked(facts.id, ledger.now())])
        asks.append(asking(await ledger.token_for(facts.id), evidence=showing(facts.hostname, facts.serial)))
    known = ledger.world.known
    await ledger.write([Forgotten(facts.id, ledger.now()) for facts in random.sample(known, len(known) // 4)])
    random.shuffle(asks)
    answers = await asyncio.gather(*map(door.enrol, asks), return_exceptions=True)
    refused = [one for one in answers if isinstance(one, BaseException)]
    assert all(isinstance(one, RefusedError) and one.reason.startswith("TOKEN_") for one in refused), refused
    ledger.here.clock.now += 1


@pytest.mark.parametrize("seed", range(4))
def test_in_a_storm_each_that_came_in_has_its_entry_with_what_was_there_before_it(tmp_path: Path, seed: int) -> None:
    async def work(here: Served) -> None:
        ledger, random = Watched(here), Random(seed)  # noqa: S311 - a schedule
        for _ in range(3):
            await _wave(ledger, random)
        entries, head = here.fleet.store.audit(limit=10_000)
        assert len(ledger.asked) > 4 * ROUND
        assert max(one.incarnation for one in ledger.asked) > 2, "some came again"
        assert [(one.who, one.machine_id) for one in entries] == [
            (one.token_id, one.machine_id) for one in ledger.asked
        ]
        assert onhost.verify(tmp_path / "bedplate.db", ()) == head

    _run(tmp_path, work)


def _run(folder: Path, work: Callable[[Served], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(30), served(folder) as here:
            await work(here)

    asyncio.run(whole())
