"""Thousands call at once: each is answered, or told when to come back and answered then; none is refused at random."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from bedplate.v1.fleet_pb2 import ListMachinesRequest
from bedplate.v1.uplink_pb2 import Hello, SessionRequest
from tests.crowd import crowded, founded, known, names
from tests.enrolment_desk import asking, minted_in
from tests.served import details

RUN = b"r" * 16
pytestmark = pytest.mark.slow


async def _in_the_end(call: Callable[[], Awaitable[Any]], outcomes: Counter[str]) -> Any:
    """The answer, however often it is told to come back."""
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            told = details(error).get("RetryInfo")
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED or told is None:
                outcomes[f"{error.code().name}: {error.details()}"] += 1
                raise
            outcomes["told when to come back"] += 1
            assert isinstance(told, error_details_pb2.RetryInfo)
            assert 0.5 < told.retry_delay.ToTimedelta().total_seconds() < 60
            await asyncio.sleep(told.retry_delay.ToTimedelta().total_seconds())


async def _stream(stub: Any) -> Any:
    call = stub.Session()
    await call.write(SessionRequest(hello=Hello(run_id=RUN)))
    answer = await call.read()
    if answer is grpc.aio.EOF:
        code, line = await call.code(), await call.details()
        raise AssertionError(f"{code}: {line}")
    return answer


@pytest.mark.timeout(180)
def test_three_thousand_calls_at_once_are_answered_or_told_when_to_come_back(tmp_path: Path) -> None:
    machines = names(500)
    crowd = founded(tmp_path, known(machines))
    outcomes: Counter[str] = Counter()

    async def main() -> None:
        async with crowded(crowd) as running:
            token = await minted_in(running.fleet, uses=0)
            people = [crowd.person() for _ in range(10)]
            calls: list[Callable[[], Awaitable[Any]]] = [
                *(partial(people[number % 10].ListMachines, ListMachinesRequest()) for number in range(1500)),
                *(partial(crowd.stranger().Enrol, asking(token)) for _ in range(1000)),
                *(partial(_stream, crowd.machine(name)) for name in machines),
            ]
            answers = await asyncio.gather(*(_in_the_end(call, outcomes) for call in calls))
            assert len(answers) == 3000
            assert sum(answer.HasField("credentials") for answer in answers[1500:2500]) == 1000
            assert sum(answer.HasField("welcome") for answer in answers[2500:]) == 500
            assert len(running.fleet.world.known) == 1500, "each key is one machine"

    asyncio.run(main())
    assert set(outcomes) <= {"told when to come back"}
