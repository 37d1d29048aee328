"""A person's certificate is taken back: at once, on calls and on streams that stand, by name or by serial number."""

import asyncio
import json
import time
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bedplate.v1 import fleet_pb2 as pb
from bedplate.v1.fleet_pb2_grpc import FleetStub
from provisioner import onhost
from provisioner.issued import ISSUING
from provisioner.pki import PersonIdentity, Role
from provisioner.world import Audited, CredentialRevoked, Noted
from tests.served import Served, present, refusal, served

pytestmark = pytest.mark.slow

NOW = time.time()


def noted(name: str, serial: str, at: float, role: str = "viewer") -> Audited:
    """That a certificate was made on the host."""
    made = {"certificates": [{"name": name, "role": role, "serial_number": serial}]}
    return Audited("root", "local", ISSUING[1], "", "", "", json.dumps(made), at)


def serial_of(certificate: bytes) -> str:
    return f"{x509.load_pem_x509_certificate(certificate).serial_number:032x}"


async def dialled(here: Served, name: str, role: str, *, made_at: float | None = None) -> tuple[FleetStub, str]:
    """Somebody with a certificate that was made then, and its serial number."""
    at = here.clock.now if made_at is None else made_at
    certificate, key = here.ca.issue_person(PersonIdentity(name, Role(role)), now=at, lifetime_s=10 * 365 * 86400)
    await here.write(noted(name, serial_of(certificate), at, role))
    credentials = grpc.ssl_channel_credentials(here.ca.roots_pem, key, certificate)
    options = [("grpc.use_local_subchannel_pool", 1)]
    here.channels.append(grpc.aio.secure_channel(here.address, credentials, options))
    return FleetStub(here.channels[-1]), serial_of(certificate)


async def revoke(here: Served, request_id: str, **what: str) -> pb.RevokeCredentialResponse:
    return await here.stub().RevokeCredential(pb.RevokeCredentialRequest(request_id=request_id, **what))


async def status(stub: FleetStub) -> str:
    """Who this is to the provisioner, or why it is nobody."""
    try:
        return (await stub.GetStatus(pb.GetStatusRequest())).caller
    except grpc.aio.AioRpcError as error:
        return error.code().name


def test_by_name_all_that_were_made_until_then_end_at_once_and_what_is_made_later_is_good(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as here:
            here.clock.now = NOW
            first, _ = await dialled(here, "bob", "viewer", made_at=NOW - 86400)
            second, _ = await dialled(here, "bob", "operator", made_at=NOW - 60)
            other, _ = await dialled(here, "eve", "viewer", made_at=NOW - 60)
            assert [await status(one) for one in (first, second, other)] == ["bob", "bob", "eve"]
            answer = await revoke(here, "r-1", name="bob")
            assert [one.HasField("revoked_at") for one in answer.credentials] == [True, True]
            assert [await status(one) for one in (first, second, other)] == ["PERMISSION_DENIED"] * 2 + ["eve"]
            here.clock.now += 2
            again, _ = await dialled(here, "bob", "viewer")
            assert await status(again) == "bob"

    asyncio.run(main())


def test_by_serial_number_one_ends_and_a_serial_number_may_be_typed_as_openssl_prints_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as here:
            here.clock.now = NOW
            first, serial = await dialled(here, "bob", "viewer", made_at=NOW - 60)
            second, _ = await dialled(here, "bob", "viewer", made_at=NOW - 60)
            printed = ":".join(serial[at : at + 2] for at in range(0, 32, 2)).upper()
            await revoke(here, "r-1", serial_number=printed)
            assert [await status(one) for one in (first, second)] == ["PERMISSION_DENIED", "bob"]
            no = await refusal(first.GetStatus(pb.GetStatusRequest()))
            assert no.details["ErrorInfo"].reason == "CREDENTIAL_REVOKED"
            assert no.line == (
                f"the certificate of bob (viewer) with serial number {serial} was revoked: "
                "another is made on the provisioner's host, with `provisioner credential`"
            )

    asyncio.run(main())


def test_watches_that_stand_end_with_the_same_words_also_those_that_never_send(tmp_path: Path) -> None:
    async def main() -> None:
        event = Noted("machine.changed", "m-0001", "gpu-01", "because", "provisioner", NOW)
        async with served(tmp_path, [*present(1), event]) as here:
            here.clock.now = NOW
            bob, _ = await dialled(here, "bob", "viewer", made_at=NOW - 60)
            eve, _ = await dialled(here, "eve", "viewer", made_at=NOW - 60)
            calls = [
                bob.WatchMachines(pb.WatchMachinesRequest()),
                bob.WatchEvents(pb.WatchEventsRequest()),
                eve.WatchEvents(pb.WatchEventsRequest()),
            ]
            for call in calls:
                await asyncio.wait_for(call.read(), 5)  # they stand
            await revoke(here, "r-1", name="bob")
            for call in calls[:2]:
                assert await asyncio.wait_for(call.code(), 5) is grpc.StatusCode.PERMISSION_DENIED
                assert "was revoked" in (await call.details() or "")
            assert (await asyncio.wait_for(calls[2].read(), 5)).event.kind == "credential.revoked"
            calls[2].cancel()

    asyncio.run(main())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.integers(0, 60))
