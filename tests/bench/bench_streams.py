"""What connected machines cost the provisioner: memory for each, and the processor time of ten thousand that are quiet.

Memory is what it grows by while 2,000 connect, tell all their vitals and a few deltas; beside it what the same streams
take in a bare `grpc.aio` server. Quiet machines hold their streams, ping as agents do, and give a sign of life each
five minutes.
"""

from tests.load.measure import Stage, processor_s, pss_kib, stage
from tests.load.talk import Asked
from tests.running import PAUSE

CONNECTED, QUIET = 2000, 10_000
MOST_KIB, MOST_PERCENT = 150.0, 12.0
SIGN_EACH_S = 300.0
WATCH_S = 30.0


def figures() -> list[dict[str, object]]:
    with stage(QUIET) as place, place.crowd() as crowd:
        with place.sink() as sink, place.crowd() as theirs:
            bare = _memory(sink.pid, theirs, sink.ask("port")["port"])
        ours = _memory(place.provisioner.pid, crowd, place.place.port)
        crowd.ask("connect", port=place.place.port, machines=QUIET - CONNECTED)
        crowd.ask("settle", limit_s=30.0)
        PAUSE.wait(10)  # what connecting brought along is over
        percent = _quiet(place, crowd)
    memory = f"memory of the provisioner for each connected machine, at {CONNECTED:,}"
    beside = "beside it: for each stream of a bare grpc.aio server"
    quiet = f"{QUIET:,} quiet machines connected: the provisioner's processor"
    return [
        {"name": memory, "value": ours, "unit": "KiB", "aim": MOST_KIB, "ok": ours <= MOST_KIB},
        {"name": beside, "value": bare, "unit": "KiB", "aim": None, "ok": None},
        {"name": quiet, "value": percent, "unit": "% of a core", "aim": MOST_PERCENT, "ok": percent <= MOST_PERCENT},
    ]


def _memory(pid: int, crowd: Asked, port: int) -> float:
    before = pss_kib(pid)
    crowd.ask("connect", port=port, machines=CONNECTED)
    crowd.ask("pace", per_s=CONNECTED / 4, seconds=12.0)
    PAUSE.wait(3)
    return (pss_kib(pid) - before) / CONNECTED


def _quiet(place: Stage, crowd: Asked) -> float:
    spent = processor_s(place.provisioner.pid)
    crowd.ask("pace", per_s=QUIET / SIGN_EACH_S, seconds=WATCH_S)
    percent = 100 * (processor_s(place.provisioner.pid) - spent) / WATCH_S
    lost = crowd.ask("settle", limit_s=15.0)["lost"]
    assert not lost, f"{lost} streams broke"
    return percent
