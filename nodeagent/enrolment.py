"""How this machine comes by its certificate: it asks to be let in, and later for younger ones.

Rule 1: the key is made in a short-lived process and is on the disk before anything signed with it leaves. At any moment
        there is the old identity or the new one, and whatever the provisioner may know this machine by is kept.
Rule 2: a key that may be known is shown before the join token is: it spends no use of it, and needs it to be good no
        longer.
Rule 3: what comes is checked before it is kept: for this key, of these roots, for this name.
"""

import asyncio
import base64
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc

from bedplate.v1.enrolment_pb2 import Credentials, EnrolRequest, EnrolResponse, Evidence, JoinToken
from bedplate.v1.enrolment_pb2_grpc import EnrolmentStub
from bedplate.v1.snapshot_pb2 import Snapshot
from bedplate.v1.uplink_pb2 import RenewRequest, RenewResponse
from bedplate.v1.uplink_pb2_grpc import UplinkStub
from nodeagent.credentials import Have
from nodeagent.errors import BedplateError
from nodeagent.identity import Identity, load
from nodeagent.meeting import TIMEOUT_S, Met, decode, meet, trouble
from nodeagent.refusal import retry_after

AGAIN_S: Final = 30.0  # after an error, unless the provisioner says its own
LATE_S: Final = 3600.0  # the most that it may say
CHILD_S: Final = 30.0
OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))


Answer = TypeVar("Answer", EnrolResponse, RenewResponse)


class EnrolmentError(BedplateError):
    """The provisioner answered, and it was not a certificate."""

    def __init__(self, line: str, *, code: grpc.StatusCode, again_in_s: float = AGAIN_S) -> None:
        super().__init__(line)
        self.code = code
        self.again_in_s = again_in_s


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
    answer = None
    for each in await _csrs(state, token.token_id):
        request = enrol_request(token, each.csr, evidence, agent_version, known=each.old)
        try:
            answer = await ask(met, request)
        except EnrolmentError as error:
            if not each.old or error.code is not grpc.StatusCode.UNAUTHENTICATED:
                raise
        else:
            break
    if answer is None or answer.HasField("pending"):
        waiting = (answer or EnrolResponse()).pending
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


def enrol_request(
    token: JoinToken, csr: bytes, evidence: Evidence, agent_version: str, *, known: bool = False
) -> EnrolRequest:
    """Without the token where the key may be known."""
    request = EnrolRequest(csr=csr, evidence=evidence, agent_version=agent_version)
    if not known:
        request.token_id, request.token_secret = token.token_id, token.secret
    return request


async def ask(met: Met, request: EnrolRequest) -> EnrolResponse:
    """One question to the door for newcomers. BedplateError where there is no answer."""
    credentials = grpc.ssl_channel_credentials(met.root_pem)
    async with grpc.aio.secure_channel(met.address, credentials, OPTIONS) as channel:
        try:
            answer: EnrolResponse | None = await EnrolmentStub(channel).Enrol(request, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise await _refused("cannot enrol", met, error) from error
    return _decoded(answer, "cannot enrol", met.address)


async def ask_younger(identity: Identity, address: str, csr: bytes) -> Credentials:
    """One question over the identity that there is. EnrolmentError where it was not answered with a certificate."""
    credentials = grpc.ssl_channel_credentials(identity.ca_pem, identity.key_pem, identity.certificate_pem)
    async with grpc.aio.secure_channel(address, credentials, OPTIONS) as channel:
        try:
            answer: RenewResponse | None = await UplinkStub(channel).Renew(RenewRequest(csr=csr), timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise await _refused("cannot renew the certificate", Met(address, identity.ca_pem), error) from error
    return _decoded(answer, "cannot renew the certificate", address).credentials


def _decoded(answer: Answer | None, what: str, address: str) -> Answer:
    """Grpc gives None for what it cannot decode."""
    if answer is None:
        line = f"{what} with {address}: what it answers is no message of this protocol"
        raise EnrolmentError(line, code=grpc.StatusCode.INTERNAL)
    return answer


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


@dataclass(frozen=True, slots=True)
class _Csr:
    csr: bytes
    old: bool  # the provisioner may know its key


async def _csrs(state: Path, token_id: str = "") -> Sequence[_Csr]:
    answer = await _child({"do": "request", "state": str(state), "token_id": token_id})
    return [_Csr(base64.b64decode(each["csr"]), each["old"]) for each in answer["csrs"]]


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


async def _refused(what: str, met: Met, error: grpc.aio.AioRpcError) -> EnrolmentError:
    """'cannot enrol with 10.0.0.5:7444: the join token t-… expired at …'"""
    details = error.details() or error.code().name
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        details = await trouble(met) or details.split("last error: ")[-1]
    line = f"{what} with {met.address}: {details.removeprefix('cannot enrol: ')}"
    return EnrolmentError(
        line, code=error.code(), again_in_s=AGAIN_S if (asked := retry_after(error)) is None else asked
    )