def test_a_watch_that_is_opened_in_the_instant_of_the_revocation_never_stands_after_it(
    tmp_path_factory: pytest.TempPathFactory, turns: int
) -> None:
    async def main() -> None:
        async with served(tmp_path_factory.mktemp("race")) as here:
            here.clock.now = NOW
            bob, _ = await dialled(here, "bob", "viewer", made_at=NOW - 60)
            assert await status(bob) == "bob"  # the connection stands: only the call is in the race
            call = bob.WatchEvents(pb.WatchEventsRequest(only_new=True))
            read = asyncio.create_task(call.read())
            for _ in range(turns):
                await asyncio.sleep(0)
            await revoke(here, "r-1", name="bob")
            assert await asyncio.wait_for(call.code(), 5) is grpc.StatusCode.PERMISSION_DENIED
            await asyncio.wait([read])

    asyncio.run(main())


def test_it_is_audited_an_event_durable_and_asked_twice_is_asked_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as here:
            here.clock.now = NOW
            await dialled(here, "bob", "viewer", made_at=NOW - 60)
            for request_id in ("r-1", "r-1", "r-2"):
                await revoke(here, request_id, name="bob")
            entries, _ = here.fleet.store.audit(who="alice")
            assert [(one.method, bool(one.after)) for one in entries] == [
                ("RevokeCredential", True),
                ("RevokeCredential", False),
            ]
            assert json.loads(entries[0].after)["certificates"][0]["name"] == "bob"
            assert [one.because for one in here.fleet.store.events(kind_prefix="credential.")] == [
                "alice (admin) took back all certificates that bob has"
            ]
            assert here.fleet.store.load(1.0).revoked == {("bob", ""): NOW}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("what", "code", "line"),
    [
        ({}, "INVALID_ARGUMENT", "give a name or a serial number"),
        ({"name": "bob", "serial_number": "ab"}, "INVALID_ARGUMENT", "give a name or a serial number"),
        ({"serial_number": "no"}, "INVALID_ARGUMENT", "at most 40 hexadecimal digits"),
        ({"name": "nobody"}, "NOT_FOUND", "cannot find credential 'nobody': nothing here has that name"),
    ],
)
def test_what_makes_no_sense_takes_nothing_back(tmp_path: Path, what: dict[str, str], code: str, line: str) -> None:
    async def main() -> None:
        async with served(tmp_path) as here:
            no = await refusal(here.stub().RevokeCredential(pb.RevokeCredentialRequest(request_id="r", **what)))
            assert no.code == code
            assert line in no.line
            assert here.fleet.world.revoked == {}

    asyncio.run(main())


def test_the_list_has_what_was_made_on_the_host_and_is_not_over(tmp_path: Path) -> None:
    async def main() -> None:
        onhost.init(tmp_path, "ada", NOW)
        onhost.credential(tmp_path, "bob", "viewer", tmp_path / "bob", NOW + 1)
        async with served(tmp_path) as here:
            here.clock.now = NOW + 2
            await here.write(noted("old", "f" * 32, NOW - 400 * 86400), CredentialRevoked("bob", "", NOW + 2))
            found = (await here.stub().ListCredentials(pb.ListCredentialsRequest())).credentials
            assert [(one.name, one.role, one.HasField("revoked_at")) for one in found] == [
                ("ada", "admin", False),
                ("bob", "viewer", True),
            ]
            assert len({one.serial_number for one in found}) == 2
            (bob,) = (await here.stub().ListCredentials(pb.ListCredentialsRequest(name="bob"))).credentials
            assert bob.expires_at.seconds - bob.made_at.seconds == 365 * 86400

    asyncio.run(main())
