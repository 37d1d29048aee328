"""Full snapshots that the provisioner takes in and stores, beside a bare `grpc.aio` unary sink of the same bytes.

A full snapshot is what a machine tells that nobody knows: all its vitals, and an inventory that was asked for. Both are
sent as fast as they are taken, in turns, and compared by what one took of the processor.
"""

import statistics

from tests.load.measure import Stage, processor_s, stage
from tests.load.talk import Asked

MACHINES, SECONDS, ROUNDS = 50, 6.0, 3
AIM = 0.5
FAST = {"machine_messages_per_s": 1e6, "machine_bytes_per_s": 1e9}  # fifty machines stand for thousands


def figures() -> list[dict[str, object]]:
    with stage(MACHINES, **FAST) as place, place.sink() as sink, place.crowd() as crowd:
        port = sink.ask("port")["port"]
        crowd.ask("connect", port=place.place.port, machines=MACHINES)
        rounds = [(_bare(sink, crowd, port), _stored(place, crowd)) for _ in range(ROUNDS)]
    bare, stored = (statistics.median(column) for column in zip(*rounds, strict=True))
    share = statistics.median(ours / theirs for theirs, ours in rounds)
    print(f"snapshots: of a bare sink's rate, round by round: {', '.join(f'{b / a:.2f}' for a, b in rounds)}")
    name, beside = "full snapshots of 40 kB taken in and stored", "beside it: a bare grpc.aio unary sink of those bytes"
    return [
        {"name": f"{name}: share of a bare sink", "value": share, "unit": "", "aim": AIM, "ok": share >= AIM},
        {"name": name, "value": stored, "unit": "/s", "aim": None, "ok": None},
        {"name": beside, "value": bare, "unit": "/s", "aim": None, "ok": None},
    ]


def _bare(sink: Asked, crowd: Asked, port: int) -> float:
    """For a second of its processor time."""
    spent = processor_s(sink.pid)
    sent = crowd.ask("unary", port=port, machines=MACHINES, seconds=SECONDS)["sent"]
    return float(sent) / (processor_s(sink.pid) - spent)


def _stored(place: Stage, crowd: Asked) -> float:
    spent = processor_s(place.provisioner.pid)
    sent = crowd.ask("snapshots", seconds=SECONDS)["sent"]
    settled = crowd.ask("settle", limit_s=40.0)
    assert settled == {"missing": 0, "lost": 0}, settled
    return float(sent) / (processor_s(place.provisioner.pid) - spent)
