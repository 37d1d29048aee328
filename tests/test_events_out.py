"""From a host that falls silent to whoever wants to know, with the real programs; and the provisioner's last will."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.examples.webhook import verified
from provisioner import cloudevents
from provisioner.store import Store
from tests.broker import KEEPS, Broker, Heard, kept, listening, retained
from tests.receiver import SECRET, Post, Receiver, receiving
from tests.running import Program, Site, agent, site, toml

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "docs/examples/webhook.py"


@contextlib.contextmanager
def _listeners(folder: Path, broker: Broker, receiver: Receiver) -> Iterator[Site]:
    place = site(folder, silent_after_s=1.0)
    hook = receiver.settings()
    with place.config.open("a") as config:
        config.write("[mqtt]\n" + toml(host="127.0.0.1", port=broker.port, tls=False))
        config.write("[[webhook]]\n" + toml(name=hook.name, url=hook.url, secret_file=hook.secret_file))
    yield place


async def _watched(place: Site, kind: str) -> dict[str, object]:
    """The first of a kind that a watch on a terminal prints, from the beginning."""
    command = ["watch", "--events", "--from", "1", "-o", "cloudevents"]
    environment = {**os.environ, "XDG_CONFIG_HOME": str(place.folder / "xdg")}
    program = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "bedplate"), *command, env=environment, stdout=subprocess.PIPE
    )
    assert program.stdout
    try:
        async for line in program.stdout:
            event: dict[str, object] = json.loads(line)
            if event["type"] == f"io.bedplate.{kind}.v1":
                return event
    finally:
        program.kill()
        await program.wait()
    raise AssertionError("the watch ended")


async def _ready(program: Program, line: str) -> None:
    await asyncio.to_thread(program.wait_for, line)


def _of(kind: str, posts: list[Post]) -> list[Post]:
    return [post for post in posts if json.loads(post.body)["data"]["kind"] == kind]


@pytest.mark.slow
def test_a_host_that_falls_silent_is_told_to_a_watcher_at_a_broker_and_to_a_webhook(tmp_path: Path) -> None:
    async def main(broker: Broker) -> None:
        async with receiving(tmp_path) as receiver, listening(broker.port, "bedplate/v1/#") as heard:
            with _listeners(tmp_path, broker, receiver) as place, place.run() as provisioner:
                await _ready(provisioner, "READY=1")
                token = await asyncio.to_thread(place.token)
                with agent(tmp_path / "agent", token) as program:
                    await _ready(program, "STATUS=connected to")
                await _told(place, heard, receiver)
                shown = await asyncio.to_thread(place.bedplate, "status")
                assert "Events to    mqtt, up to revision " in shown.stdout
                assert "webhook/pager, up to revision " in shown.stdout
                provisioner.process.send_signal(signal.SIGKILL)
                await heard.until(lambda: _states(heard)[-1] == "offline")
                assert _states(heard) == ["online", "offline"]

    with Broker(tmp_path) as broker:
        asyncio.run(main(broker))


@pytest.mark.slow
def test_what_happens_while_the_broker_is_away_goes_out_though_the_provisioner_is_ended_and_killed_meanwhile(
    tmp_path: Path,
) -> None:
    async def main(broker: Broker, place: Site) -> None:
        async with listening(broker.port, "bedplate/v1/#", **kept("desk")) as before:
            with place.run() as provisioner:
                await _token_made(place, provisioner)
                await before.until(lambda: len(_tokens(before)) == 1)
                broker.stop()
                await _token_made(place, provisioner)
                assert await asyncio.to_thread(provisioner.stop) == 0
        with place.run() as provisioner:
            await _token_made(place, provisioner)
            provisioner.process.kill()
        broker.start()
        async with listening(broker.port, "bedplate/v1/#", **kept("desk")) as after:
            assert (await retained(broker.port))["bedplate/v1/provisioner/state"]["state"] == "offline"
            with place.run():
                await after.until(lambda: len(_tokens(before, after)) == 3 and _states(after)[-1:] == ["online"])
                ours = (await retained(broker.port))["bedplate/v1/provisioner/state"]
        assert (ours["state"], ours["epoch"]) == ("online", 3)
        with contextlib.closing(Store.open(tmp_path / "provisioner" / "bedplate.db")) as store:
            source = cloudevents.source_of(store.fleet)
            assert _tokens(before, after) == [cloudevents.encoded(event, source) for event in store.events()]

    with Broker(tmp_path, KEEPS.format(tmp_path)) as broker:
        place = site(tmp_path)
        with place.config.open("a") as config:
            config.write("[mqtt]\n" + toml(host="127.0.0.1", port=broker.port, tls=False))
        asyncio.run(main(broker, place))


async def _token_made(place: Site, provisioner: Program) -> None:
    await _ready(provisioner, "READY=1")
    await asyncio.to_thread(place.token)


def _tokens(*heard: Heard) -> list[bytes]:
    """What was told of tokens, in order, and once where it was the same again."""
    told = (payload for one in heard for payload in one.payloads("bedplate/v1/events/fleet/token/created"))
    return list(dict.fromkeys(told))


async def _told(place: Site, heard: Heard, receiver: Receiver) -> None:
    watched = await _watched(place, "machine.silent")
    topic = f"bedplate/v1/events/{watched['subject']}/machine/silent"
    await heard.until(lambda: bool(heard.payloads(topic)))
    assert json.loads(heard.payloads(topic)[0]) == watched
    async with asyncio.timeout(20):
        while not _of("machine.silent", receiver.posts):
            receiver.had.clear()
            await receiver.had.wait()
    (post,) = _of("machine.silent", receiver.posts)
    assert json.loads(post.body) == watched
    state = f"bedplate/v1/machines/{watched['subject']}/state"
    await heard.until(lambda: json.loads(heard.payloads(state)[-1])["phase"] == "silent")
    kinds = [json.loads(one.body)["data"]["kind"] for one in receiver.posts]
    assert kinds == ["token.created", "machine.asked", "machine.accepted", "machine.enrolled", *kinds[4:]]
    assert set(kinds[4:]) <= {"machine.present", "machine.problem.appeared", "machine.silent"}


def _states(heard: Heard) -> list[str]:
    return [json.loads(payload)["state"] for payload in heard.payloads("bedplate/v1/provisioner/state")]


def test_the_example_tells_what_is_genuine_from_what_is_not(tmp_path: Path) -> None:
    body = b'{"test": 2432232314}'
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert verified(SECRET, headers, body, 1614265330.0)
    assert not verified(SECRET, headers, body + b" ", 1614265330.0)
    assert not verified(SECRET, headers, body, 1614266330.0)
    assert not verified(f"whsec_{'A' * 32}", headers, body, 1614265330.0)
    code = EXAMPLE.read_text().partition("def verified")[2].partition("\n\n\n")[0]
    assert code in (ROOT / "docs/events.md").read_text(), "the page shows the example as it is"
    old = subprocess.run([sys.executable, str(EXAMPLE), SECRET, *headers.values()], input=body, check=False)
    assert old.returncode == 1
