"""Every method against every identity, over real mTLS; and the door stands before all of them."""

import asyncio
import contextlib
import time

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from provisioner.access import METHODS, NOBODY, Caller, Guard, RefusedError, Who, caller, caller_of, denial, standing
from provisioner.pki import MachineIdentity, PersonIdentity, Role, authority, key_pem, new_key
from provisioner.world import Facts, World
from tests.doors import served_files

NOW = time.time()  # the TLS of gRPC has a clock of its own
CA = authority(new_key(), now=NOW)
OURS = {
    f"/{service.full_name}/{method.name}": method
    for file in served_files()
    for service in file.services_by_name.values()
    for method in service.methods
}
MACHINE = Caller("m-aaaaaaaa", "machine", "m-aaaaaaaa", 2)
WHO = {
    "nobody": NOBODY,
    "machine": MACHINE,
    "viewer": Caller("vera", "viewer"),
    "operator": Caller("otto", "operator"),
    "admin": Caller("ada", "admin"),
}
# What each may call, as a night-shift operator would write it down.
ALL, PEOPLE, OPERATORS = {*WHO}, {"viewer", "operator", "admin"}, {"operator", "admin"}
MAY = {
    "Enrolment/Enrol": ALL,
    "Uplink/Session": {"machine"},
    "Uplink/Renew": {"machine"},
    "Fleet/ListMachines": PEOPLE,
    "Fleet/GetMachine": PEOPLE,
    "Fleet/WatchMachines": PEOPLE,
    "Fleet/ListEvents": PEOPLE,
    "Fleet/WatchEvents": PEOPLE,
    "Fleet/GetMachineTopology": PEOPLE,
    "Fleet/ExplainMachine": PEOPLE,
    "Fleet/GetStatus": PEOPLE,
    "Fleet/ListTokens": OPERATORS,
    "Fleet/ListAudit": OPERATORS,
    "Fleet/AcceptMachine": OPERATORS,
    "Fleet/ForgetMachine": OPERATORS,
    "Fleet/RevokeMachine": OPERATORS,
    "Fleet/RekeyMachine": OPERATORS,
    "Fleet/CreateToken": OPERATORS,
    "Fleet/RevokeToken": OPERATORS,
    "Fleet/ListCredentials": OPERATORS,
    "Fleet/RevokeCredential": {"admin"},
}
WORLD = World(1, NOW, machines={"m-aaaaaaaa": Facts("m-aaaaaaaa", 2, b"key", NOW, accepted_at=NOW)})


def test_every_method_of_every_service_has_a_row_and_every_row_a_method():
    assert {method for method in METHODS if method.startswith("/bedplate.")} == set(OURS)
    assert {f"/bedplate.v1.{method}" for method in MAY} == set(OURS)


def test_a_method_without_a_row_is_denied_to_all():
    for who in WHO.values():
        refused = denial("/bedplate.v1.Fleet/Tomorrow", who)
        assert refused is not None
        assert refused.reason == "METHOD_WITHOUT_A_ROW"


@pytest.mark.parametrize(
    ("uris", "who"),
    [
        (["bedplate:machine:m-aaaaaaaa:2"], MACHINE),
        (["bedplate:person:ada:admin"], WHO["admin"]),
        ([], NOBODY),
        (["bedplate:person:ada:viewer", "bedplate:person:ada:admin"], NOBODY),
        (["https://example.com"], NOBODY),
    ],
)
def test_who_calls_is_what_the_certificate_says_if_it_says_one_thing(uris, who):
    assert caller_of(uris) == who


def test_callers_are_named_as_in_events():
    assert [str(who) for who in WHO.values()] == [
        "somebody without a certificate",
        "machine m-aaaaaaaa",
        "vera (viewer)",
        "otto (operator)",
        "ada (admin)",
    ]


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, "MACHINE_FORGOTTEN"),
        ({"incarnation": 3, "accepted_at": NOW}, "OLDER_INCARNATION"),
        ({"incarnation": 2, "accepted_at": NOW, "forgotten_at": NOW}, "MACHINE_FORGOTTEN"),
        ({"incarnation": 2, "waits_because": "its token asks for review"}, "MACHINE_PENDING"),
        ({"incarnation": 2, "accepted_at": NOW}, None),
    ],
)
def test_a_machine_is_worth_what_the_world_says_of_it_now(facts, reason):
    machines = {"m-aaaaaaaa": Facts(id="m-aaaaaaaa", key_sha256=b"key", asked_at=NOW, **facts)} if facts else {}
    refused = standing(MachineIdentity("m-aaaaaaaa", 2), World(1, NOW, machines=machines))
    assert (refused and refused.reason) == reason


class Everything(grpc.GenericRpcHandler):
    """Serves every method there is: says who called."""

    def service(self, details):
        method = OURS.get(details.method) or OURS.get(details.method.replace("Tomorrow", "GetStatus"))
        if method is None:
            return None
        return {
            (False, False): lambda: grpc.unary_unary_rpc_method_handler(_answer),
            (False, True): lambda: grpc.unary_stream_rpc_method_handler(_generate),
            (True, False): lambda: grpc.stream_unary_rpc_method_handler(_answer),
            (True, True): lambda: grpc.stream_stream_rpc_method_handler(_write),
        }[method.client_streaming, method.server_streaming]()


async def _answer(request, context):
    if request == b"refuse":
        raise RefusedError(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "FULL", "cannot: it is full", error_details_pb2.RetryInfo()
        )
    return caller(context).role.encode()


