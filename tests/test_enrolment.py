"""The door for newcomers: one key is one machine, a token is not overspent, what is answered was written before."""

import asyncio
from dataclasses import replace

import grpc
import pytest
from cryptography import x509
from enrolment_desk import Book, Settings, asking, csr_of, minted_in, showing

from bedplate.v1.enrolment_pb2 import EnrolRequest, Evidence
from provisioner.access import Caller, RefusedError
from provisioner.config import Config
from provisioner.enrolment import ROUND, EnrolmentServicer, Renewals
from provisioner.pki import authority, identity, new_key
from provisioner.world import Accepted, Asked, Certified, Forgotten, TokenRevoked, TokenUsed

CA = authority(new_key(), now=1_800_000_000.0)


def case(function):
    """Runs with a book and a door on it."""

    def run():
        async def main():
            book = Book()
            await function(book, EnrolmentServicer(book, CA))

        asyncio.run(main())

    run.__name__ = function.__name__
    return run


def who(credentials):
    certificate = x509.load_pem_x509_certificate(credentials.certificate_pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return str(identity(names.get_values_for_type(x509.UniformResourceIdentifier)[0]))


def made(book, kind):
    return [change for change in book.written if isinstance(change, kind)]


@case
async def test_a_newcomer_with_a_good_token_gets_its_certificate(book, door):
    credentials = (await door.enrol(asking(await minted_in(book), evidence=showing()))).credentials
    assert who(credentials) == f"bedplate:machine:{credentials.machine_id}:1"
    assert credentials.ca_pem == CA.roots_pem
    assert list(credentials.uplink_addresses) == ["127.0.0.1:7443"]
    facts = book.world.machines[credentials.machine_id]
    assert (facts.hostname, facts.serial, facts.incarnation) == ("gpu-01", "J1234567", 1)
    assert facts.accepted_at is not None
    assert facts.certified_at is not None
    [token] = book.world.tokens.values()
    assert token.used_by == {facts.key_sha256}
    assert [event.split(":")[0] for event in book.events] == ["machine.asked", "machine.accepted", "machine.enrolled"]


@case
async def test_the_same_key_gets_the_same_name_again_without_a_token(book, door):
    key = new_key()
    first = (await door.enrol(asking(await minted_in(book), key=key))).credentials
    again = (await door.enrol(asking(key=key))).credentials
    assert again.machine_id == first.machine_id
    assert again.certificate_pem != first.certificate_pem
    assert len(made(book, Asked)) == len(made(book, TokenUsed)) == 1
    assert len(made(book, Certified)) == 2
    assert len(book.events) == 3


@case
async def test_a_machine_that_waits_polls_with_its_key_until_a_person_accepts_it(book, door):
    key, minted = new_key(), await minted_in(book, review=True)
    for request in (asking(minted, key=key), asking(minted, key=key), asking(key=key)):
        pending = (await door.enrol(request)).pending
        assert pending.because == f"waits for a person: its join token {minted.token_id} asks for review"
        assert pending.retry_after_s > 0
    assert not made(book, Certified)
    await book.write([Accepted(pending.machine_id, book.now())])
    assert (await door.enrol(asking(key=key))).credentials.machine_id == pending.machine_id


@case
async def test_a_newcomer_that_shows_an_incumbents_serial_waits_and_the_incumbent_is_untouched(book, door):
    minted = await minted_in(book, uses=2)
    incumbent = (await door.enrol(asking(minted, evidence=showing()))).credentials.machine_id
    before = book.world.machines[incumbent]
    pending = (await door.enrol(asking(minted, evidence=showing("gpu-02")))).pending
    assert pending.machine_id != incumbent
    assert f"the serial number j1234567 of machine {incumbent} (gpu-01)" in pending.because
    assert book.world.machines[incumbent] == before


@case
async def test_a_forgotten_machine_comes_back_in_its_next_life_and_only_with_a_token(book, door):
    key = new_key()
    shown = showing()
    name = (await door.enrol(asking(await minted_in(book), key=key, evidence=shown))).credentials.machine_id
    await book.write([Forgotten(name, book.now())])
    with pytest.raises(RefusedError, match="does not know the join token"):
        await door.enrol(asking(key=key, evidence=shown))
    again = (await door.enrol(asking(await minted_in(book), evidence=shown))).credentials
    assert (again.machine_id, again.incarnation, who(again)) == (name, 2, f"bedplate:machine:{name}:2")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("unknown", "TOKEN_UNKNOWN"),
        ("secret", "TOKEN_UNKNOWN"),
        ("expired", "TOKEN_EXPIRED"),
        ("revoked", "TOKEN_REVOKED"),
        ("used", "TOKEN_USED_UP"),
    ],
)
def test_a_bad_token_lets_nobody_in_and_leaves_no_trace(spoil, reason):
    async def main():
        book = Book()
        door = EnrolmentServicer(book, CA)
        minted = await minted_in(book)
        request = asking(minted)
        if spoil == "unknown":
            request.token_id = "t-nobody"
        if spoil == "secret":
            request.token_secret = b"guess"
        if spoil == "expired":
            book.skew = 4000
        if spoil == "revoked":
            await book.write([TokenRevoked(minted.token_id, book.now())])
        if spoil == "used":
            await door.enrol(asking(minted))
        before = list(book.written)
        with pytest.raises(RefusedError) as caught:
            await door.enrol(request)
        assert (caught.value.reason, caught.value.code) == (reason, grpc.StatusCode.UNAUTHENTICATED)
        assert book.written == before

    asyncio.run(main())


