"""How this machine comes by its certificate: it asks to be let in, and later for younger ones.

Rule 1: the key is made in a short-lived process and is on the disk before anything signed with it leaves. At any moment
        there is the old identity or the new one, and whatever the provisioner may know this machine by is kept.
Rule 2: what comes is checked before it is kept: for this key, of these roots, for this name.
"""

import asyncio
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from bedplate.v1.enrolment_pb2 import Credentials, Evidence
from bedplate.v1.snapshot_pb2 import Snapshot
from nodeagent.asking import AGAIN_S, Csr, EnrolmentError, ask, ask_younger, come, enrol_request
from nodeagent.credentials import Have
from nodeagent.errors import BedplateError
from nodeagent.identity import Identity, load
from nodeagent.meeting import decode, meet

LATE_S: Final = 3600.0  # the most that it may say
CHILD_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Pending:
    """A person has to look first."""

    machine_id: str
    because: str
    again_in_s: float


async def enrol(
    state: Path, join_token: str, evidence: Evidence, agent_version: str, *, now: float
) -> Identity | Pending:
    """Ask to be let in. BedplateError where it did not work: one line that says what to do."""
    token = decode(join_token)
    met = await meet(token)
    csrs = await _csrs(state, token.token_id)
    answer = await come(
        csrs, token, lambda csr, known: ask(met, enrol_request(token, csr, evidence, agent_version, known=known))
    )
    if not answer.HasField("credentials"):
        waiting = answer.pending
        return Pending(waiting.machine_id, waiting.because, waiting.retry_after_s or AGAIN_S)
    return await _keep(state, answer.credentials, token.token_id, now)


async def renew(state: Path, identity: Identity, *, now: float) -> Identity:
    """A younger certificate, for a new key. BedplateError where it did not work."""
    csr = (await _csrs(state))[-1].csr
    failure: BedplateError = BedplateError("cannot renew the certificate: there is no address to dial")
    for address in identity.uplink_addresses:
        try:
            credentials = await ask_younger(identity, address, csr)
        except EnrolmentError as error:
            failure = error
            if error.code is not grpc.StatusCode.UNAVAILABLE:
                break
        else:
            return await _keep(state, credentials, identity.token_id, now)
    raise failure


def evidence_of(snapshot: Snapshot) -> Evidence:
    """What a snapshot shows of who this is."""
    links = snapshot.inventory.links
    macs = sorted({link.permanent_mac.lower() for link in links if link.permanent_mac})
    return Evidence(identity=snapshot.inventory.identity, permanent_macs=macs)


class Newcomer:
    """The door of the steps: it holds who this machine is, and what came of the last attempt to become that."""

    def __init__(self, state: Path, token: Callable[[], str], agent_version: str) -> None:
        """BedplateError where there is an identity that cannot be read."""
        self._state = state
        self._token = token
        self._version = agent_version
        self._again_at = 0.0  # monotonic
        self._last = ""
        self._refused = ""
        self._stranded = ""
        self.snapshot: Callable[[], Snapshot] = Snapshot
        self.identity = load(state)

    def have(self) -> Have:
        """What the plan starts from."""
        token_id, flaw = "", ""
        try:
            token_id = decode(text).token_id if (text := self._token()) else ""
        except BedplateError as error:
            flaw = str(error)
        return Have(
            identity=self.identity,
            now=time.time(),
            token_id=token_id,
            token_flaw=flaw,
            refused=self._refused,
            again_in_s=self._again_at - time.monotonic(),
            last=self._last,
            stranded=self._stranded,
        )

    def refused(self, because: str) -> None:
        """The provisioner takes this identity no more: it said so on the stream or when asked for a younger one."""
        self._refused = because

    def stranded(self, because: str) -> None:
        """Somebody answers where the provisioner is to be, and no stream comes to be."""
        self._stranded = because

    async def enrol(self) -> None:
        with _Attempt(self):
            evidence = evidence_of(self.snapshot())
            outcome = await enrol(self._state, self._token(), evidence, self._version, now=time.time())
            if isinstance(outcome, Pending):
                self.put_off(f"machine {outcome.machine_id} {outcome.because}", outcome.again_in_s)
            else:
                self._become(outcome)

    async def renew(self) -> None:
        with _Attempt(self):
            if self.identity is not None:
                self._become(await renew(self._state, self.identity, now=time.time()))

    def put_off(self, because: str, seconds: float) -> None:
        """It asks again within the hour, whatever it was told."""
        wait_s = AGAIN_S if math.isnan(seconds) else min(max(seconds, 0.0), LATE_S)
        self._last, self._again_at = because, time.monotonic() + wait_s

    def _become(self, identity: Identity) -> None:
        self.identity, self._refused, self._stranded = identity, "", ""
        self._last, self._again_at = "", 0.0


@dataclass(slots=True)
class _Attempt:
    """What fails is remembered with the time until the next attempt, and goes on to whoever logs it."""

    door: Newcomer

    def __enter__(self) -> None:
        """Nothing is to be prepared."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, EnrolmentError) and error.code is grpc.StatusCode.PERMISSION_DENIED:
            self.door.refused(str(error))
        if isinstance(error, Exception):  # also one that nobody foresaw, or it is tried again with every tick
            self.door.put_off(str(error), getattr(error, "again_in_s", AGAIN_S))


async def _csrs(state: Path, token_id: str = "") -> Sequence[Csr]:
    answer = await _child({"do": "request", "state": str(state), "token_id": token_id})
    return [Csr.of(each) for each in answer["csrs"]]


async def _keep(state: Path, credentials: Credentials, token_id: str, now: float) -> Identity:
    await _child({"do": "keep", "state": str(state), "credentials": plain(credentials, token_id, now)})
    identity = load(state)
    if identity is None:
        raise BedplateError(f"cannot keep the certificate: {state} was emptied meanwhile")
    return identity


def plain(credentials: Credentials, token_id: str, now: float) -> dict[str, Any]:
    """As `nodeagent.keys` takes it."""
    return {
        "machine_id": credentials.machine_id,
        "incarnation": credentials.incarnation,
        "certificate": credentials.certificate_pem.decode(errors="replace"),
        "ca": credentials.ca_pem.decode(errors="replace"),
        "uplink_addresses": list(credentials.uplink_addresses),
        "token_id": token_id,
        "kept_at": now,
    }


async def _child(request: dict[str, Any]) -> dict[str, Any]:
    """Run `nodeagent.keys` with one question. It ends with the question, whatever becomes of us."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "nodeagent.keys", stdin=pipe, stdout=pipe, stderr=pipe
        )
    except OSError as error:
        raise BedplateError(f"cannot work with keys: cannot start {sys.executable}: {error.strerror}") from error
    try:
        async with asyncio.timeout(CHILD_S):
            out, said = await process.communicate(json.dumps(request).encode())
    except TimeoutError as error:
        raise BedplateError(f"cannot work with keys: no answer within {CHILD_S:g} s; is the disk stuck?") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        answer: dict[str, Any] = json.loads(out)
    except ValueError as error:
        line = said.decode(errors="replace").strip().splitlines()[-1:] or [f"exit {process.returncode}"]
        raise BedplateError(f"cannot work with keys: {line[0]}") from error
    if "error" in answer:
        raise BedplateError(answer["error"])
    return answer
