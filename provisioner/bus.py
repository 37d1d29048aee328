"""The one door to an MQTT 5 broker: publishes, and tells what the broker said to each message.

Rule 1: QoS 1 always: a message counts once the broker has answered for it, and an answer that refuses is an error.
Rule 2: the session ends with the connection. What was not answered for is sent again from the store, by whoever knows;
        no second queue is kept here or at the broker.
Rule 3: no more is under way at a time than the broker says that it takes.
Rule 4: files are read at each connection: a password or a certificate is changed without a restart.

Source: MQTT 5.0 (OASIS), 3.1 CONNECT, 3.2.2.3.3 Receive Maximum, 3.4.2.1 PUBACK reason codes.
"""

import asyncio
import contextlib
import logging
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiomqtt
from paho.mqtt.client import ConnectFlags
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from provisioner import names, secret
from provisioner.config import Mqtt
from provisioner.errors import BedplateError

MOST_UNDER_WAY = 100
CONNECT_S = 3.0  # a thread connects, and a provisioner that stops waits for it
ANSWER_S = 10.0
QUIET = logging.getLogger("provisioner.mqtt")
QUIET.setLevel(logging.CRITICAL)  # what is worth a line is said by whoever delivers, once
PLAIN = {  # what aiomqtt and paho call it, and what it is
    "Unspecified error": "the connection broke",
    "Operation timed out": f"no answer within {CONNECT_S:g} s",
}
ADVICE = {
    "Not authorized": "see mqtt.username, mqtt.password_file and the broker's list of who may do what",
    "Bad user name or password": "see mqtt.username and mqtt.password_file",
    "Session taken over": "another client has the same mqtt.client_id: two provisioners?",
    "certificate verify failed": "see mqtt.ca_file and mqtt.host",
}


class BusError(BedplateError):
    """The broker cannot be reached, does not answer, or refuses."""


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    payload: bytes
    content_type: str
    retain: bool = False

    @property
    def properties(self) -> dict[str, Any]:
        if not self.payload:
            return {}
        return {"ContentType": self.content_type, "PayloadFormatIndicator": 1}  # 1: it is UTF-8


