"""Many machines at one provisioner: light clients with certificates of its CA, known to it before it starts."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from bedplate.v1.enrolment_pb2_grpc import EnrolmentStub
from bedplate.v1.fleet_pb2_grpc import FleetStub
from bedplate.v1.uplink_pb2_grpc import UplinkStub
from provisioner import credentials
from provisioner.config import Config
from provisioner.pki import Authority, MachineIdentity, PersonIdentity, Role, key_pem, new_key
from provisioner.serve import Running, serving
from provisioner.store import Store
from provisioner.world import Accepted, Asked, Change
from tests.enrolment_desk import csr_of
from tests.running import free_ports, toml
from tests.served import Options

OWN = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]  # a connection of its own
LETTERS = str.maketrans("0123456789", "abcdefghij")


@dataclass
class Crowd:
    """Whoever calls a provisioner on this folder, each over a connection of its own."""

    folder: Path
    config: Config
    ca: Authority = field(init=False)
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ca = credentials.load(self.folder)
        self._key = new_key()
        self._csr = csr_of(self._key)

    def machine(self, name: str) -> Any:
        """The uplink as this machine calls it."""
        return UplinkStub(self._dial(self.config.listen, *self.certificate(name)))

    def certificate(self, name: str) -> tuple[bytes, bytes]:
        """Of this machine, PEM: its key and that. All have one key: to make more takes longer than what is tested."""
        issued = self.ca.issue_machine(self._csr, MachineIdentity(name, 1), lifetime_s=3600, now=time.time())
        return key_pem(self._key), issued.certificate_pem

    def person(self, name: str = "alice", role: str = "admin", options: Options = ()) -> Any:
        chain, key = self.ca.issue_person(PersonIdentity(name, Role(role)), now=time.time())
        return FleetStub(self._dial(self.config.listen, key, chain, options))

    def command(self, **settings: Any) -> tuple[str, ...]:
        """That runs the provisioner as a process of its own."""
        path = self.folder / "provisioner.toml"
        values = {"state": self.folder, "listen": self.config.listen, "enrol_listen": self.config.enrol_listen}
        path.write_text(toml(**values, keepalive_s=self.config.keepalive_s, **settings))
        return ("provisioner", "--config", str(path), "run")

    def stranger(self) -> Any:
        return EnrolmentStub(self._dial(self.config.enrol_listen))

    def _dial(
        self, address: str, key: bytes | None = None, chain: bytes | None = None, options: Options = ()
    ) -> grpc.aio.Channel:
        secure = grpc.ssl_channel_credentials(self.ca.roots_pem, key, chain)
        self.channels.append(grpc.aio.secure_channel(address, secure, [*OWN, *options]))
        return self.channels[-1]

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self.channels))
        self.channels.clear()


def names(count: int) -> list[str]:
    """'m-aaaaaaaa', 'm-aaaaaaab', …"""
    return [f"m-{number:08}".translate(LETTERS) for number in range(count)]


def known(machines: Sequence[str]) -> Iterator[Change]:
    """That these machines are let in."""
    for name in machines:
        yield Asked(name, 1, name.encode().ljust(32), b"", f"host-{name}", "", "", "t-1", "", 1.0)
        yield Accepted(name, 1.0)


def founded(folder: Path, changes: Iterable[Change] = (), **settings: Any) -> Crowd:
    """A provisioner's folder, in whose store this came to be; it does not run yet."""
    port, door = free_ports(2)
    config = Config(state=str(folder), listen=f"127.0.0.1:{port}", enrol_listen=f"127.0.0.1:{door}", **settings)
    credentials.init(folder, now=time.time())
    with contextlib.closing(Store.open(folder / "bedplate.db")) as store:
        store.begin_epoch()
        store.load(time.time())
        store.write(list(changes))
    return Crowd(folder, config)


@contextlib.asynccontextmanager
async def crowded(crowd: Crowd) -> AsyncIterator[Running]:
    """The provisioner, within this process."""
    async with serving(crowd.config, lambda _: None) as running:
        try:
            yield running
        finally:
            await crowd.close()
