"""A provisioner's two doors over real TLS, with a ledger in memory."""

import asyncio
import time
from dataclasses import dataclass, field

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from bedplate.v1.enrolment_pb2 import EnrolRequest, Evidence
from bedplate.v1.enrolment_pb2_grpc import add_EnrolmentServicer_to_server
from bedplate.v1.snapshot_pb2 import Identity
from bedplate.v1.uplink_pb2 import RenewResponse
from bedplate.v1.uplink_pb2_grpc import UplinkServicer, add_UplinkServicer_to_server
from provisioner import tokens
from provisioner.access import Guard, caller
from provisioner.config import Config
from provisioner.enrolment import EnrolmentServicer, Renewals
from provisioner.errors import BedplateError
from provisioner.pki import authority, new_key
from provisioner.world import Noted, TokenMade, World

HOUR = 3600.0


@dataclass(frozen=True)
class Settings:
    config: Config


@dataclass
class Book:
    """A ledger that keeps its changes in a list. A write takes a turn of the loop, as a commit does."""

    settings: Settings = field(default_factory=lambda: Settings(Config()))
    world: World = field(default_factory=lambda: World(1, 0.0))
    written: list = field(default_factory=list)
    writes: int = 0
    broken: str = ""
    skew: float = 0.0

    def now(self):
        return time.time() + self.skew

    async def write(self, changes):
        await asyncio.sleep(0)
        if self.broken:
            raise BedplateError(self.broken)
        self.writes += 1
        first = len(self.written) + 1
        numbered = list(enumerate(changes, first))
        self.written += changes
        self.world = self.world.after(numbered)
        return [number for number, _ in numbered]

    @property
    def events(self):
        return [f"{change.kind}: {change.because}" for change in self.written if isinstance(change, Noted)]


class Uplink(UplinkServicer):
    def __init__(self, renewals):
        self._renewals = renewals

    async def Renew(self, request, context):
        return RenewResponse(credentials=await self._renewals.renew(caller(context), request.csr))


class Desk:
    """`async with Desk() as desk`: desk.token() gives what a person would give to an agent."""

    def __init__(self, book=None, ca=None, names=("127.0.0.1",)):
        self.book = book or Book()
        self.ca = ca or authority(new_key(), now=time.time())
        self.names = names
        self.servers = []

    async def __aenter__(self):
        chain, key = self.ca.issue_server(list(self.names), now=time.time())
        guard = Guard(lambda: self.book.world)
        door, main = grpc.aio.server(interceptors=[guard]), grpc.aio.server(interceptors=[guard])
        add_EnrolmentServicer_to_server(EnrolmentServicer(self.book, self.ca), door)
        add_UplinkServicer_to_server(Uplink(Renewals(self.book, self.ca)), main)
        open_door = grpc.ssl_server_credentials([(key, chain)])
        mutual = grpc.ssl_server_credentials([(key, chain)], self.ca.roots_pem, require_client_auth=True)
        self.address = f"127.0.0.1:{door.add_secure_port('127.0.0.1:0', open_door)}"
        uplink = f"127.0.0.1:{main.add_secure_port('127.0.0.1:0', mutual)}"
        days = self.book.settings.config.certificate_days
        limit = self.book.settings.config.pending_limit
        self.book.settings = Settings(Config(listen=uplink, certificate_days=days, pending_limit=limit))
        self.servers = [door, main]
        for server in self.servers:
            await server.start()
        return self

    async def __aexit__(self, *_):
        await asyncio.gather(*(server.stop(None) for server in self.servers))

    async def token(self, *, uses=1, ttl=HOUR, review=False, addresses=None, machine_id=""):
        minted = await minted_in(self.book, uses=uses, ttl=ttl, review=review, machine_id=machine_id)
        return tokens.encode(minted, addresses or [self.address], self.ca.sha256)


async def minted_in(book, *, uses=1, ttl=HOUR, review=False, machine_id=""):
    minted = tokens.mint(machine_id)
    now = book.now()
    made = TokenMade(minted.token_id, minted.secret_sha256, now, now + ttl, uses, review, "ada (admin)")
    await book.write([made])
    return minted


def csr_of(key=None):
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key or new_key(), hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def asking(minted=None, *, key=None, evidence=None, **others):
    request = EnrolRequest(csr=csr_of(key), evidence=evidence or Evidence(), agent_version="0.1.0", **others)
    if minted:
        request.token_id, request.token_secret = minted.token_id, minted.secret
    return request


def showing(hostname="gpu-01", serial="J1234567", macs=()):
    return Evidence(identity=Identity(hostname=hostname, product_serial=serial), permanent_macs=macs)
