"""The other end of the wire: light machines and a person, in a thread of their own, so that a kill waits for nobody."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import grpc

from nodeagent.meeting import decode
from tests.kills.machine import Machine
from tests.kills.newcomer import Newcomer
from tests.kills.person import Person
from tests.kills.records import Records
from tests.receiver import Receiver, receiving
from tests.running import Site

MACHINES = 3


@dataclass(slots=True)
class Load:
    loop: asyncio.AbstractEventLoop
    person: Person
    machines: list[Machine]
    records: Records
    folder: Path  # of the site

    def ask(self, method: str, request: Any) -> Any:
        """As the person; from another thread."""
        done: Future[Any] = asyncio.run_coroutine_threadsafe(self.person.call(method, request), self.loop)
        return done.result(10)


@contextmanager
def load(place: Site, token: str, random: Random) -> Iterator[Load]:
    """Until the end of the block."""
    folder = place.folder / "provisioner" / "admin"
    roots, chain, key = ((folder / name).read_bytes() for name in ("ca.pem", "cert.pem", "key.pem"))
    records, main, door = Records(), f"127.0.0.1:{place.port}", f"127.0.0.1:{place.enrol_port}"
    person = Person(
        main,
        grpc.ssl_channel_credentials(roots, key, chain),
        lambda name: Newcomer(name, roots, door),
        records,
        Random(random.random()),  # noqa: S311 - a schedule
    )
    machines = [Machine(Newcomer(f"light-{n}", roots, door), decode(token), main, records) for n in range(MACHINES)]
    made = Load(asyncio.new_event_loop(), person, machines, records, place.folder)
    stop = asyncio.Event()
    thread = threading.Thread(target=_run, args=(made, stop), name="load")
    thread.start()
    try:
        yield made
    finally:
        made.loop.call_soon_threadsafe(stop.set)
        thread.join(30)


def _have_events_sent(made: Load, receiver: Receiver) -> None:
    """From the provisioner's next start on."""
    made.records.posts = receiver.posts
    hook = receiver.settings()
    with (made.folder / "provisioner.toml").open("a") as config:
        config.write(f'[[webhook]]\nname = "{hook.name}"\nurl = "{hook.url}"\nsecret_file = "{hook.secret_file}"\n')


def _run(made: Load, stop: asyncio.Event) -> None:
    async def whole() -> None:
        async with receiving(made.folder) as receiver:
            _have_events_sent(made, receiver)
            await live()

    async def live() -> None:
        tasks = [asyncio.create_task(one.live()) for one in (*made.machines, made.person)]
        end = asyncio.create_task(stop.wait())
        await asyncio.wait([*tasks, end], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                made.records.broken.append(f"the load broke: {task.exception()!r}")
            task.cancel()
        await asyncio.wait(tasks)

    try:
        made.loop.run_until_complete(whole())
    finally:
        made.loop.close()
