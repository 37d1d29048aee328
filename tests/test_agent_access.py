"""Who may call the agent over mTLS, and listeners that cannot be had."""

import asyncio
import contextlib
import socket
import time

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from bedplate.v1 import node_pb2
from bedplate.v1.node_pb2 import GetSnapshotRequest
from bedplate.v1.node_pb2_grpc import NodeAgentStub
from nodeagent.access import METHODS, denial, role_of
from nodeagent.config import Config
from nodeagent.errors import BedplateError
from nodeagent.keys import make_key
from nodeagent.service import serve
from provisioner.pki import MachineIdentity, PersonIdentity, Role, authority, new_key
from tests.shown_agent import Agent, captured, serving

NOW = time.time()
CA = authority(new_key(), now=NOW)


def test_every_method_has_a_row_in_the_table_of_who_may_call_what():
    methods = node_pb2.DESCRIPTOR.services_by_name["NodeAgent"].methods
    assert {method for method in METHODS if "NodeAgent" in method} == {
        f"/bedplate.v1.NodeAgent/{method.name}" for method in methods
    }
    assert denial("/bedplate.v1.NodeAgent/Unheard", "admin").reason == "METHOD_WITHOUT_A_ROW"


def test_a_role_stands_in_the_one_name_of_a_persons_certificate():
    assert role_of(["bedplate:person:vera:viewer"]) == "viewer"
    assert role_of(["bedplate:machine:m-aaaaaaaa:1"]) == ""
    assert role_of(["bedplate:person:vera:root"]) == ""
    assert role_of(["bedplate:person:vera:viewer", "bedplate:person:vera:admin"]) == ""
    assert role_of([]) == ""


def mtls(tmp_path):
    """The settings of a TCP listener with certificates of our CA."""
    chain, key = CA.issue_server(["127.0.0.1"], now=NOW)
    settings = {"listen": "127.0.0.1:0"}
    for name, data in (("listen_certificate", chain), ("listen_key", key), ("listen_client_ca", CA.roots_pem)):
        (tmp_path / name).write_bytes(data)
        settings[name] = str(tmp_path / name)
    return settings


def person(role):
    certificate, key = CA.issue_person(PersonIdentity("vera", Role(role)), now=NOW)
    return grpc.ssl_channel_credentials(CA.roots_pem, key, certificate)


def a_machine():
    key, csr = make_key()
    issued = CA.issue_machine(csr, MachineIdentity("m-aaaaaaaa", 1), lifetime_s=3600, now=NOW)
    return grpc.ssl_channel_credentials(CA.roots_pem, key, issued.certificate_pem)


def outcome(credentials, tmp_path, ask):
    """'ok', or the reason of the refusal."""

    async def story():
        async with contextlib.AsyncExitStack() as stack:
            _, port = await stack.enter_async_context(serving(**mtls(tmp_path)))
            address = f"127.0.0.1:{port}"
            channel = await stack.enter_async_context(grpc.aio.secure_channel(address, credentials))
            try:
                await ask(NodeAgentStub(channel))
            except grpc.aio.AioRpcError as error:
                return reason(error)
            return "ok"

    return asyncio.run(story())


def reason(error):
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    return info.reason if status and status.details[0].Unpack(info) else error.code().name


async def looked(stub):
    await stub.GetSnapshot(GetSnapshotRequest())


@pytest.mark.parametrize(
    ("who", "ask", "comes_of_it"),
    [
        ("viewer", looked, "ok"),
        ("viewer", captured, "ROLE_TOO_LOW"),
        ("operator", captured, "ok"),
        ("admin", captured, "ok"),
    ],
)
def test_over_tcp_a_viewer_looks_and_an_operator_captures(tmp_path, who, ask, comes_of_it):
    assert outcome(person(who), tmp_path, ask) == comes_of_it


def test_over_tcp_a_machine_may_not_call_its_neighbours(tmp_path):
    assert outcome(a_machine(), tmp_path, looked) == "NOT_A_PERSON"


def test_over_tcp_nobody_calls_without_a_certificate(tmp_path):
    assert outcome(grpc.ssl_channel_credentials(CA.roots_pem), tmp_path, looked) == "UNAVAILABLE"


def refusal(**settings):
    async def story():
        with pytest.raises(BedplateError) as caught:
            async with serving(**settings):
                pass
        return str(caught.value)

    return asyncio.run(story())


def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        says = f"cannot listen on {listen}: Address already in use; end what listens there, or set listen to another"
        assert refusal(**(mtls(tmp_path) | {"listen": listen})) == says


def test_a_key_that_cannot_be_read_is_named(tmp_path):
    settings = mtls(tmp_path)
    (tmp_path / "listen_key").unlink()
    assert refusal(**settings) == f"cannot read listen_key {tmp_path}/listen_key: No such file or directory"


def test_a_key_that_is_of_another_certificate_is_said(tmp_path):
    settings = mtls(tmp_path)
    (tmp_path / "listen_key").write_bytes(b"no key")
    assert "listen_certificate and listen_key do not belong together" in refusal(**settings)


def test_a_second_agent_on_the_socket_is_refused():
    async def story():
        async with serving() as (address, _):
            with pytest.raises(BedplateError, match="another agent answers there"):
                async with serve(Config(socket=address.removeprefix("unix:")), Agent()):
                    pass

    asyncio.run(story())