@case
async def test_twenty_requests_of_one_key_at_once_are_one_machine(book, door):
    key, minted = new_key(), await minted_in(book)
    answers = await asyncio.gather(*(door.enrol(asking(minted, key=key, evidence=showing())) for _ in range(20)))
    assert len({answer.credentials.machine_id for answer in answers}) == 1
    assert len(made(book, Asked)) == 1


@case
async def test_the_last_use_of_a_token_is_given_once_however_many_come_at_once(book, door):
    minted = await minted_in(book, uses=3)
    answers = await asyncio.gather(*(door.enrol(asking(minted)) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(answer, RefusedError) for answer in answers) == 17
    assert len(book.world.machines) == 3


@case
async def test_many_that_come_at_once_are_written_together(book, door):
    minted = await minted_in(book, uses=0)
    before = book.writes
    await asyncio.gather(*(door.enrol(asking(minted)) for _ in range(50)))
    assert len(book.world.machines) == 50
    assert book.writes - before <= 2


@case
async def test_thousands_that_come_at_once_leave_room_for_others_in_between(book, door):
    minted = await minted_in(book, uses=0)
    before = book.writes
    await asyncio.gather(*(door.enrol(asking(minted)) for _ in range(3 * ROUND)))
    assert len(book.world.machines) == 3 * ROUND
    assert book.writes - before >= 3


@case
async def test_a_fault_in_one_round_does_not_strand_the_next(book, door):
    minted = await minted_in(book, uses=0)
    book.world = replace(book.world, tokens=None)
    asks = (door.enrol(asking(minted)) for _ in range(ROUND + 1))
    answers = await asyncio.wait_for(asyncio.gather(*asks, return_exceptions=True), 3)
    assert all(isinstance(answer, RefusedError) for answer in answers)


@case
async def test_one_that_hangs_up_takes_nothing_from_the_others(book, door):
    minted = await minted_in(book, uses=0)
    tasks = [asyncio.ensure_future(door.enrol(asking(minted))) for _ in range(4)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert all(answer.HasField("credentials") for answer in answers[1:])


@case
async def test_what_the_store_cannot_keep_is_not_answered_and_the_door_goes_on(book, door):
    minted = await minted_in(book, uses=0)
    book.broken = "cannot write bedplate.db: No space left on device"
    with pytest.raises(RefusedError, match="No space left") as caught:
        await door.enrol(asking(minted))
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert type(caught.value.details[0]).__name__ == "RetryInfo"
    book.broken = ""
    assert (await door.enrol(asking(minted))).HasField("credentials")


@case
async def test_a_fault_in_the_ledger_leaves_nobody_hanging(book, door):
    minted = await minted_in(book, uses=0)
    world = book.world
    book.world = replace(world, tokens=None)
    task = asyncio.ensure_future(door.enrol(asking(minted)))
    await asyncio.sleep(0)
    rounds = door._rounds
    with pytest.raises(RefusedError, match="the door broke"):
        await task
    assert isinstance(rounds.exception(), AttributeError)
    book.world = world
    assert (await door.enrol(asking(minted))).HasField("credentials")


@case
async def test_where_too_many_wait_the_next_is_told_when_to_come_back(book, door):
    book.settings = Settings(Config(pending_limit=2))
    review, open_ = await minted_in(book, uses=0, review=True), await minted_in(book, uses=0)
    answers = await asyncio.gather(*(door.enrol(asking(review)) for _ in range(3)), return_exceptions=True)
    [error] = [answer for answer in answers if isinstance(answer, RefusedError)]
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "PENDING_FULL")
    assert error.details[0].retry_delay.seconds == 60
    assert (await door.enrol(asking(open_))).HasField("credentials")


@pytest.mark.parametrize(
    "request_",
    [
        EnrolRequest(csr=b"x"),
        EnrolRequest(csr=csr_of(), token_id="t" * 200),
        EnrolRequest(csr=csr_of(), token_secret=b"s" * 200),
        EnrolRequest(csr=csr_of(), agent_version="v" * 200),
        EnrolRequest(csr=csr_of(), evidence=Evidence(permanent_macs=["b0:7b:25:00:00:10"] * 2000)),
        EnrolRequest(csr=b"0" * 5000),
    ],
)
def test_what_is_too_large_or_no_csr_is_refused_by_its_name(request_):
    with pytest.raises(RefusedError) as caught:
        asyncio.run(EnrolmentServicer(Book(), CA).enrol(request_))
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details[0].field_violations[0].field


@case
async def test_a_machine_gets_a_younger_certificate_for_a_new_key(book, door):
    credentials = (await door.enrol(asking(await minted_in(book)))).credentials
    caller = Caller(credentials.machine_id, "machine", credentials.machine_id, 1)
    key = new_key()
    younger = await Renewals(book, CA).renew(caller, csr_of(key))
    assert who(younger) == who(credentials)
    assert (await door.enrol(asking(key=key))).credentials.machine_id == credentials.machine_id


@pytest.mark.parametrize(
    ("incarnation", "forgotten", "reason"), [(1, True, "MACHINE_FORGOTTEN"), (2, False, "OLDER_INCARNATION")]
)
def test_a_machine_that_does_not_stand_gets_no_younger_certificate(incarnation, forgotten, reason):
    async def main():
        book = Book()
        name = (await EnrolmentServicer(book, CA).enrol(asking(await minted_in(book)))).credentials.machine_id
        if forgotten:
            await book.write([Forgotten(name, book.now())])
        with pytest.raises(RefusedError) as caught:
            await Renewals(book, CA).renew(Caller(name, "machine", name, incarnation), csr_of())
        assert caught.value.reason == reason

    asyncio.run(main())


@case
async def test_nobody_gets_a_certificate_for_a_key_that_is_another_machines(book, door):
    minted, key = await minted_in(book, uses=0), new_key()
    await door.enrol(asking(minted, key=key))
    name = (await door.enrol(asking(minted))).credentials.machine_id
    with pytest.raises(RefusedError, match="the key is another machine's"):
        await Renewals(book, CA).renew(Caller(name, "machine", name, 1), csr_of(key))
