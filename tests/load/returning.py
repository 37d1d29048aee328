"""Agents that come back: the real edge and the real session, for their back-off decides when.

python -m tests.load.returning FOLDER PORT MACHINES     answers "observe" and "settle"
"""

import asyncio
import sys
import time
from pathlib import Path

from nodeagent.host import replayed
from nodeagent.observe import scan
from tests.agents import agent, running, seen, settled
from tests.load.dials import MACHINE
from tests.load.site import machine_id
from tests.load.talk import Answer, answering


async def main(folder: Path, port: str, machines: int) -> None:
    roots, shown, made = (folder / "ca.pem").read_bytes(), scan(replayed(MACHINE)), []
    for number in range(machines):
        pem = (folder / f"{number}.pem").read_bytes()
        made.append(agent(number, machine_id(number), f"127.0.0.1:{port}", (pem, pem, roots)))
    sessions = [session for _, session in made]

    async def observe(problems: int) -> Answer:
        for number, (uplink, _) in enumerate(made):
            await uplink.observe(*seen(number, problems, shown))
        return {}

    async def settle(limit_s: float) -> Answer:
        """Until each has a stream, and all that it said is acknowledged."""
        begin = time.perf_counter()
        while not (there := settled(sessions)) and time.perf_counter() - begin < limit_s:
            await asyncio.sleep(0.1)
        sent = {"inventories": sum(one.inventories for one in sessions), "wholes": sum(one.wholes for one in sessions)}
        return {"settled": there, "seconds": time.perf_counter() - begin, **sent}

    async with running([uplink for uplink, _ in made]):
        await answering({"observe": observe, "settle": settle})


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
