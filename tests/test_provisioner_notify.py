"""The service manager is told, and never waited for."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.notify import beat, notify


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(tmp_path / "n"))
        one.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        yield one


def test_lines_arrive_as_one_datagram(listener: socket.socket) -> None:
    notify("READY=1", "STATUS=3 present")
    assert listener.recv(1024) == b"READY=1\nSTATUS=3 present"


def test_a_service_manager_that_does_not_read_holds_nobody_up(listener: socket.socket) -> None:
    for _ in range(2000):  # far more than the kernel keeps for a socket
        notify("STATUS=" + "x" * 100)
    assert listener.recv(1024).startswith(b"STATUS=")


def test_the_watchdog_hears_of_us_only_where_there_is_one(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    beat()
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    beat()
    listener.settimeout(0)
    assert listener.recv(1024) == b"WATCHDOG=1"
    with pytest.raises(BlockingIOError):
        listener.recv(1024)
