"""Who asks for another machine's name, over real mTLS with the provisioner as it runs: he gets his own, or nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from bedplate.v1.enrolment_pb2 import EnrolRequest
from bedplate.v1.enrolment_pb2_grpc import EnrolmentStub
from bedplate.v1.snapshot_pb2 import HostVitals, Inventory, Vitals
from bedplate.v1.uplink_pb2 import Delta, Hello, InventoryBody, RenewRequest, SessionRequest, SessionResponse
from bedplate.v1.uplink_pb2_grpc import UplinkStub
from provisioner.pki import PrivateKey, key_sha256, new_key
from provisioner.world import Accepted, Asked
from tests.doors import dial, machine
from tests.enrolment_desk import csr_of, minted_in
from tests.served import refusal
from tests.test_every_door import Site, site

OTHERS = ("bedplate:machine:m-ffffffff:1", "bedplate:person:ada:admin")


def naming(key: PrivateKey, *uris: str) -> bytes:
    """A CSR that is full of names, and proves its key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "m-ffffffff")])
    alternatives = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name).add_extension(alternatives, critical=False)
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    signed = builder.add_extension(constraints, critical=True).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


def _run(folder: Path, work: Callable[[Site], Awaitable[None]]) -> None:
    async def main() -> None:
        async with site(folder) as here:
            await work(here)

    asyncio.run(main())


@pytest.mark.parametrize("uris", [OTHERS[:1], OTHERS[1:], OTHERS])
def test_a_csr_that_names_somebody_else_gets_the_name_of_who_asks_and_no_more(
    tmp_path: Path, uris: tuple[str, ...]
) -> None:
    async def work(here: Site) -> None:
        minted = await minted_in(here.fleet)
        request = EnrolRequest(csr=naming(new_key(), *uris), token_id=minted.token_id, token_secret=minted.secret)
        async with dial(here.door, here.ca, (None, None)) as channel:
            held = (await EnrolmentStub(channel).Enrol(request)).credentials
        assert held.machine_id not in {"m-ffffffff", ""}
        _is_for(held.certificate_pem, f"bedplate:machine:{held.machine_id}:1")
        async with dial(here.main, here.ca, machine(here.ca, "m-aaaaaaaa", 2)) as channel:
            younger = (await UplinkStub(channel).Renew(RenewRequest(csr=naming(new_key(), *uris)))).credentials
        assert younger.machine_id == "m-aaaaaaaa"
        _is_for(younger.certificate_pem, "bedplate:machine:m-aaaaaaaa:2")

    _run(tmp_path, work)


def _is_for(certificate_pem: bytes, name: str) -> None:
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [name]
    assert [one.value for one in certificate.subject] == [name.split(":")[2]]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_nobody_is_certified_for_the_key_of_another_machine(tmp_path: Path) -> None:
    async def work(here: Site) -> None:
        key = new_key()
        asked = Asked("m-ffffffff", 1, key_sha256(key.public_key()), b"", "", "", "", "t-1", "", 1.0)
        await here.fleet.write([asked, Accepted("m-ffffffff", 1.0)])
        before = here.fleet.world.machines["m-ffffffff"]
        async with dial(here.main, here.ca, machine(here.ca, "m-aaaaaaaa", 2)) as channel:
            no = await refusal(UplinkStub(channel).Renew(RenewRequest(csr=csr_of(key))))
        assert (no.code, no.details["ErrorInfo"].reason) == ("INVALID_ARGUMENT", "KEY_TAKEN")
        assert here.fleet.world.machines["m-ffffffff"] == before

    _run(tmp_path, work)


def test_what_a_machine_says_on_its_stream_is_of_itself_whoever_it_says_that_it_is(tmp_path: Path) -> None:
    async def work(here: Site) -> None:
        asked = Asked("m-ffffffff", 1, b"f" * 32, b"", "gpu-07", "", "", "t-1", "", 1.0)
        await here.fleet.write([asked, Accepted("m-ffffffff", 1.0)])
        async with (
            dial(here.main, here.ca, machine(here.ca, "m-ffffffff", 1)) as theirs,
            dial(here.main, here.ca, machine(here.ca, "m-aaaaaaaa", 2)) as mine,
        ):
            honest, liar = UplinkStub(theirs).Session(), UplinkStub(mine).Session()
            vitals = Vitals(host=HostVitals(boot_id="boot"))
            for call, load in ((honest, 1.0), (liar, 99.0)):
                await call.write(SessionRequest(hello=Hello(run_id=b"run-of-m-ffffffff", boot_id="boot")))
                assert (await call.read()).HasField("welcome")
                vitals.host.load_1m = load
                await call.write(SessionRequest(delta=Delta(sequence=1, whole=True, vitals=vitals)))
            body = Inventory()
            body.identity.hostname = "gpu-07"
            await liar.write(SessionRequest(inventory=InventoryBody(inventory=body.SerializeToString())))
            await _until_stored(here, "m-aaaaaaaa", "m-ffffffff")
            assert _load(here, "m-ffffffff") == 1.0
            assert _load(here, "m-aaaaaaaa") == 99.0
            assert here.fleet.world.machines["m-ffffffff"].session != here.fleet.world.machines["m-aaaaaaaa"].session
            await honest.write(SessionRequest(delta=Delta(sequence=2, whole=True, vitals=vitals)))
            await honest.done_writing()
            while isinstance(heard := await honest.read(), SessionResponse):
                assert not heard.HasField("dismissal")

    _run(tmp_path, work)


async def _until_stored(here: Site, *names: str) -> None:
    async with asyncio.timeout(10):
        while any(here.fleet.store.vitals(name) is None for name in names):
            await here.fleet.wait_past(here.fleet.world.revision)


def _load(here: Site, name: str) -> float:
    row = here.fleet.store.vitals(name)
    assert row is not None
    return Vitals.FromString(row.vitals).host.load_1m
