"""The way to a certificate of a simulated machine: the agent's own, but for the process that makes the key.

Rule: a key for each of thousands of machines is made in this process. A machine that is real has its own.
"""

import asyncio
import base64
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

import grpc

from bedplate.v1.enrolment_pb2 import Credentials, Evidence, JoinToken
from nodeagent import keys
from nodeagent.asking import AGAIN_S, Csr, EnrolmentError, ask, ask_younger, come, enrol_request
from nodeagent.credentials import Have
from nodeagent.enrolment import plain
from nodeagent.errors import BedplateError
from nodeagent.identity import Identity, load
from nodeagent.meeting import Met, decode, meet

VERSION: Final = version("bedplate")  # looked up once: it reads a file


@dataclass(slots=True)
class Insider:
    """An `IdentityDoor` on a folder of its own below the simulation's state."""

    folder: Path
    token: Callable[[], str]
    evidence: Callable[[], Evidence]
    wall: Callable[[], float] = time.time  # its host's clock
    cut: Callable[[], bool] = lambda: False  # whether its cable is out
    identity: Identity | None = field(init=False)
    last: str = ""
    _refused: str = ""
    _again_at: float = 0.0

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise BedplateError(f"cannot write state folder {self.folder}: {error.strerror}") from error
        self.identity = load(self.folder)

    def have(self) -> Have:
        token_id, flaw = "", ""
        try:
            token_id = decode(text).token_id if (text := self.token()) else ""
        except BedplateError as error:
            flaw = str(error)
        return Have(
            identity=self.identity,
            now=self.wall(),
            token_id=token_id,
            token_flaw=flaw,
            refused=self._refused,
            again_in_s=self._again_at - time.monotonic(),
            last=self.last,
        )

    def refused(self, because: str) -> None:
        """Why the provisioner takes this identity no more, or nothing."""
        self._refused = because

    async def enrol(self) -> None:
        """Keys that may be known already are shown before the join token is."""
        try:
            token = decode(self.token())
            met, evidence = await self._meet(token), self.evidence()
            made = await asyncio.to_thread(keys.request, self.folder, token.token_id)
            answer = await come(
                [Csr.of(each) for each in made],
                token,
                lambda csr, known: ask(met, enrol_request(token, csr, evidence, VERSION, known=known)),
            )
            if answer.HasField("credentials"):
                await self._keep(answer.credentials, token.token_id)
            else:
                self._put_off(answer.pending.because, answer.pending.retry_after_s or AGAIN_S)
        except BedplateError as error:
            self._fail(error)
            raise

    async def renew(self) -> None:
        if self.identity is None:
            return
        try:
            self._reach(self.identity.uplink_addresses[0])
            csr = base64.b64decode(str((await asyncio.to_thread(keys.request, self.folder))[-1]["csr"]))
            younger = await ask_younger(self.identity, self.identity.uplink_addresses[0], csr)
            await self._keep(younger, self.identity.token_id)
        except BedplateError as error:
            self._fail(error)
            raise

    async def _meet(self, token: JoinToken) -> Met:
        self._reach(token.addresses[0])
        return await meet(token)

    def _reach(self, address: str) -> None:
        if self.cut():
            raise BedplateError(f"cannot reach {address}: No route to host")

    async def _keep(self, credentials: Credentials, token_id: str) -> None:
        kept = plain(credentials, token_id, self.wall())
        kept["uplink_addresses"] = tuple(kept["uplink_addresses"])
        await asyncio.to_thread(keys.keep, self.folder, keys.Kept(**kept))
        self.identity, self._refused, self.last, self._again_at = load(self.folder), "", "", 0.0

    def _fail(self, error: BedplateError) -> None:
        if isinstance(error, EnrolmentError) and error.code is grpc.StatusCode.PERMISSION_DENIED:
            self._refused = str(error)
        self._put_off(str(error), getattr(error, "again_in_s", AGAIN_S))

    def _put_off(self, because: str, seconds: float) -> None:
        self.last, self._again_at = because, time.monotonic() + seconds
