"""Vitals messages that one provisioner takes in and stores on one core, beside a bare handler that drops them.

Both get the same deltas over as many mTLS streams at the same pace, in turns. How many a second one core takes is what
a message took of the processor at that pace: on a machine that others use too, the wall says nothing.
"""

import statistics

from tests.load.measure import Stage, processor_s, stage
from tests.load.talk import Asked

MACHINES, PER_S = 1000, 2000
ROUNDS, SECONDS, AIM = 3, 8.0, 0.6
SETTLE_S = 30.0


def figures() -> list[dict[str, object]]:
    with stage(MACHINES) as place, place.sink() as sink, place.crowd() as ours, place.crowd() as theirs:
        ours.ask("connect", port=place.place.port, machines=MACHINES)
        theirs.ask("connect", port=sink.ask("port")["port"], machines=MACHINES)
        _settle(ours)
        rounds = [(_bare(sink, theirs), _stored(place, ours)) for _ in range(ROUNDS)]
    bare, stored = (statistics.median(column) for column in zip(*rounds, strict=True))
    share = statistics.median(ours / theirs for theirs, ours in rounds)
    spread = ", ".join(f"{ours / theirs:.2f}" for theirs, ours in rounds)
    print(f"vitals: of a bare handler's rate, round by round: {spread}")
    name = f"vitals taken in and stored on one core, {MACHINES:,} streams, {PER_S:,}/s"
    return [
        {"name": f"{name}: share of a bare handler", "value": share, "unit": "", "aim": AIM, "ok": share >= AIM},
        {"name": f"{name}", "value": stored, "unit": "/s", "aim": None, "ok": None},
        {
            "name": "beside it: a bare grpc.aio handler that drops them",
            "value": bare,
            "unit": "/s",
            "aim": None,
            "ok": None,
        },
    ]


def _bare(sink: Asked, crowd: Asked) -> float:
    """Messages for a second of its processor time."""
    taken, spent = sink.ask("taken")["taken"], processor_s(sink.pid)
    _paced(crowd)
    return (sink.ask("taken")["taken"] - taken) / (processor_s(sink.pid) - spent)


def _stored(place: Stage, crowd: Asked) -> float:
    """Likewise, until all that was sent is acknowledged: stored."""
    spent = processor_s(place.provisioner.pid)
    sent = _paced(crowd)
    _settle(crowd)
    return sent / (processor_s(place.provisioner.pid) - spent)


def _paced(crowd: Asked) -> int:
    paced = crowd.ask("pace", per_s=PER_S, seconds=SECONDS)
    if paced["per_s"] < 0.8 * PER_S or paced["held"]:
        print(
            f"vitals: the generator sent {paced['per_s']:.0f}/s of {PER_S}, and {paced['held']} were not taken in time"
        )
    return int(paced["sent"])


def _settle(crowd: Asked) -> None:
    settled = crowd.ask("settle", limit_s=SETTLE_S)
    assert not settled["missing"], f"{settled['missing']} messages were not acknowledged within {SETTLE_S} s"
    assert not settled["lost"], f"{settled['lost']} streams broke"
