"""Signed webhooks: each event until it is taken, in order, and nothing goes anywhere else."""

import asyncio
import base64
import json
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from provisioner.config import Mqtt
from provisioner.errors import BedplateError
from provisioner.outbox.webhook import signatures
from provisioner.pki import authority, new_key
from provisioner.post import PostError, opened
from tests.outgoing import because_of, delivering, noted, settled, sinks, troubled, until
from tests.receiver import SECRET, Answer, Post, Receiver, receiving, tls_of
from tests.running import free_ports
from tests.served import Served, asked, served

pytestmark = pytest.mark.slow

Work = Callable[[Served, Receiver], Awaitable[None]]


def _run(folder: Path, work: Work, tls: Any = None) -> list[Post]:
    async def whole() -> list[Post]:
        async with asyncio.timeout(40), served(folder, [asked(1)]) as here, receiving(folder, tls) as receiver:
            await work(here, receiver)
            return receiver.posts

    return asyncio.run(whole())


def _status(code: int, **headers: str) -> Answer:
    return lambda _: web.Response(status=code, text="not <now>\nmore", headers=headers)


async def _until_delivered(here: Served, receiver: Receiver, count: int, **settings: Any) -> None:
    async with delivering(here, sinks(here, webhook=(receiver.settings(**settings),))) as outbox:
        await here.write(*(noted(number) for number in range(1, count + 1)))
        await settled(outbox)


def test_each_event_is_one_signed_post_in_order(tmp_path: Path) -> None:
    posts = _run(tmp_path, lambda here, receiver: _until_delivered(here, receiver, 150))
    assert because_of([post.body for post in posts]) == [f"event {number}" for number in range(1, 151)]
    headers, event = posts[0].headers, json.loads(posts[0].body)
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert headers["user-agent"] == "bedplate/1.2.3"
    assert headers["webhook-id"].endswith(f"-{event['id']}")
    assert headers["webhook-timestamp"] == "1800000000"
    assert len({post.headers["webhook-id"] for post in posts}) == 150


def test_a_signature_is_the_one_of_the_specification() -> None:
    """The example of the specification: the same secret, id, time and body."""
    secret = base64.b64decode(SECRET.removeprefix("whsec_"))
    signed = signatures([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("answers", "line"),
    [
        ([_status(500)], "answers 500 Internal Server Error: not <now>"),
        ([_status(410)], "answers 410 Gone: not <now>"),
        ([_status(429, **{"Retry-After": "0"})], "answers 429 Too Many Requests: not <now>"),
        ([lambda _: None], "it ended the connection without an answer"),
        (
            [_status(302, Location="http://127.0.0.1:1/elsewhere")],
            "answers 302 Found: it leads elsewhere, which is not",
        ),
    ],
)
def test_a_no_is_said_once_and_the_same_message_comes_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, answers: list[Answer], line: str
) -> None:
    caplog.set_level(logging.INFO, "provisioner")

    async def work(here: Served, receiver: Receiver) -> None:
        receiver.answers = [*answers, *answers]
        await _until_delivered(here, receiver, 2)

    posts = _run(tmp_path, work)
    assert because_of([post.body for post in posts]) == ["event 1", "event 1", "event 1", "event 2"]
    assert len({post.headers["webhook-id"] for post in posts}) == 2
    assert posts[0].body == posts[1].body
    said = [one.getMessage() for one in caplog.records if one.getMessage().startswith("webhook/pager: ")]
    assert len(said) == 2
    assert line in said[0]
    assert said[1] == "webhook/pager: events go out again"
    assert "private-part" not in caplog.text, "what only the owner of the address is to know"


def test_an_answer_that_has_other_words_each_time_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(here: Served, receiver: Receiver) -> None:
        receiver.answers = [lambda _: web.Response(status=500, text=f"error {len(receiver.posts)}")] * 3
        await _until_delivered(here, receiver, 1)

    _run(tmp_path, work)
    assert len([one for one in caplog.records if "answers 500" in one.getMessage()]) == 1


def test_a_name_that_nobody_knows_is_a_line(tmp_path: Path) -> None:
    async def work(here: Served, receiver: Receiver) -> None:
        hook = receiver.settings(url="https://nobody.invalid/")
        async with delivering(here, sinks(here, webhook=(hook,), mqtt=Mqtt(host="nobody.invalid"))) as outbox:
            await here.write(noted(1))
            await troubled(outbox)
            broker, address = (one.because for one in outbox.standing())
        assert broker.startswith("cannot reach broker nobody.invalid:8883: ")
        assert address.startswith("cannot post to nobody.invalid:443: ")

    _run(tmp_path, work)


def test_an_address_that_hangs_is_given_up_in_time_and_holds_up_nobody_else(tmp_path: Path) -> None:
    async def work(here: Served, receiver: Receiver) -> None:
        with socket.socket() as hanging:
            hanging.bind(("127.0.0.1", 0))
            hanging.listen()
            url = f"http://127.0.0.1:{hanging.getsockname()[1]}/"
            both = (receiver.settings(), receiver.settings(name="hangs", url=url, timeout_s=0.3))
            async with delivering(here, sinks(here, webhook=both)) as outbox:
                await here.write(noted(1))
                await until(outbox, lambda one: one.backlog == 0 if one.name == "webhook/pager" else not one.working)
                assert "no answer within 0.3 s; 1 event waits" in outbox.standing()[1].because

    _run(tmp_path, work)


