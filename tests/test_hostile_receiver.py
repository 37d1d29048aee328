"""An address that is posted to and means ill: bounded in time and memory, said in a line, and nobody else notices."""

import asyncio
import tracemalloc
from pathlib import Path

import pytest

from bedplate.v1.fleet_pb2 import ListMachinesRequest
from provisioner import post
from provisioner.config import Webhook
from tests.hostile import Says, endless, meeting, once
from tests.outgoing import delivering, fleet, noted, sinks
from tests.receiver import receiving
from tests.served import present

pytestmark = pytest.mark.slow
OK, NO = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 500 Broken\r\n"
PATIENCE_S = 1.0
MOST = 8 << 20  # bytes that an answer may take, whatever it is

DOES: dict[str, tuple[Says, str]] = {
    "says nothing": (once(b""), "no answer within 1 s"),
    "says a status, letter by letter": (endless(b"a", first=b"HTTP/1.1 500 ", every_s=0.02), "no answer within 1 s"),
    "says headers, one by one": (endless(b"X: a\r\n", first=OK, every_s=0.02), "no answer within 1 s"),
    "says a body, letter by letter": (
        endless(b"1\r\na\r\n", first=NO + b"Transfer-Encoding: chunked\r\n\r\n", every_s=0.02),
        "answers 500 Broken: a",
    ),
    "says a body without end": (endless(bytes(1 << 16), first=NO + b"\r\n"), "answers 500 Broken"),
    "says one header without end": (endless(bytes([97]) * (1 << 16), first=OK + b"X: "), "what it answers is not HTTP"),
    "says headers without end": (
        endless(b"X: a\r\n" * 1000, first=OK),
        "what it answers is not HTTP: Too many headers",
    ),
    "says for ever that one may go on": (endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 20), "no answer within 1 s"),
    "leads to itself": (
        once(b"HTTP/1.1 307 Again\r\nLocation: /private\r\nContent-Length: 0\r\n\r\n"),
        "answers 307 Again: it leads elsewhere, which is not followed",
    ),
    "speaks something else": (once(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"), "what it answers is not HTTP: Bad status line"),
    "commands a terminal": (
        once(b"HTTP/1.1 500 \x1b[2J\r\nContent-Length: 5\r\n\r\n\x1b[31m"),
        "answers 500 \ufffd[2J: \ufffd[31m",
    ),
}


@pytest.mark.parametrize("does", DOES)
def test_whatever_it_answers_is_over_soon_small_and_a_line_without_the_private_part_of_the_address(does: str) -> None:
    say, because = DOES[does]

    async def whole() -> str:
        async with meeting(say) as (port, _):
            url = f"http://127.0.0.1:{port}/private"
            async with post.opened(Webhook("pager", url, "/s", timeout_s=PATIENCE_S)) as send:
                tracemalloc.start()
                try:
                    with pytest.raises(post.PostError) as told:
                        await send(b"{}", {})
                    assert tracemalloc.get_traced_memory()[1] < MOST
                finally:
                    tracemalloc.stop()
        return str(told.value)

    line = asyncio.run(whole())
    assert because in line, line
    assert line.isprintable()
    assert "private" not in line


@pytest.mark.parametrize("does", ["says a body without end", "says for ever that one may go on"])
def test_one_that_talks_without_end_takes_nobody_s_turn(tmp_path: Path, does: str) -> None:
    async def whole() -> None:
        async with (
            fleet(tmp_path, *present(1)) as here,
            receiving(tmp_path) as good,
            meeting(DOES[does][0]) as (port, came),
        ):
            bad = good.settings(name="bad", url=f"http://127.0.0.1:{port}/private")
            async with delivering(here, sinks(here, webhook=(bad, good.settings()))):
                await here.write(*(noted(number) for number in range(20)))
                while not came:  # noqa: ASYNC110 - as people look
                    await asyncio.sleep(0.01)
                answer = await here.stub().ListMachines(ListMachinesRequest(), timeout=10)
                assert [one.machine_id for one in answer.machines] == ["m-0001"]
                async with asyncio.timeout(20):
                    while len(good.posts) < 20:
                        good.had.clear()
                        await good.had.wait()

    asyncio.run(whole())
