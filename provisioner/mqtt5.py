"""aiomqtt's client for one connection to a broker that may be anything: of ours it is only the part that publishes.

Rule 1: how the connection ended is known from the first byte on, whatever the library makes of it: `over`.
Rule 2: a broker has nothing to say but acknowledgements: a message of its own, or a packet that is larger than any of
        those, ends the connection. So what a broker can make us hold is bounded.
Rule 3: whoever sends without end has a share of the loop, and no more.
Rule 4: an end is an end: the socket is closed, and nothing of the connection stays in the loop.

aiomqtt and paho keep an attribute or two to themselves that this needs; the tests of a hostile broker hold them.
"""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable
from typing import Any

import aiomqtt
from paho.mqtt.client import ConnectFlags
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

MOST_UNDER_WAY = 100
CONNECT_S = 3.0  # a thread connects, and a provisioner that stops waits for it
LARGEST_PACKET = 1 << 16  # bytes, of a broker: an acknowledgement with its properties
AT_A_TIME = 50  # reads, before the others have their turn


class Socket(ssl.SSLSocket):
    """Closed where the handshake fails: paho leaves that to chance."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - as it stands in ssl
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


class Client(aiomqtt.Client):
    """Knows what a broker answers to each message, how many it takes at once, and how the connection ended."""

    def __init__(self, host: str, **options: Any) -> None:
        limits = properties(PacketTypes.CONNECT, MaximumPacketSize=LARGEST_PACKET)
        super().__init__(host, properties=limits, timeout=CONNECT_S, **options)
        self._client.connect_timeout = CONNECT_S
        self._client.max_inflight_messages_set(0)  # `room` sees to it
        self.answers: dict[int, asyncio.Future[str]] = {}
        self.room = asyncio.Semaphore(MOST_UNDER_WAY)
        self._thread = threading.get_ident()  # the loop's
        self._going_on: asyncio.Handle | None = None
        self.over: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    def send(self, topic: str, payload: bytes, said: dict[str, Any], *, retain: bool) -> "asyncio.Future[str]":
        """Done with an empty text, or with why the broker refuses it."""
        info = self._client.publish(topic, payload, 1, retain, properties(PacketTypes.PUBLISH, **said))
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.answers[info.mid] = answer
        return answer

    async def end(self) -> None:
        if self._connected.done() and not self._connected.cancelled() and not self.over.done():
            with contextlib.suppress(aiomqtt.MqttError):
                await self.__aexit__(None, None, None)
        self.shut()

    def shut(self) -> None:
        """Also what was never open, or broke before it was."""
        self._client._sock_close()  # noqa: SLF001 - rule 4
        for future in (self._connected, self._disconnected):
            if future.done() and not future.cancelled():
                future.exception()  # somebody has to have looked at it

    def _ended(self, error: Exception) -> None:
        """The first word counts."""
        if not self.over.done():
            self.over.set_result(error)
        if not self._connected.done():  # aiomqtt would wait for an answer until its patience ends
            self._connected.set_exception(error)
        elif not self._disconnected.done():
            self._disconnected.set_exception(error)
            self._disconnected.exception()  # aiomqtt forgets it where it comes with the welcome

    def _on_connect(
        self, client: Any, userdata: Any, flags: ConnectFlags, reason_code: ReasonCode, properties: Any = None
    ) -> None:
        self.room = asyncio.Semaphore(min(MOST_UNDER_WAY, getattr(properties, "ReceiveMaximum", MOST_UNDER_WAY)))
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason_code: ReasonCode, said: Any = None) -> None:
        if not reason_code.is_failure and not self._connected.cancelled():  # we ended it
            super()._on_disconnect(client, userdata, flags, reason_code, said)
        if not self._connected.done() and str(reason_code) == "Unspecified error":
            self._ended(aiomqtt.MqttError("it ended the connection at once"))
        else:
            self._ended(aiomqtt.MqttCodeError(reason_code, "Unexpected disconnection"))

    def _on_message(self, *_: Any) -> None:
        raise aiomqtt.MqttError("it sends what nobody has asked it for")

    def _on_subscribe(self, *_: Any) -> None:
        self._on_message()

    def _on_unsubscribe(self, *_: Any) -> None:
        self._on_message()

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: ReasonCode, properties: Any) -> None:  # noqa: ARG002 - as it is called
        answer = self.answers.pop(mid, None)
        if answer is None:
            return
        self.room.release()
        if not answer.done():
            answer.set_result(str(reason_code) if reason_code.is_failure else "")

    # -- the socket, in the loop ---------------------------------------------------------------------------------------

    def _on_socket_open(self, client: Any, userdata: Any, sock: Any) -> None:  # noqa: ARG002 - as it is called
        """Called in the thread that connects. As in aiomqtt, but within bounds, and whatever breaks is an end."""

        def register() -> None:
            if sock.fileno() < 0:
                return
            self._loop.add_reader(sock.fileno(), self._tried, self._take, sock)
            self._misc_task = self._loop.create_task(self._misc_loop())

        self._loop.call_soon_threadsafe(register)

    def _on_socket_register_write(self, client: Any, userdata: Any, sock: Any) -> None:  # noqa: ARG002 - as it is called
        """The socket may be closed by the time that the loop comes to it."""

        def register() -> None:
            if sock.fileno() >= 0:
                self._loop.add_writer(sock.fileno(), self._tried, self._give, sock)

        self._loop.call_soon_threadsafe(register)

    def _on_socket_unregister_write(self, client: Any, userdata: Any, sock: Any) -> None:  # noqa: ARG002 - as it is called
        self._in_the_loop(lambda: self._loop.remove_writer(sock.fileno()))

    def _on_socket_close(self, client: Any, userdata: Any, sock: Any) -> None:
        def leave() -> None:
            if sock.fileno() >= 0:
                self._loop.remove_writer(sock.fileno())  # paho may think that there is none
            super(Client, self)._on_socket_close(client, userdata, sock)

        self._in_the_loop(leave)

    def _give(self, sock: Any) -> None:
        self._client.loop_write()
        if not self._client.want_write() and sock.fileno() >= 0:
            self._loop.remove_writer(sock.fileno())  # or a socket that is always ready would call without end

    def _in_the_loop(self, work: Callable[[], object]) -> None:
        """Done when it returns. aiomqtt changes the loop from the thread that connects, while it runs."""
        if threading.get_ident() == self._thread:
            work()
            return
        done = threading.Event()
        self._loop.call_soon_threadsafe(work)
        self._loop.call_soon_threadsafe(done.set)
        done.wait(CONNECT_S)

    def _take(self, sock: Any) -> None:
        if self._going_on:
            self._going_on.cancel()
        for _ in range(AT_A_TIME):
            self._client.loop_read()
            if self._client._in_messages:  # noqa: SLF001 - rule 2: those are kept until it says that it has sent them
                self._on_message()
            if self._client._in_packet["remaining_length"] > LARGEST_PACKET:  # noqa: SLF001 - rule 2
                raise aiomqtt.MqttError(f"it begins a packet of more than {LARGEST_PACKET} bytes")
            if sock.fileno() < 0 or not getattr(sock, "pending", int)():  # what TLS has decrypted wakes nobody
                return
        self._going_on = self._loop.call_soon(self._tried, self._take, sock)

    def _tried(self, work: Any, *arguments: Any) -> None:
        try:
            work(*arguments)
        except (OSError, aiomqtt.MqttError) as error:
            self._ended(error)
            self.shut()
        except Exception as error:  # noqa: BLE001 - whatever paho makes of bytes that are none of MQTT's
            self._ended(aiomqtt.MqttError(f"it does not keep to MQTT 5: {type(error).__name__}"))
            self.shut()


def properties(packet: int, **values: Any) -> Properties:
    made = Properties(packet)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(made, name, value)
    return made