@pytest.mark.parametrize(
    ("asked_for", "least"), [("3600", 3600.0), ("Fri, 01 Jan 2100 00:00:00 GMT", 3600.0), ("soon", None)]
)
def test_who_asks_to_be_left_alone_for_a_while_is(tmp_path: Path, asked_for: str, least: float | None) -> None:
    async def work(_: Served, receiver: Receiver) -> None:
        receiver.answers = [_status(503, **{"Retry-After": asked_for})]
        async with opened(receiver.settings()) as send:
            with pytest.raises(PostError) as caught:
                await send(b"{}", {})
        wait_s = caught.value.retry_after_s
        assert wait_s is least or (wait_s is not None and least is not None and wait_s >= least)

    _run(tmp_path, work)


def test_only_the_kinds_that_were_asked_for_are_posted_and_the_others_do_not_wait(tmp_path: Path) -> None:
    async def work(here: Served, receiver: Receiver) -> None:
        wanted = receiver.settings(kinds=("machine.silent", "machine.problem."))
        async with delivering(here, sinks(here, webhook=(wanted,))) as outbox:
            kinds = [
                "machine.changed",
                "machine.silent",
                "token.created",
                "machine.problem.appeared",
                "machine.present",
            ]
            await here.write(*(noted(number, kind) for number, kind in enumerate(kinds)))
            await settled(outbox)
            assert outbox.standing()[0].because == "it has had everything"

    assert because_of([post.body for post in _run(tmp_path, work)]) == ["event 1", "event 3"]


def test_a_kind_that_there_is_not_is_said_before_anything_is_missed(tmp_path: Path) -> None:
    async def work(here: Served, receiver: Receiver) -> None:
        with pytest.raises(BedplateError, match=r"webhook 'pager': no event's kind begins with 'machine\.slient'"):
            sinks(here, webhook=(receiver.settings(kinds=("machine.silent", "machine.slient")),))

    _run(tmp_path, work)


def test_over_tls_the_certificate_is_verified(tmp_path: Path) -> None:
    ca, ca_file = authority(new_key(), now=time.time()), str(tmp_path / "ca.pem")

    async def work(here: Served, receiver: Receiver) -> None:
        elsewhere = receiver.url.replace("127.0.0.1", "localhost")
        await _until_delivered(here, receiver, 1, ca_file=ca_file)
        for settings, line in (
            ({}, "certificate verify failed: "),
            ({"ca_file": ca_file, "url": elsewhere}, "certificate verify failed: Hostname mismatch"),
            ({"ca_file": str(tmp_path / "none")}, f"cannot use ca_file {tmp_path}/none: No such file or directory"),
            ({"ca_file": str(tmp_path / "secret")}, f"cannot use ca_file {tmp_path}/secret: no certificate in PEM"),
        ):
            async with delivering(here, sinks(here, webhook=(receiver.settings(**settings),))) as outbox:
                await here.write(noted(2))
                await troubled(outbox)
                assert line in outbox.standing()[0].because

    assert len(_run(tmp_path, work, tls_of(ca, tmp_path, time.time()))) == 1


@pytest.mark.parametrize("content", ["secret", "whsec_c2hvcnQ=", "whsec_###", ""])
def test_a_secret_that_is_none_is_named_and_never_shown(tmp_path: Path, content: str) -> None:
    async def work(here: Served, receiver: Receiver) -> None:
        settings = receiver.settings()
        (tmp_path / "secret").write_text(content)
        async with delivering(here, sinks(here, webhook=(settings,))) as outbox:
            await here.write(noted(1))
            await troubled(outbox)
            because = outbox.standing()[0].because
            assert because.startswith(f"cannot use {tmp_path}/secret: ")
            assert "c2hvcnQ" not in because

    assert _run(tmp_path, work) == []


def test_while_a_secret_is_changed_a_message_is_signed_with_both(tmp_path: Path) -> None:
    async def work(here: Served, receiver: Receiver) -> None:
        settings = receiver.settings()
        (tmp_path / "secret").write_text(f"{SECRET}\nwhsec_{'A' * 32}\n")
        async with delivering(here, sinks(here, webhook=(settings,))) as outbox:
            await here.write(noted(1))
            await settled(outbox)

    (post,) = _run(tmp_path, work)
    assert post.headers["webhook-signature"].count("v1,") == 2


def test_a_body_without_an_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    async def work(here: Served, receiver: Receiver) -> None:
        receiver.answers = [lambda _: web.Response(status=500, body=b"x" * 50_000_000)]
        await _until_delivered(here, receiver, 1)

    assert len(_run(tmp_path, work)) == 2


def test_nobody_there_is_a_line(tmp_path: Path) -> None:
    async def work(here: Served, receiver: Receiver) -> None:
        (port,) = free_ports(1)
        async with delivering(
            here, sinks(here, webhook=(receiver.settings(url=f"http://127.0.0.1:{port}/"),))
        ) as outbox:
            await here.write(noted(1))
            await troubled(outbox)
            assert outbox.standing()[0].because == (
                f"cannot post to 127.0.0.1:{port}: Connection refused; 1 event waits, and it is tried again"
            )

    _run(tmp_path, work)
