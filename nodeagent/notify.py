"""What systemd is told: that the agent is ready, what it is doing, that it is alive, that it ends.

Rule 1: where nobody listens (no NOTIFY_SOCKET, or a socket that is gone), nothing happens: telling is never a failure.
Rule 2: a status is sent when it changes.
"""

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class Notify:
    """One for the life of the process. `address` is NOTIFY_SOCKET's value: a path, or @name in the abstract space."""

    address: str = ""
    _status: str = ""

    def ready(self, status: str) -> None:
        """Start-up, or a reload, is done."""
        self._status = _line(status)
        self._send(f"READY=1\nSTATUS={self._status}")

    def status(self, sentence: str) -> None:
        if _line(sentence) != self._status:
            self._status = _line(sentence)
            self._send(f"STATUS={self._status}")

    def watchdog(self) -> None:
        """The tick went round."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """A reload began; `ready` ends it. For Type=notify-reload the time must be there."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, because: str) -> None:
        self._status = _line(because)
        self._send(f"STOPPING=1\nSTATUS={self._status}")

    def _send(self, text: str) -> None:
        if self.address[:1] not in ("/", "@"):
            return
        address = self.address.replace("@", "\0", 1) if self.address.startswith("@") else self.address
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            with socket.socket(socket.AF_UNIX, kind) as door:
                door.sendto(text.encode("utf-8", "backslashreplace"), address)
        except OSError:
            pass  # rule 1


def from_environment(environment: Mapping[str, str] = os.environ) -> Notify:
    return Notify(environment.get("NOTIFY_SOCKET", ""))


def watchdog_interval_s(environment: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """How often to call `watchdog`: half of what systemd waits for; None where it does not wait for this process."""
    usec, whose = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0:
        return None
    if whose and whose != str(os.getpid() if pid is None else pid):
        return None
    return int(usec) / 2e6


def _line(sentence: str) -> str:
    """One line, for STATUS ends where the line ends."""
    return " ".join(sentence.split())
