"""One seed, from an empty store to a fleet that is well again."""

from dataclasses import dataclass

from bedplate.v1.snapshot_pb2 import Vitals
from nodeagent.deadband import moved
from provisioner.service.writes import clash
from provisioner.world import Facts
from tests.simulation import faults
from tests.simulation.broken import BrokenError, hold
from tests.simulation.fleet import Fleet
from tests.simulation.machine import Machine
from tests.simulation.timeline import START

WELL_AGAIN_S = 2400.0  # two and a half lives of a certificate: a clock that jumped costs one
LOOK_S = 20.0


@dataclass(frozen=True, slots=True)
class Outcome:
    seed: int
    broken: str  # empty: every invariant held
    happened: int  # events
    virtual_s: float
    lines: list[str]


def run(seed: int, *, lines: bool = False) -> Outcome:
    """`lines`: with the log as text."""
    fleet = Fleet(seed)
    broken = ""
    try:
        _live(fleet)
    except BrokenError as error:
        broken = str(error)
    except Exception as error:  # noqa: BLE001 - what the logic raises is as bad as an invariant that does not hold
        broken = repr(error)
    finally:
        fleet.end()
    timeline = fleet.timeline
    text = timeline.text() if lines else []
    return Outcome(seed, broken, timeline.happened, timeline.now - START, text)


def _live(fleet: Fleet) -> None:
    timeline = fleet.timeline
    troubled_s = timeline.between(100.0, 600.0)
    faults.schedule(fleet, troubled_s, timeline.random.choice((5.0, 15.0, 40.0)))
    timeline.run_until(START + troubled_s)
    _heal(fleet)
    until = timeline.now + WELL_AGAIN_S
    while unwell := _unwell(fleet):
        hold(timeline.now < until, "no fault for", int(WELL_AGAIN_S), "s, and still:", unwell)
        fleet.tidy()
        timeline.run_until(timeline.now + LOOK_S)
    if fleet.site:
        fleet.invariants.loaded(fleet.site.world)


def _heal(fleet: Fleet) -> None:
    """No fault any more. What is for good stays: clones, clocks that are wrong."""
    fleet.timeline.say("-- no more faults")
    fleet.loss, fleet.platter.full = 0.0, False
    fleet.dark.clear()
    fleet.bury()
    if fleet.site is None:
        fleet.begin()
    for sink in fleet.sinks:
        sink.away = False
    for reader in fleet.readers:
        reader.stuck_until = 0.0
    for machine in fleet.machines:
        machine.settled = True
        machine.start()


def _unwell(fleet: Fleet) -> str:
    """What is not as it should be in the end; the first thing."""
    for machine in fleet.machines:
        if why := _unwell_box(fleet, machine):
            return f"{machine}: {why}"
    for facts in fleet.known():
        if fleet.gone(facts):
            return f"{facts.id} is nobody any more"
        if facts.accepted_at is not None and not fleet.site.world.connected(facts):
            return f"{facts.id} is let in, and not there"
    lacks = (fleet.invariants.outward.lacks(reader, reader.model) for reader in fleet.readers)
    return fleet.invariants.outward.behind() or next(filter(None, lacks), "")


def _unwell_box(fleet: Fleet, machine: Machine) -> str:
    world = fleet.site.world
    facts = world.machines.get(machine.identity.machine_id) if machine.identity else None
    if facts is None or facts.forgotten_at is not None or facts.incarnation != machine.identity.certificate.incarnation:
        waiting = [one for one in world.known if one.key_sha256 in machine.waiting()]
        stands_back = bool(waiting) and waiting[0].accepted_at is None and bool(clash(waiting[0], world))
        return "" if stands_back else f"has no name: {machine.last or machine.refused}"
    if not world.connected(facts):
        return f"is not connected: {machine.session.because}"
    return _differs(fleet, machine, facts)


def _differs(fleet: Fleet, machine: Machine, facts: Facts) -> str:
    row = fleet.platter.rows.get(facts.id)
    if row is None or row.run_id != machine.session.run_id:
        return "nothing of this run is stored"
    changed, gone = moved(Vitals.FromString(row.vitals), machine.box.vitals)
    if gone or changed != Vitals():
        return f"its vitals are not those that are stored: {gone or changed}"
    if facts.inventory_digest != machine.box.digest:
        return "its inventory is not the one that is stored"
    if facts.problem_count != len(machine.box.problems):
        return "its problems are not those that are stored"
    if facts.silent_noted:
        return "it is there, and noted as silent"
    invariants = fleet.invariants
    return invariants.swings.unsaid(facts.id) or invariants.oracle.told_wrongly(facts.id, machine.box.problems)
