"""What wakes the agent before its timer does: the kernel's word that a device or an interface changed.

Rule 1: a wake-up is a name and no news: "net", "infiniband", "pci" (a uevent's subsystem), "links" (rtnetlink). What
        became of it is read afresh by the probes that name it in their ON.
Rule 2: many events are one wake-up. Where the kernel dropped some, EVERYTHING is stale.
Rule 3: not to be allowed to listen is a fact, told in `deaf`: then only the timer is left.
Rule 4: the sockets are the kernel's own: pyroute2 would cost 24 MiB to hear a few bytes.
"""

import asyncio
import ctypes
import errno
import socket
import struct
import time
from collections.abc import Callable, Collection

EVERYTHING = "everything"  # what the frame of the probes calls it too
LINKS = "links"
SETTLE_S = 0.25  # events come in bursts: one cable is a dozen
DATAGRAM_BYTES = 64 << 10
BUFFER_BYTES = 1 << 20
DRAIN_AT_ONCE = 200  # then others have their turn
NETLINK_ROUTE, NETLINK_KOBJECT_UEVENT = 0, 15
UEVENT_KERNEL = 1  # the kernel's own group; udev's is 2
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE = 1, 0x10, 0x40, 0x100, 0x400
RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_DELADDR, RTM_NEWROUTE, RTM_DELROUTE = 16, 17, 20, 21, 24, 25
GROUPS = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33
HEADER_BYTES = 16  # nlmsghdr
Reader = Callable[[bytes], set[str]]


def of_uevent(datagram: bytes) -> set[str]:
    """'change@/devices/…', 'ACTION=change', 'SUBSYSTEM=net', each ended by a zero -> {'net'}"""
    for part in datagram.split(b"\0")[1:]:
        if part.startswith(b"SUBSYSTEM="):
            return {part[10:].decode("ascii", "backslashreplace")}
    return set()


def of_rtnetlink(datagram: bytes) -> set[str]:
    """{'links'} where a message tells of an interface, an address or a default route."""
    at = 0
    while at + HEADER_BYTES <= len(datagram):
        length, kind = struct.unpack_from("=IH", datagram, at)
        if length < HEADER_BYTES:  # less than its own header: nothing that follows can be found
            return set()
        if kind in (RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_DELADDR):
            return {LINKS}
        if kind in (RTM_NEWROUTE, RTM_DELROUTE) and datagram[at + HEADER_BYTES + 1 :][:1] == b"\0":
            return {LINKS}
        at += (length + 3) & ~3
    return set()


class Changes:
    """One listener, one consumer. `interest` names what may wake; none: everything may."""

    def __init__(self, interest: Collection[str] = (), *, settle_s: float = SETTLE_S) -> None:
        self.deaf: list[str] = []
        self._interest = frozenset(interest)
        self._settle_s = settle_s
        self._names: set[str] = set()
        self._woken = asyncio.Event()
        self._settled_at = 0.0
        self._sockets: list[socket.socket] = []

    def listen(self) -> None:
        """Begin; within the loop that will ask."""
        self._add("devices", NETLINK_KOBJECT_UEVENT, UEVENT_KERNEL, of_uevent)
        self._add("network interfaces", NETLINK_ROUTE, GROUPS, of_rtnetlink)

    async def next(self) -> frozenset[str]:
        """The names that woke us, once the burst is over. Waits for ever where nothing happens; who gives up waiting
        and asks again has lost nothing.
        """
        await self._woken.wait()
        await asyncio.sleep(max(0.0, self._settled_at - time.monotonic()))
        names, self._names = frozenset(self._names), set()
        self._woken.clear()
        return names

    def close(self) -> None:
        for door in self._sockets:
            asyncio.get_running_loop().remove_reader(door.fileno())
            door.close()
        self._sockets = []

    def heard(self, names: Collection[str]) -> None:
        """Something became stale; from the kernel, or from whoever knows better."""
        news = {name for name in names if not self._interest or name == EVERYTHING or name in self._interest}
        if news:
            if not self._woken.is_set():
                self._settled_at = time.monotonic() + self._settle_s
            self._names |= news
            self._woken.set()

    def _add(self, what: str, family: int, groups: int, read: Reader) -> None:
        try:
            door = _opened(family, groups)
        except OSError as error:
            self.deaf.append(f"cannot hear of changes of {what}: {error.strerror}; only the timer is left")
            return
        self._sockets.append(door)
        asyncio.get_running_loop().add_reader(door.fileno(), self._drain, door, read)

    def _drain(self, door: socket.socket, read: Reader) -> None:
        for _ in range(DRAIN_AT_ONCE):
            try:
                datagram, (sender, _) = door.recvfrom(DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError as error:  # ENOBUFS: events came faster than they were read, and some are gone
                self.heard({EVERYTHING})
                if error.errno != errno.ENOBUFS:
                    self._lose(door, error)
                    return
            else:
                self.heard(read(datagram) if sender == 0 else ())  # 0 is the kernel

    def _lose(self, door: socket.socket, error: OSError) -> None:
        self.deaf.append(f"cannot hear of changes any more: {error.strerror}; only the timer is left")
        asyncio.get_running_loop().remove_reader(door.fileno())
        self._sockets.remove(door)
        door.close()


def _opened(family: int, groups: int) -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    door = socket.socket(socket.AF_NETLINK, kind, family)
    try:
        if family == NETLINK_ROUTE:
            _ignore_ordinary_routes(door)
        _widen(door)
        door.bind((0, groups))
    except OSError:
        door.close()
        raise
    return door


def _widen(door: socket.socket) -> None:
    try:
        door.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    except PermissionError:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)


def _ignore_ordinary_routes(door: socket.socket) -> None:
    """A classic BPF filter: on a host that speaks BGP, routes come by the thousand, and only a default one matters."""
    load_half, load_byte, is_equal, answer = 0x28, 0x30, 0x15, 0x06
    program = (
        (load_half, 0, 0, 4),  # nlmsg_type, which the filter sees in network order
        (is_equal, 1, 0, socket.htons(RTM_NEWROUTE)),
        (is_equal, 0, 2, socket.htons(RTM_DELROUTE)),
        (load_byte, 0, 0, 17),  # rtm_dst_len
        (is_equal, 0, 1, 0),
        (answer, 0, 0, 0xFFFFFFFF),
        (answer, 0, 0, 0),
    )
    # an ordinary message jumps from the third line to the sixth, an ordinary route from the fifth to the seventh
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    door.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))
