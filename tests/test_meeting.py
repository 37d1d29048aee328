"""Whom the agent meets: each way in which it is not the provisioner is one line that says what to do."""

import asyncio
import contextlib
import re
import socket
import ssl
import time

import pytest

from bedplate.v1.enrolment_pb2 import JoinToken
from nodeagent.errors import BedplateError
from nodeagent.meeting import Met, endpoint, meet, trouble
from provisioner.pki import authority, new_key

CA = authority(new_key(), now=time.time())


def token(*addresses, ca=CA):
    return JoinToken(addresses=addresses, ca_sha256=ca.sha256, token_id="t-token", secret=b"secret")


@contextlib.asynccontextmanager
async def listening(handle, context=None):
    """Its address; at the end every conversation is over."""
    open_ = {}

    async def converse(reader, writer):
        open_[writer] = asyncio.current_task()
        with contextlib.suppress(OSError):
            await handle(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for writer in open_:
        writer.transport.abort()
    await asyncio.gather(*open_.values())


def tls(tmp_path, ca=CA, names=("127.0.0.1",), now=None, issuer=None):
    """A server with this CA in its chain; `issuer` signs its leaf where it only pretends."""
    chain, key = (issuer or ca).issue_server(list(names), now=now or time.time())
    leaf = chain.split(b"-----END CERTIFICATE-----\n")[0] + b"-----END CERTIFICATE-----\n"
    (tmp_path / "server.pem").write_bytes(leaf + ca.roots_pem + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    return context


async def quiet(reader, _):
    """Says nothing until the other end goes."""
    await reader.read()


async def babble(reader, writer):
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    await reader.read()


async def hang_up(reader, writer):
    await reader.read(1)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@contextlib.contextmanager
def one_line(line):
    with pytest.raises(BedplateError, match=re.escape(line)) as caught:
        yield
    assert "\n" not in str(caught.value)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_the_provisioner_of_the_token_is_met_and_its_root_taken(tmp_path):
    async def main():
        async with listening(quiet, tls(tmp_path)) as address:
            met = await meet(token(address))
            assert met == Met(address, CA.roots_pem)
            assert await trouble(met) == ""

    asyncio.run(main())


def test_of_several_addresses_the_first_that_answers_is_taken(tmp_path):
    async def main():
        async with listening(quiet, tls(tmp_path)) as address:
            assert (await meet(token(f"127.0.0.1:{free_port()}", address))).address == address

    asyncio.run(main())


def test_where_nobody_listens_it_asks_whether_the_provisioner_runs():
    address = f"127.0.0.1:{free_port()}"
    with one_line(f"cannot enrol with {address}: nobody listens there; is the provisioner running?"):
        asyncio.run(meet(token(address)))


@pytest.mark.parametrize("handle", [babble, hang_up])
def test_what_speaks_no_tls_is_not_the_door(handle):
    async def main():
        async with listening(handle) as address:
            with one_line("is it the provisioner's enrol_listen?"):
                await meet(token(address))

    asyncio.run(main())


def test_what_never_answers_is_given_up():
    async def main():
        async with listening(quiet) as address:
            with one_line(f"cannot enrol with {address}: no answer within 0.2 s; is the way to it open"):
                await meet(token(address), timeout_s=0.2)

    asyncio.run(main())


def test_another_provisioner_is_told_apart_with_both_fingerprints(tmp_path):
    other = authority(new_key(), now=time.time())

    async def main():
        async with listening(quiet, tls(tmp_path, other)) as address:
            with one_line(
                f"it shows the CA {other.sha256.hex()[:16]}…, the token names {CA.sha256.hex()[:16]}…; make another"
            ):
                await meet(token(address))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("server", "line"),
    [
        ({"names": ["elsewhere.example"]}, "its certificate is not for that name: add it to `names`"),
        ({"now": time.time() - 800 * 86400}, "its certificate is over by this host's clock"),
        ({"now": time.time() + 30 * 86400}, "this host's clock is behind the beginning of its certificate"),
        (
            {"issuer": authority(new_key(), now=time.time())},
            "it is of a CA that this machine does not know: give it a join token",
        ),
    ],
)
def test_one_that_shows_the_right_ca_and_does_not_hold_is_found_out(tmp_path, server, line):
    async def main():
        async with listening(quiet, tls(tmp_path, **server)) as address:
            met = await meet(token(address))
            assert (await trouble(met)).startswith(line)

    asyncio.run(main())


def test_a_host_whose_clock_is_two_hours_behind_trusts_the_provisioner(tmp_path):
    ca = authority(new_key(), now=time.time() + 7200)

    async def main():
        async with listening(quiet, tls(tmp_path, ca, now=time.time() + 7200)) as address:
            assert await trouble(await meet(token(address, ca=ca))) == ""

    asyncio.run(main())


@pytest.mark.parametrize(
    ("address", "parts"),
    [("10.0.0.5:7444", ("10.0.0.5", 7444)), ("[::1]:7444", ("::1", 7444)), ("p.example:1", ("p.example", 1))],
)
def test_an_address_is_a_host_and_a_port(address, parts):
    assert endpoint(address) == parts


@pytest.mark.parametrize("address", ["", "host", ":1", "host:", "host:x", "host:65536"])
def test_a_token_with_an_address_that_is_none_says_so(address):
    with one_line("it is not HOST:PORT; make another"):
        asyncio.run(meet(token(address)))


def test_a_token_without_an_address_says_so():
    with one_line("the join token holds no address"):
        asyncio.run(meet(token()))
