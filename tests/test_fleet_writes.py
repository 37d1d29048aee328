"""What people change in the fleet, over a real connection: once each, with who did it, and refused with a sentence."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from bedplate.v1 import fleet_pb2 as pb
from bedplate.v1.enrolment_pb2 import Evidence
from bedplate.v1.snapshot_pb2 import Identity
from provisioner import tokens
from provisioner.world import Accepted, Change
from tests.served import Served, asked, present, refusal, served

Work = Callable[[Served], Awaitable[None]]


def _run(folder: Path, work: Work, *changes: Change) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20), served(folder, changes) as here:
            await work(here)

    asyncio.run(whole())


def test_a_person_lets_a_machine_in_once_however_often_it_is_asked(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        stub = here.stub("olga", "operator")
        request = pb.AcceptMachineRequest(machine="gpu-01", request_id="r-1")
        first, second = await asyncio.gather(stub.AcceptMachine(request), stub.AcceptMachine(request))
        here.clock.now += 100
        third = await stub.AcceptMachine(request)
        another = await stub.AcceptMachine(pb.AcceptMachineRequest(machine="m-0001", request_id="r-2"))
        assert first == second == third
        assert first.machine.phase == another.machine.phase == pb.PHASE_ACCEPTED
        events = (await stub.ListEvents(pb.ListEventsRequest())).events
        assert [(event.kind, event.actor) for event in events] == [("machine.accepted", "olga (operator)")]

    _run(tmp_path, work, asked(1))


def test_a_request_id_stands_for_one_request_of_one_caller(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        stub = here.stub()
        await stub.AcceptMachine(pb.AcceptMachineRequest(machine="m-0001", request_id="r-1"))
        for call in (
            stub.AcceptMachine(pb.AcceptMachineRequest(machine="m-0002", request_id="r-1")),
            stub.ForgetMachine(pb.ForgetMachineRequest(machine="m-0001", request_id="r-1")),
        ):
            no = await refusal(call)
            assert (no.code, no.details["ErrorInfo"].reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
        bob = here.stub("bob")
        answer = await bob.AcceptMachine(pb.AcceptMachineRequest(machine="m-0002", request_id="r-1"))
        assert answer.machine.machine_id == "m-0002"
        for bad in ("", "x" * 65):
            no = await refusal(stub.CreateToken(pb.CreateTokenRequest(request_id=bad)))
            assert (no.code, no.details["BadRequest"].field_violations[0].field) == ("INVALID_ARGUMENT", "request_id")

    _run(tmp_path, work, asked(1), asked(2))


def test_two_requests_of_one_id_at_once_are_one_or_a_refusal(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        stub = here.stub()
        calls = [stub.CreateToken(pb.CreateTokenRequest(request_id="r-1", uses_allowed=1)) for _ in range(8)]
        answers = await asyncio.gather(*calls)
        assert len({answer.join_token for answer in answers}) == len(here.fleet.world.tokens) == 1
        one, other = (stub.CreateToken(pb.CreateTokenRequest(request_id="r-2", uses_allowed=n)) for n in (2, 3))
        results = await asyncio.gather(one, other, return_exceptions=True)
        assert sum(isinstance(result, pb.CreateTokenResponse) for result in results) == 1

    _run(tmp_path, work)


def test_a_machine_that_shows_an_enrolled_one_s_serial_is_not_let_in_beside_it(tmp_path: Path) -> None:
    evidence = Evidence(identity=Identity(product_serial="J1234")).SerializeToString()

    async def work(here: Served) -> None:
        stub = here.stub()
        no = await refusal(stub.AcceptMachine(pb.AcceptMachineRequest(machine="m-0002", request_id="r-1")))
        assert no.code == "FAILED_PRECONDITION"
        assert "serial number j1234 of machine m-0001" in no.line
        await stub.ForgetMachine(pb.ForgetMachineRequest(machine="m-0001", request_id="r-2"))
        answer = await stub.AcceptMachine(pb.AcceptMachineRequest(machine="m-0002", request_id="r-1"))
        assert answer.machine.phase == pb.PHASE_ACCEPTED

    incumbent = [asked(1, evidence=evidence), Accepted("m-0001", 1.0)]
    _run(tmp_path, work, *incumbent, asked(2, evidence=evidence))


def test_of_two_that_show_the_same_serial_and_are_accepted_at_once_one_is_let_in(tmp_path: Path) -> None:
    evidence = Evidence(identity=Identity(product_serial="J1234")).SerializeToString()

    async def work(here: Served) -> None:
        requests = [pb.AcceptMachineRequest(machine=f"m-000{n}", request_id=f"r-{n}") for n in (1, 2)]
        calls = [here.stub(name).AcceptMachine(each) for name, each in zip(("olga", "bob"), requests, strict=True)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(answer, pb.AcceptMachineResponse) for answer in answers) == 1

    _run(tmp_path, work, asked(1, evidence=evidence), asked(2, evidence=evidence))


def test_a_forgotten_machine_is_cut_off_and_the_answer_comes_again(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        stub, request = here.stub(), pb.ForgetMachineRequest(machine="gpu-01", request_id="r-1")
        first = await stub.ForgetMachine(request)
        assert await stub.ForgetMachine(request) == first
        assert first.machine.because.startswith("forgotten 0 s ago")
        assert here.cut[0][0] == "m-0001"
        no = await refusal(stub.ForgetMachine(pb.ForgetMachineRequest(machine="gpu-01", request_id="r-2")))
        assert no.code == "NOT_FOUND"
        assert len((await stub.ListEvents(pb.ListEventsRequest())).events) == 1

    _run(tmp_path, work, *present(1))


def test_a_machine_that_is_revoked_was_heard_until_then(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        here.clock.now += 30  # of silence on a stream that is open
        await here.stub().RevokeMachine(pb.RevokeMachineRequest(machine="m-0002", request_id="r-1"))
        facts = here.fleet.world.machines["m-0002"]
        assert (facts.last_heard_at, facts.session) == (here.clock.now, "")
        assert facts.parted_because == "its certificate was revoked"

    _run(tmp_path, work, *present(2))


def test_a_token_is_made_shown_once_listed_without_its_secret_and_ended(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        stub = here.stub()
        request = pb.CreateTokenRequest(request_id="r-1", ttl=Duration(seconds=600), uses_allowed=3, review=True)
        made = await stub.CreateToken(request)
        inside = tokens.decode(made.join_token)
        assert (inside.token_id, list(inside.addresses)) == (made.token.token_id, ["provisioner.example:7444"])
        kept = here.fleet.world.tokens[inside.token_id]
        assert tokens.flaw(kept, inside.secret, b"k", here.clock.now) is None
        assert kept.expires_at == here.clock.now + 600
        ended = await stub.RevokeToken(pb.RevokeTokenRequest(token_id=inside.token_id, request_id="r-2"))
        assert ended.token.revoked_at.seconds == int(here.clock.now)
        listed = (await stub.ListTokens(pb.ListTokensRequest())).tokens
        assert [(token.token_id, token.created_by) for token in listed] == [(inside.token_id, "alice (admin)")]
        no = await refusal(stub.RevokeToken(pb.RevokeTokenRequest(token_id="t-none", request_id="r-3")))
        assert no.code == "NOT_FOUND"

    _run(tmp_path, work)


@pytest.mark.parametrize("seconds", [0, -5, 91 * 86400])
def test_a_token_lasts_for_a_second_at_least_and_ninety_days_at_most(tmp_path: Path, seconds: int) -> None:
    async def work(here: Served) -> None:
        request = pb.CreateTokenRequest(request_id="r-1", ttl=Duration(seconds=seconds))
        no = await refusal(here.stub().CreateToken(request))
        assert (no.code, no.details["BadRequest"].field_violations[0].field) == ("INVALID_ARGUMENT", "ttl")

    _run(tmp_path, work)


def test_tokens_come_in_pages_with_the_newest_first(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        stub, names, page = here.stub(), list[str](), ""
        for number in range(5):
            here.clock.now += 1
            await stub.CreateToken(pb.CreateTokenRequest(request_id=f"r-{number}"))
        for _ in range(3):
            answer = await stub.ListTokens(pb.ListTokensRequest(page_size=2, page_token=page))
            names += [token.token_id for token in answer.tokens]
            page = answer.next_page_token
        newest_first = sorted(here.fleet.world.tokens.values(), key=lambda token: -token.created_at)
        assert (names, page) == ([token.id for token in newest_first], "")

    _run(tmp_path, work)