class _Socket(ssl.SSLSocket):
    """Closed where the handshake fails: paho leaves that to chance."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - as it stands in ssl
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


class _Client(aiomqtt.Client):
    """Knows two things more than it is told: what a broker answers to each message, and how many it takes at once."""

    def __init__(self, host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._client.connect_timeout = CONNECT_S
        self._client.max_inflight_messages_set(0)  # `room` sees to it
        self.answers: dict[int, asyncio.Future[str]] = {}
        self.room = asyncio.Semaphore(MOST_UNDER_WAY)

    def send(self, message: Message) -> "asyncio.Future[str]":
        """Done with an empty text, or with why the broker refuses it."""
        properties = _properties(PacketTypes.PUBLISH, **message.properties)
        info = self._client.publish(message.topic, message.payload, 1, message.retain, properties)
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.answers[info.mid] = answer
        return answer

    def _on_connect(
        self, client: Any, userdata: Any, flags: ConnectFlags, reason_code: ReasonCode, properties: Any = None
    ) -> None:
        self.room = asyncio.Semaphore(min(MOST_UNDER_WAY, getattr(properties, "ReceiveMaximum", MOST_UNDER_WAY)))
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(self, *told: Any) -> None:
        if not self._connected.done():  # aiomqtt would wait for an answer until its patience ends
            self._connected.set_exception(aiomqtt.MqttError("it ended the connection at once"))
        super()._on_disconnect(*told)

    def _on_socket_register_write(self, client: Any, userdata: Any, sock: Any) -> None:  # noqa: ARG002 - as it is called
        """As in aiomqtt, but that the socket may be closed by the time that the loop comes to it."""

        def write() -> None:
            try:
                client.loop_write()
            except Exception as error:  # noqa: BLE001 - whatever it is, the connection is over
                if not self._disconnected.done():
                    self._disconnected.set_exception(error)

        def register() -> None:
            if sock.fileno() >= 0:
                self._loop.add_writer(sock.fileno(), write)

        self._loop.call_soon_threadsafe(register)

    async def end(self) -> None:
        with contextlib.suppress(aiomqtt.MqttError):
            await self.__aexit__(None, None, None)
        if self._disconnected.done():
            self._disconnected.exception()  # somebody has to have looked at it

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: ReasonCode, properties: Any) -> None:  # noqa: ARG002 - as it is called
        answer = self.answers.pop(mid, None)
        if answer is None:
            return
        self.room.release()
        if not answer.done():
            answer.set_result(str(reason_code) if reason_code.is_failure else "")


class Line:
    """A connection that is open."""

    def __init__(self, client: _Client, where: str) -> None:
        self._client = client
        self._where = where

    async def send(self, message: Message) -> "asyncio.Future[str]":
        """On its way, in the order of the calls, once there is room for it; done with why it was refused, if it was."""
        await self._in_time(self._client.room.acquire())
        return self._client.send(message)

    async def confirmed(self, message: Message, answer: "asyncio.Future[str]") -> None:
        """BusError where the broker does not answer, or refuses the message."""
        if because := await self.answered(answer):
            raise BusError(f"broker {self._where} refuses {message.topic}: {because}")

    async def answered(self, answer: "asyncio.Future[str]") -> str:
        """Why the broker refuses it, if it does. BusError where it does not answer."""
        because: str = await self._in_time(answer)
        return because and _advised(because)

    async def publish(self, message: Message) -> None:
        await self.confirmed(message, await self.send(message))

    async def lost(self) -> None:
        """Returns never: BusError once the connection is gone."""
        try:
            async for _ in self._client.messages:
                pass
        except aiomqtt.MqttError as error:
            raise BusError(f"lost broker {self._where}: {_cause(error.__cause__ or error)}") from error

    async def _in_time(self, awaited: Any) -> Any:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await awaited
        except TimeoutError as error:
            raise BusError(f"broker {self._where} does not answer within {ANSWER_S:g} s") from error


@dataclass(frozen=True, slots=True)
class Broker:
    settings: Mqtt
    client_id: str

    @property
    def where(self) -> str:
        return f"{self.settings.host}:{self.settings.port}"

    @contextlib.asynccontextmanager
    async def connected(self, will: Message) -> AsyncIterator[Line]:
        """For as long as the block runs. The broker publishes `will` where the connection ends in any other way."""
        password, context = await asyncio.to_thread(_credentials, self.settings)
        client = self._client(will, password, context)
        try:
            await names.look_up(
                self.settings.host, self.settings.port
            )  # aiomqtt would do so in a thread of the store's
            await client.__aenter__()
        except (aiomqtt.MqttError, OSError) as error:  # TimeoutError is an OSError
            raise BusError(f"cannot reach broker {self.where}: {_cause(error)}") from error
        try:
            yield Line(client, self.where)
        finally:
            await client.end()

    def _client(self, will: Message, password: str | None, context: ssl.SSLContext | None) -> _Client:
        last = aiomqtt.Will(
            will.topic, will.payload, 1, will.retain, _properties(PacketTypes.WILLMESSAGE, **will.properties)
        )
        return _Client(
            self.settings.host,
            port=self.settings.port,
            username=self.settings.username or None,
            password=password,
            identifier=self.client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            will=last,
            timeout=CONNECT_S,
            keepalive=self.settings.keepalive_s,
            clean_start=True,
            tls_context=context,
            logger=QUIET,
        )


def _credentials(settings: Mqtt) -> tuple[str | None, ssl.SSLContext | None]:
    """BedplateError where a file is not there, is no certificate, or may be read by others."""
    password = secret.read(settings.password_file).decode(errors="replace") if settings.password_file else None
    if not settings.tls:
        return password, None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
        context.sslsocket_class = _Socket
        if settings.certificate_file:
            secret.read(settings.key_file)
            context.load_cert_chain(settings.certificate_file, settings.key_file)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(filter(None, (settings.ca_file, settings.certificate_file)))
        raise BusError(f"cannot use {files} for the broker: {_cause(error)}") from error
    return password, context


def _properties(packet: int, **values: Any) -> Properties:
    made = Properties(packet)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(made, name, value)
    return made


def _cause(error: BaseException) -> str:
    """'[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: … (_ssl.c:1006)' without what only OpenSSL needs."""
    if isinstance(error, TimeoutError) and not str(error):
        return "its name is looked up in vain"
    for ending, words in PLAIN.items():
        if str(error).endswith(ending):
            return words
    return _advised(re.sub(r"^\[[^]]*\] | \(_ssl\.c:\d+\)$", "", str(error)).strip().rstrip("."))


def _advised(because: str) -> str:
    advice = next((line for key, line in ADVICE.items() if key in because), "")
    return f"{because}; {advice}" if advice else because
