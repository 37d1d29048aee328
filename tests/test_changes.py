"""The kernel's word that something changed: parsed from bytes, and heard from a real kernel in a network of its own."""

import asyncio
import json
import socket
import struct
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from nodeagent import probes
from nodeagent.changes import EVERYTHING, Changes, of_rtnetlink, of_uevent

UEVENT = b"add@/devices/pci0000:00/0000:00:03.0/net/eth0\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM=net\0SEQNUM=7\0"


def message(kind, body=b"\0" * 16):
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_a_uevent_is_its_subsystem():
    assert of_uevent(UEVENT) == {"net"}


def test_what_udev_passes_on_is_not_the_kernels_word():
    assert of_uevent(b"libudev\0\xfe\xed\xca\xfe") == set()
    assert of_uevent(b"") == set()


def test_an_interface_and_an_address_make_the_links_stale():
    for kind in (16, 17, 20, 21):
        assert of_rtnetlink(message(kind)) == {"links"}
    assert of_rtnetlink(message(28)) == set()  # a neighbour


def test_of_the_routes_only_a_default_one_matters():
    assert of_rtnetlink(message(24, b"\x02\x00" + b"\0" * 10)) == {"links"}
    assert of_rtnetlink(message(24, b"\x02\x18" + b"\0" * 10)) == set()


def test_several_messages_in_one_datagram_are_all_read():
    assert of_rtnetlink(message(24, b"\x02\x18" + b"\0" * 9) + b"\0" + message(16)) == {"links"}


@given(st.binary(max_size=200))
def test_no_bytes_break_the_readers(data):
    of_uevent(data)
    of_rtnetlink(data)
    of_rtnetlink(struct.pack("=IH", len(data), 24) + data)


def test_what_is_lost_wakes_every_probe():
    assert frozenset({EVERYTHING, "net"}) >= probes.EVERYTHING


def test_a_burst_is_one_wake_up():
    async def story():
        changes = Changes(settle_s=0.01)
        for name in ("net", "pci", "net"):
            changes.heard({name})
        assert await changes.next() == {"net", "pci"}
        changes.heard({"block"})
        assert await changes.next() == {"block"}

    asyncio.run(story())


def test_what_nobody_asked_for_wakes_nobody():
    async def story():
        changes = Changes({"net"}, settle_s=0)
        changes.heard({"bdi"})
        changes.heard({EVERYTHING})
        assert await changes.next() == {EVERYTHING}

    asyncio.run(story())


class Overflown(socket.socket):
    """A socket whose kernel ran out of room once."""

    told = False

    def recvfrom(self, *_):
        if not self.told:
            self.told = True
            raise OSError(105, "No buffer space available")
        raise BlockingIOError


def test_events_that_the_kernel_dropped_make_everything_stale():
    async def story():
        changes = Changes({"net"}, settle_s=0)
        with Overflown() as door:
            changes._drain(door, of_uevent)
        assert await changes.next() == {EVERYTHING}
        assert changes.deaf == []

    asyncio.run(story())


def test_listening_is_ended_without_a_trace():
    async def story():
        changes = Changes()
        changes.listen()
        changes.close()
        assert changes._sockets == []

    asyncio.run(story())


LISTENER = """
import asyncio, json, subprocess, sys
from nodeagent import probes
from nodeagent.changes import Changes

async def hear(changes, *wanted):
    names = set()
    async with asyncio.timeout(10):
        while not names.issuperset(wanted):
            names |= await changes.next()
    return sorted(names & {"net", "links"})

async def main():
    changes = Changes({"net", "links"}, settle_s=0.05)
    changes.listen()
    heard = []
    run = lambda *words: subprocess.run(["ip", *words], check=True)
    run("link", "set", "lo", "up")
    heard.append(await hear(changes, "links"))
    run("route", "add", "10.9.9.0/24", "dev", "lo")  # must wake nobody
    run("route", "add", "default", "dev", "lo")
    heard.append(await hear(changes, "links"))
    run("route", "add", "10.9.8.0/24", "dev", "lo")
    try:
        async with asyncio.timeout(0.3):
            heard.append(sorted(await changes.next()))
    except TimeoutError:
        heard.append([])
    if subprocess.run(["ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"]).returncode == 0:
        heard.append(await hear(changes, "net", "links"))
    else:
        heard.append("this kernel has no veth")
    changes.close()
    print(json.dumps({"heard": heard, "deaf": changes.deaf}))

asyncio.run(main())
"""


def test_a_real_kernel_tells_of_interfaces_and_a_default_route_and_of_no_other_route():
    done = subprocess.run(
        ["unshare", "--net", "--map-root-user", sys.executable, "-c", LISTENER],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if "Operation not permitted" in done.stderr and "unshare" in done.stderr:
        return  # this kernel gives us no network of our own: the readers above are all that can be shown here
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["deaf"] == []
    assert answer["heard"][:3] == [["links"], ["links"], []]
    assert answer["heard"][3] in (["links", "net"], "this kernel has no veth")
