"""The agent's tick: steps that fail, and what is said of them."""

import asyncio
import logging
import random
from pathlib import Path

import pytest

from bedplate.v1.snapshot_pb2 import Snapshot
from nodeagent.agent import Agent
from nodeagent.enrolment import Newcomer
from nodeagent.host import replayed
from nodeagent.identity import Identity
from nodeagent.observe import Observer
from nodeagent.session import Session
from nodeagent.uplink import Uplink
from provisioner import tokens

MACHINE = Path(__file__).parent / "machines" / "dgx2"
TOKEN = tokens.encode(tokens.mint(), ["127.0.0.1:1"], b"f" * 32)


def agent(newcomer: Newcomer) -> Agent:
    host = replayed(MACHINE)
    uplink = Uplink(Session(b"r" * 16, "0.1.0", random.Random(1)), lambda: newcomer.identity)  # noqa: S311 - jitter
    return Agent(host, Observer(host), uplink, newcomer, newcomer.have, say=lambda _: None)


async def ticked(of: Agent, count: int) -> None:
    for _ in range(count):
        await of.tick()
        if of._step is not None:
            await of._step


def test_a_step_that_breaks_is_told_once_and_is_not_tried_again_with_every_tick(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = list[int]()

    def flawed() -> Snapshot:
        attempts.append(1)
        raise ValueError("not foreseen")

    newcomer = Newcomer(tmp_path, lambda: TOKEN, "0.1.0")
    newcomer.snapshot = flawed
    with caplog.at_level(logging.WARNING, "nodeagent"):
        asyncio.run(ticked(agent(newcomer), 3))
    assert len(attempts) == 1
    assert [entry.getMessage() for entry in caplog.records] == ["cannot take Enrol(): ValueError: not foreseen"]


def test_an_attempt_that_fails_again_for_the_same_reason_is_not_told_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newcomer = Newcomer(tmp_path, lambda: TOKEN, "0.1.0")
    it = agent(newcomer)
    with caplog.at_level(logging.INFO, "nodeagent"):
        for _ in range(3):
            newcomer.put_off("", 0.0)
            asyncio.run(ticked(it, 1))
    assert [entry.getMessage() for entry in caplog.records] == [
        "cannot enrol with 127.0.0.1:1: nobody listens there; is the provisioner running?"
    ]


def test_who_was_refused_and_asks_anew_says_what_came_of_that(tmp_path: Path) -> None:
    newcomer = Newcomer(tmp_path, lambda: TOKEN, "0.1.0")
    newcomer.identity = Identity("m-1", 1, 0.0, 0.0, 0.0, "t-0", ("127.0.0.1:1",), "", "", "")
    newcomer.refused("its certificate was revoked")
    newcomer.put_off("machine m-aaaaaaaa waits for a person", 60.0)
    it = agent(newcomer)
    asyncio.run(ticked(it, 1))
    assert it.because.startswith("not connected: machine m-aaaaaaaa waits for a person; ")
