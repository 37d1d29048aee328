"""A broker with TLS, passwords and a list of who may do what: what is wrong is one line, and disturbs nobody else."""

import asyncio
import json
import logging
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from provisioner.config import Mqtt
from provisioner.credentials import write_secret
from provisioner.pki import Authority, authority, new_key
from tests.broker import Broker, listening
from tests.outgoing import because_of, delivering, noted, settled, sinks, troubled
from tests.served import Served, asked, served

pytestmark = pytest.mark.slow

EVENTS = "bedplate/v1/events/#"
RIGHTS = "user automation\ntopic read #\nuser bedplate\ntopic write bedplate/#\n"


@dataclass
class Closed:
    """A broker that lets in who has a password, over TLS, and lets each do what it may."""

    folder: Path
    broker: Broker
    ca: Authority

    def mqtt(self, **settings: Any) -> Mqtt:
        files = {"ca_file": str(self.folder / "ca.pem"), "password_file": str(self.folder / "password")}
        return Mqtt(**{"host": "127.0.0.1", "port": self.broker.port, "username": "bedplate", **files, **settings})

    def listening(self) -> Any:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        return listening(self.broker.port, "#", username="automation", password="heard", tls_context=context)

    def allow(self, rights: str) -> None:
        (self.folder / "rights").write_text(rights)


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Closed]:
    ca = authority(new_key(), now=time.time())
    chain, key = ca.issue_server(["127.0.0.1"], now=time.time())
    for name, content in {
        "ca.pem": ca.roots_pem,
        "server.pem": chain,
        "server.key": key,
        "password": b"told\n",
    }.items():
        write_secret(tmp_path / name, content)
    for name, word in (("bedplate", "told"), ("automation", "heard")):
        (tmp_path / "passwords").touch(mode=0o600)
        subprocess.run(["mosquitto_passwd", "-b", str(tmp_path / "passwords"), name, word], check=True)
    files = {"certfile": "server.pem", "keyfile": "server.key", "password_file": "passwords", "acl_file": "rights"}
    made = Closed(tmp_path, Broker(tmp_path, "".join(f"{key} {tmp_path / name}\n" for key, name in files.items())), ca)
    made.allow(RIGHTS)
    with made.broker:
        yield made


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def _trouble(folder: Path, closed: Closed, mqtt: Mqtt) -> str:
    """What stands in the way; the fleet goes on writing meanwhile."""

    async def main() -> str:
        async with (
            asyncio.timeout(30),
            served(folder, [asked(1)]) as here,
            delivering(here, sinks(here, mqtt=mqtt)) as out,
        ):
            await here.write(noted(1))
            await troubled(out)
            await here.write(noted(2))
            (standing,) = out.standing()
            assert standing.backlog == 2
            return standing.because.removesuffix("; 2 events wait, and it is tried again")

    return asyncio.run(main())


def test_with_tls_and_a_password_events_and_states_arrive(tmp_path: Path, closed: Closed) -> None:
    async def main() -> None:
        async with (
            asyncio.timeout(30),
            served(tmp_path, [asked(1)]) as here,
            closed.listening() as heard,
            delivering(here, sinks(here, mqtt=closed.mqtt())) as outbox,
        ):
            await here.write(noted(1))
            await settled(outbox)
            await heard.until(lambda: len(heard.messages) >= 3)
        assert because_of(heard.payloads(EVENTS)) == ["event 1"]
        assert json.loads(heard.payloads("bedplate/v1/machines/m-0001/state")[0])["phase"] == "pending"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"username": "bedplat"}, "Not authorized; see mqtt.username, mqtt.password_file and the broker's list"),
        ({"ca_file": ""}, "certificate verify failed: self-signed certificate in certificate chain; see mqtt.ca_file"),
        (
            {"host": "localhost"},
            "certificate verify failed: Hostname mismatch, certificate is not valid for 'localhost'",
        ),
        ({"tls": False}, "it ended the connection at once"),
        ({"topic": "elsewhere"}, "elsewhere/v1/provisioner/state: Not authorized; see mqtt.username"),
    ],
)
def test_what_the_broker_does_not_accept_is_one_line(
    tmp_path: Path, closed: Closed, caplog: pytest.LogCaptureFixture, wrong: dict[str, Any], line: str
) -> None:
    trouble = _trouble(tmp_path, closed, closed.mqtt(**wrong))
    assert line in trouble
    assert _said(caplog) == [f"mqtt: {trouble}; events wait for it, and it is tried again"]


def test_a_password_that_others_can_read_is_not_used(tmp_path: Path, closed: Closed) -> None:
    (tmp_path / "password").chmod(0o640)
    trouble = _trouble(tmp_path, closed, closed.mqtt())
    assert trouble == f"cannot use {tmp_path}/password: others can read it; `chmod 600` it, and ask who has read it"


def test_a_file_that_is_not_there_is_named(tmp_path: Path, closed: Closed) -> None:
    assert "nowhere.pem for the broker: No such file" in _trouble(tmp_path, closed, closed.mqtt(ca_file="nowhere.pem"))


def test_a_password_is_changed_without_a_restart(
    tmp_path: Path, closed: Closed, caplog: pytest.LogCaptureFixture
) -> None:
    write_secret(tmp_path / "password", b"old")

    async def main() -> None:
        mqtt = closed.mqtt()
        async with asyncio.timeout(30), served(tmp_path, [asked(1)]) as here, closed.listening() as heard:
            async with delivering(here, sinks(here, mqtt=mqtt)) as outbox:
                await here.write(noted(1))
                await troubled(outbox)
                write_secret(tmp_path / "password", b"told")
                await settled(outbox)
            assert because_of(heard.payloads(EVENTS)) == ["event 1"]

    asyncio.run(main())
    assert "told" not in caplog.text


def test_an_event_that_is_refused_waits_and_a_state_that_is_refused_does_not_hold_it_up(
    tmp_path: Path, closed: Closed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "provisioner")

    async def main(here: Served) -> None:
        async with closed.listening() as heard, delivering(here, sinks(here, mqtt=closed.mqtt())) as outbox:
            await here.write(noted(1))
            await troubled(outbox)
            assert "refuses bedplate/v1/events/m-0001/machine/changed: Not authorized" in outbox.standing()[0].because
            closed.allow(f"{ours}topic write bedplate/v1/events/#\n")
            closed.broker.process.send_signal(1)  # type: ignore[union-attr]
            await settled(outbox)
            await heard.until(lambda: because_of(heard.payloads(EVENTS)) == ["event 1"])

    async def whole() -> None:
        async with asyncio.timeout(40), served(tmp_path, [asked(1)]) as here:
            await main(here)

    ours = "user automation\ntopic read #\nuser bedplate\ntopic write bedplate/v1/provisioner/state\n"
    closed.allow(ours)
    closed.broker.stop()
    closed.broker.start()
    asyncio.run(whole())
    states = [line for line in _said(caplog) if "the states of machines are not current there" in line]
    assert len(states) == 1
    assert "refuses bedplate/v1/machines/m-0001/state: Not authorized" in states[0]
    assert sum("refuses bedplate/v1/events" in line for line in _said(caplog)) == 1
