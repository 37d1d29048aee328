"""What systemd is told: that the agent is ready, what it is doing, that it lives, that it ends.

Rule: where nobody listens nothing happens; a lost datagram is not worth an error, and a busy systemd delays nobody.

Source: sd_notify(3): datagrams of KEY=VALUE lines to the unix socket that NOTIFY_SOCKET names.
"""

import os
import re
import socket
import time
from collections.abc import Mapping


def notify(*lines: str, environment: Mapping[str, str] = os.environ) -> None:
    """Lines such as "READY=1", "STATUS=connected", "WATCHDOG=1". RELOADING=1 gets the time that systemd asks for."""
    path = environment.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return
    if "RELOADING=1" in lines:
        lines = (*lines, f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
    text = "\n".join(" ".join(line.split()) for line in lines)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender:
        try:
            sender.sendto(text.encode("utf-8", "backslashreplace"), "\0" + path[1:] if path[0] == "@" else path)
        except OSError:
            return


def watchdog_interval_s(environment: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """How often to say WATCHDOG=1: half of what systemd waits; None where it does not wait for this process."""
    usec, whose = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not re.fullmatch("[0-9]{1,18}", usec) or int(usec) == 0:
        return None
    if whose and whose != str(os.getpid() if pid is None else pid):
        return None
    return int(usec) / 2e6
