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
from paho.mqtt.packettypes import PacketTypes

from provisioner import names, secret
from provisioner.config import Mqtt
from provisioner.errors import BedplateError
from provisioner.mqtt5 import CONNECT_S, Client, Socket, properties

ANSWER_S = 10.0
QUIET = logging.getLogger("provisioner.mqtt")
QUIET.setLevel(logging.CRITICAL)  # what is worth a line is said by whoever delivers, once
PLAIN = {  # what aiomqtt and paho call it, and what it is
    "Unspecified error": "the connection broke",
    "Normal disconnection": "it ended the connection",
    "Protocol error": "it does not keep to MQTT 5",
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


class Line:
    """A connection that is open."""

    def __init__(self, client: Client, where: str) -> None:
        self._client = client
        self._where = where

    async def send(self, message: Message) -> "asyncio.Future[str]":
        """On its way, in the order of the calls, once there is room for it; done with why it was refused, if it was."""
        room = self._client.room
        await (self._in_time(room.acquire()) if room.locked() else room.acquire())  # whoever need not wait does not
        return self._client.send(message.topic, message.payload, message.properties, retain=message.retain)

    async def confirmed(self, message: Message, answer: "asyncio.Future[str]") -> None:
        """BusError where the broker does not answer, or refuses the message."""
        if because := await self.answered(answer):
            raise BusError(f"broker {self._where} refuses {message.topic}: {because}")

    async def answered(self, answer: "asyncio.Future[str]") -> str:
        """Why the broker refuses it, if it does. BusError where it does not answer."""
        because: str = answer.result() if answer.done() else await self._in_time(answer)
        return because and _advised(because)

    async def publish(self, message: Message) -> None:
        await self.confirmed(message, await self.send(message))

    async def lost(self) -> None:
        """Returns never: BusError once the connection is gone."""
        raise self._gone(await asyncio.shield(self._client.over))  # others may wait for it, too

    async def _in_time(self, awaited: Any) -> Any:
        """BusError where it is not there in time, or the connection is gone meanwhile."""
        waiting, over = asyncio.ensure_future(awaited), self._client.over
        try:
            done, _ = await asyncio.wait((waiting, over), timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
            if waiting in done:
                return waiting.result()
        finally:
            waiting.cancel()
        if over in done:
            raise self._gone(over.result())
        raise BusError(f"broker {self._where} does not answer within {ANSWER_S:g} s")

    def _gone(self, error: Exception) -> BusError:
        return BusError(f"lost broker {self._where}: {_cause(error)}")


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
            await self._reached(client)
            yield Line(client, self.where)
        finally:
            await client.end()

    async def _reached(self, client: Client) -> None:
        try:
            await names.look_up(self.settings.host, self.settings.port)  # or aiomqtt would, in a thread of the store's
            await client.__aenter__()
        except (aiomqtt.MqttError, OSError) as error:  # TimeoutError is an OSError
            raise BusError(f"cannot reach broker {self.where}: {_cause(error)}") from error
        finally:
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError  # where both come at once, wait_for of Python 3.11 forgets it

    def _client(self, will: Message, password: str | None, context: ssl.SSLContext | None) -> Client:
        last = aiomqtt.Will(
            will.topic, will.payload, 1, will.retain, properties(PacketTypes.WILLMESSAGE, **will.properties)
        )
        return Client(
            self.settings.host,
            port=self.settings.port,
            username=self.settings.username or None,
            password=password,
            identifier=self.client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            will=last,
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
        context.sslsocket_class = Socket
        if settings.certificate_file:
            secret.read(settings.key_file)
            context.load_cert_chain(settings.certificate_file, settings.key_file)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(filter(None, (settings.ca_file, settings.certificate_file)))
        raise BusError(f"cannot use {files} for the broker: {_cause(error)}") from error
    return password, context


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
