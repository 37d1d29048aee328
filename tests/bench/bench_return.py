"""The provisioner is killed with two thousand machines connected: how long until all are back, and all is stored.

The agents' edges and sessions are the real ones, with a captured machine's inventory and vitals. What they notice while
nobody hears them has to arrive, and nothing that was stored may be sent again.
"""

import time

from tests.load.measure import HERE, THERE, stage
from tests.load.talk import asked, on
from tests.running import Site

MACHINES, LIMIT_S = 2000, 120.0
MOST_S = 30.0


def figures() -> list[dict[str, object]]:
    with stage(MACHINES) as place:
        arguments = (str(place.certificates), str(place.place.port), str(MACHINES))
        with asked("tests.load.returning", *arguments, core=THERE) as agents:
            agents.ask("observe", problems=1)
            before = agents.ask("settle", limit_s=LIMIT_S)
            assert before["settled"], "they did not all connect"
            place.provisioner.process.kill()
            begin = time.perf_counter()
            place.provisioner.process.wait()
            agents.tell("observe", problems=2)
            with on(HERE):
                again = place.place.run()
            with again as provisioner:
                agents.answer()
                after = agents.ask("settle", limit_s=LIMIT_S)
                seconds = time.perf_counter() - begin
                assert after["settled"], provisioner.text()
                lost = _lost(place.place)
    resent = sum(after[kind] - before[kind] for kind in ("inventories", "wholes"))
    name = f"provisioner killed with {MACHINES:,} machines connected"
    back, ok = f"{name}: until all are back, and stored", seconds <= MOST_S
    return [
        {"name": back, "value": seconds, "unit": "s", "aim": MOST_S, "ok": ok},
        {"name": f"{name}: machines of which something is lost", "value": lost, "unit": "", "aim": 0, "ok": not lost},
        {"name": f"{name}: full snapshots sent again", "value": resent, "unit": "", "aim": 0, "ok": not resent},
    ]


def _lost(place: Site) -> int:
    """Machines that are not there, or without the problem that they have had since."""
    return MACHINES - sum(one["phase"] == "PHASE_PRESENT" and one["problem_count"] == 2 for one in place.machines())
