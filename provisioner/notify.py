"""What the service manager is told: READY, STATUS, STOPPING, and that we still live.

Source: sd_notify(3): datagrams of KEY=VALUE lines to the unix socket that NOTIFY_SOCKET names.
"""

import os
import socket


def notify(*lines: str) -> None:
    """Does nothing where no service manager listens, and never waits: a lost datagram is not worth a halt."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender:
        try:
            sender.sendto("\n".join(lines).encode(), address)
        except OSError:
            return


def beat() -> None:
    """The watchdog's: we still live."""
    if "WATCHDOG_USEC" in os.environ:
        notify("WATCHDOG=1")