async def _generate(request, context):
    yield await _answer(request, context)


async def _write(requests, context):
    await context.write(await _answer(requests, context))


@contextlib.asynccontextmanager
async def serving(*, mutual=True, world=WORLD):
    chain, key = CA.issue_server(["127.0.0.1"], now=NOW)
    server = grpc.aio.server(interceptors=[Guard(lambda: world)], handlers=[Everything()])
    roots = CA.roots_pem if mutual else None
    credentials = grpc.ssl_server_credentials([(key, chain)], roots, require_client_auth=mutual)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def credential(who, *, ca=CA, now=NOW):
    if who.role == "machine":
        private = new_key()
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(private, hashes.SHA256())
        csr, key = csr.public_bytes(serialization.Encoding.DER), key_pem(private)
        identity = MachineIdentity(who.machine_id, who.incarnation)
        return ca.issue_machine(csr, identity, lifetime_s=86400, now=now).certificate_pem, key
    return ca.issue_person(PersonIdentity(who.name, Role(who.role)), now=now)


def dial(address, roots, pair=(None, None)):
    certificate, key = pair
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(roots, key, certificate), options)


async def call(channel, method, request=b""):
    """What came of it: the role that the handler saw, or the status code with the reason of its ErrorInfo."""
    streams = OURS.get(method, OURS["/bedplate.v1.Fleet/GetStatus"])
    try:
        match streams.client_streaming, streams.server_streaming:
            case False, False:
                return (await channel.unary_unary(method)(request, timeout=10)).decode()
            case False, True:
                [answer] = [item async for item in channel.unary_stream(method)(request, timeout=10)]
            case _:
                # nothing is sent: a refusal that comes while something is being sent can get lost in gRPC
                [answer] = [item async for item in channel.stream_stream(method)(timeout=10)]
        return answer.decode()
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)
        info = error_details_pb2.ErrorInfo()
        if status and status.details[0].Unpack(info):
            assert info.domain == "bedplate"
            return error.code().name, info.reason
        return error.code().name, error.details()


@pytest.mark.parametrize("name", [name for name in WHO if name != "nobody"])
def test_each_identity_can_call_what_its_row_says_and_nothing_else(name):
    who = WHO[name]

    async def main():
        async with serving() as address, dial(address, CA.roots_pem, credential(who)) as channel:
            for method, those in MAY.items():
                came = await call(channel, f"/bedplate.v1.{method}")
                assert came == (who.role if name in those else ("PERMISSION_DENIED", "ROLE_TOO_LOW")), method
            came = await call(channel, "/bedplate.v1.Fleet/Tomorrow")
            assert came == ("PERMISSION_DENIED", "METHOD_WITHOUT_A_ROW")

    asyncio.run(main())


def test_without_a_certificate_only_what_is_open_to_all_can_be_called():
    async def main():
        async with serving(mutual=False) as address, dial(address, CA.roots_pem) as channel:
            for method, those in MAY.items():
                came = await call(channel, f"/bedplate.v1.{method}")
                assert came == ("" if "nobody" in those else ("UNAUTHENTICATED", "NO_IDENTITY")), method

    asyncio.run(main())


@pytest.mark.parametrize(
    ("world", "reason"),
    [
        (World(1, NOW), "MACHINE_FORGOTTEN"),
        (
            World(1, NOW, machines={"m-aaaaaaaa": Facts("m-aaaaaaaa", 3, b"", NOW, accepted_at=NOW)}),
            "OLDER_INCARNATION",
        ),
    ],
)
def test_a_machine_that_is_no_more_is_refused_at_the_door(world, reason):
    async def main():
        pair = credential(MACHINE)
        async with serving(world=world) as address, dial(address, CA.roots_pem, pair) as channel:
            for method in ("/bedplate.v1.Uplink/Session", "/bedplate.v1.Uplink/Renew"):
                assert await call(channel, method) == ("PERMISSION_DENIED", reason)

    asyncio.run(main())


def test_what_a_handler_refuses_reaches_the_caller_with_its_details():
    async def main():
        pair = credential(WHO["admin"])
        async with serving() as address, dial(address, CA.roots_pem, pair) as channel:
            for method in ("GetStatus", "WatchEvents"):
                assert await call(channel, f"/bedplate.v1.Fleet/{method}", b"refuse") == ("RESOURCE_EXHAUSTED", "FULL")

    asyncio.run(main())


def test_tls_itself_refuses_strangers_servers_and_those_whose_time_is_over():
    other = authority(new_key(), now=NOW)
    who = WHO["admin"]
    pairs = {
        "no certificate": (None, None),
        "another CA's": credential(who, ca=other),
        "the server's own": CA.issue_server(["127.0.0.1"], now=NOW),
        "one that is over": credential(who, now=NOW - 400 * 86400),
    }

    async def main():
        async with serving() as address:
            for what, pair in pairs.items():
                async with dial(address, CA.roots_pem, pair) as channel:
                    assert (await call(channel, "/bedplate.v1.Fleet/GetStatus"))[0] == "UNAVAILABLE", what

    asyncio.run(main())


def test_nobody_but_machines_needs_a_machines_certificate():
    assert {method for method, who in METHODS.items() if who is Who.MACHINE} == {
        "/bedplate.v1.Uplink/Session",
        "/bedplate.v1.Uplink/Renew",
    }
