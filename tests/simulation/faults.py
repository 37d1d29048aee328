"""What goes wrong. Each fault is a function of the fleet, and undoes itself unless it is said that it does not."""

from collections.abc import Callable

from bedplate.v1 import fleet_pb2 as pb
from provisioner.phase import silent_at
from provisioner.world import Facts
from tests.simulation.fleet import Fleet
from tests.simulation.machine import Machine
from tests.simulation.restless import RESTLESS, swap_again
from tests.simulation.site import SILENT_AFTER_S, TICK_S

Fault = Callable[[Fleet], None]


def silence(fleet: Fleet) -> None:
    """Its cable is out for a while; neither end is told."""
    machine = fleet.victim()
    fleet.dark.add(machine)
    fleet.cut(machine, fleet.timeline.between(5.0, 40.0), fleet.timeline.between(5.0, 40.0))
    fleet.timeline.after(fleet.timeline.between(10.0, 200.0), fleet.dark.discard, machine)


def flap(fleet: Fleet) -> None:
    fleet.cut(fleet.victim(), fleet.timeline.between(0.0, 0.5), fleet.timeline.between(0.0, 0.5))


def half_open(fleet: Fleet) -> None:
    """One end hears that the stream is over long before the other."""
    sooner, later = 0.1, fleet.timeline.between(20.0, 120.0)
    fleet.cut(fleet.victim(), *((sooner, later) if fleet.timeline.chance(0.4) else (later, sooner)))


def restart(fleet: Fleet) -> None:
    machine = fleet.victim()
    machine.stop(politely=fleet.timeline.chance(0.5))
    fleet.timeline.after(fleet.timeline.between(0.0, 5.0), machine.start)


def reboot(fleet: Fleet) -> None:
    machine = fleet.victim()
    machine.stop(politely=fleet.timeline.chance(0.5))
    machine.box.reboot()
    fleet.timeline.after(fleet.timeline.between(10.0, 120.0), machine.start)


def reimage(fleet: Fleet) -> None:
    """Its key is gone, and its hardware is the same."""
    machine = fleet.victim()
    machine.stop(politely=False)
    machine.wipe()
    machine.box.reboot()
    machine.box.swap_a_part()
    fleet.timeline.after(fleet.timeline.between(10.0, 60.0), machine.start)


def swap(fleet: Fleet) -> None:
    """And now and then another one before it was asked about that one."""
    machine, timeline = fleet.victim(), fleet.timeline
    timeline.say(machine, "has another", machine.box.swap_a_part())
    if timeline.chance(0.5):
        machine.glance()
        timeline.after(timeline.between(0.0, 0.5), swap_again, machine)


def burst(fleet: Fleet) -> None:
    """It has much to say while the disk is slow: more than may be under way. Now and then some of it is refused."""
    machine, timeline = fleet.victim(), fleet.timeline
    disk_slow(fleet)
    if timeline.chance(0.5):
        timeline.after(timeline.between(0.5, 3.0), setattr, fleet.platter, "full", True)  # noqa: FBT003 - as setattr is
        timeline.after(timeline.between(3.0, 9.0), fleet.platter.empty)
    for _ in range(40):
        timeline.after(timeline.between(0.0, 6.0), _warm, machine)


def _warm(machine: Machine) -> None:
    if not machine.settled:
        machine.box.vitals.gpus["GPU-0"].celsius = machine.timeline.random.choice((40.0, 50.0, 60.0, 70.0))
        machine.glance()


def clone(fleet: Fleet) -> None:
    """For good: another box that shows the hardware of one that is there."""
    original = fleet.victim()
    other = fleet.add(f"clone-{len(fleet.machines)}", original.token)
    other.box.clone_of(original.box)
    fleet.timeline.after(fleet.timeline.between(0.0, 10.0), other.start)


def skew(fleet: Fleet) -> None:
    """For good: the host's clock is hours wrong, or right again."""
    machine = fleet.victim()
    machine.skew_s = fleet.timeline.random.choice((0.0, 7200.0, -7200.0, 300.0, -300.0))


def die(fleet: Fleet) -> None:
    """As by kill -9, just before or just after the commit that was under way."""
    fleet.kill(committed=fleet.timeline.chance(0.5) and not fleet.platter.full)
    fleet.timeline.after(fleet.timeline.between(0.0, 30.0), _live, fleet)


def _live(fleet: Fleet) -> None:
    if fleet.site is None:
        fleet.begin()


def take_over(fleet: Fleet) -> None:
    """Another provisioner on the same store; the older one does not know, and answers still."""
    if fleet.site:
        fleet.site.deaf = fleet.timeline.chance(0.5)
    fleet.begin()
    fleet.timeline.after(fleet.timeline.between(10.0, 90.0), fleet.bury)


def disk_full(fleet: Fleet) -> None:
    fleet.platter.full = True
    fleet.timeline.say("-- fault: the disk is full")
    fleet.timeline.after(fleet.timeline.between(1.0, 60.0), fleet.platter.empty)


def disk_slow(fleet: Fleet) -> None:
    if fleet.site:
        fleet.timeline.say("-- fault: the disk is slow")
        fleet.site.slow_s = fleet.timeline.between(0.5, 4.0)
        fleet.timeline.after(fleet.timeline.between(5.0, 60.0), setattr, fleet.site, "slow_s", 0.02)


def forget(fleet: Fleet) -> None:
    """Now and then while it asks for a younger certificate, or just as its silence is being written."""
    if not (known := fleet.known()) or not fleet.site:
        return
    facts, timeline = fleet.timeline.random.choice(known), fleet.timeline
    falls_silent_at, in_s = silent_at(facts, fleet.site.world, SILENT_AFTER_S), timeline.between(0.0, 1.0)
    if falls_silent_at is not None and timeline.chance(0.7):
        in_s = max(falls_silent_at - timeline.now, 0.0) + timeline.between(-0.5, TICK_S)
    elif timeline.chance(0.5):
        fleet.owner(facts).ask_younger()
    timeline.after(max(in_s, 0.0), fleet.ask, pb.ForgetMachineRequest(machine=facts.id))


def revoke(fleet: Fleet) -> None:
    """And now and then whoever was revoked gets a token of its own."""
    enrolled = [facts for facts in fleet.known() if facts.accepted_at is not None]
    if fleet.door and enrolled:
        facts = fleet.timeline.random.choice(enrolled)
        if fleet.timeline.chance(0.5):
            fleet.owner(facts).ask_younger()  # and is answered, or not, while it is revoked
        fleet.timeline.after(fleet.timeline.between(0.0, 1.0), _revoke, fleet, facts.id)
        if fleet.timeline.chance(0.7):
            fleet.timeline.after(fleet.timeline.between(0.0, 60.0), rekey, fleet, facts)


def _revoke(fleet: Fleet, machine_id: str) -> None:
    fleet.ask(pb.RevokeMachineRequest(machine=machine_id))


def rekey(fleet: Fleet, which: Facts | None = None) -> None:
    """A token for one machine alone; it may get into the wrong hands."""
    enrolled = [facts for facts in fleet.known() if facts.accepted_at is not None]
    if fleet.door and enrolled:
        facts = which or fleet.timeline.random.choice(enrolled)
        machine = fleet.owner(facts) if fleet.timeline.chance(0.8) else fleet.victim()
        machine.token = fleet.new_token(machine_id=facts.id, uses=1)


def replace(fleet: Fleet) -> None:
    """A person says that one that waits is one that is known: rightly or not."""
    waiting = [facts for facts in fleet.known() if facts.accepted_at is None]
    enrolled = [facts for facts in fleet.known() if facts.accepted_at is not None]
    if waiting and enrolled:
        newcomer = fleet.timeline.random.choice(waiting)
        named = [facts for facts in enrolled if facts.id in newcomer.waits_because]
        replaced = fleet.timeline.random.choice(named or enrolled).id
        fleet.ask(pb.AcceptMachineRequest(machine=newcomer.id, replaces=replaced))


def accept(fleet: Fleet) -> None:
    """All that wait, at once."""
    for facts in fleet.known():
        if facts.accepted_at is None:
            fleet.ask(pb.AcceptMachineRequest(machine=facts.id))


def token(fleet: Fleet) -> None:
    machine = fleet.victim()
    uses, ttl_s = fleet.timeline.random.choice((0, 0, 1, 2)), fleet.timeline.random.choice((86400.0, 300.0, 30.0))
    machine.token = fleet.new_token(review=fleet.timeline.chance(0.5), uses=uses, ttl_s=ttl_s)


def end_token(fleet: Fleet) -> None:
    """A person revokes the token that a host comes in by, about as it does so."""
    machine, timeline = fleet.victim(), fleet.timeline
    if timeline.chance(0.5):
        disk_slow(fleet)
    machine.stop(politely=False)
    machine.wipe()
    timeline.after(timeline.between(0.0, 1.0), machine.start)
    timeline.after(timeline.between(0.0, 6.0), _end_token, fleet, machine.token[0])


def _end_token(fleet: Fleet, token_id: str) -> None:
    if fleet.door:
        fleet.door.end_token(token_id)


def sink_away(fleet: Fleet) -> None:
    """Where events go to is gone for a while."""
    if fleet.sinks:
        sink = fleet.timeline.random.choice(fleet.sinks)
        fleet.timeline.say("-- fault:", sink.name)
        sink.away = True
        fleet.timeline.after(fleet.timeline.between(1.0, 120.0), sink.comes_back)


def reader_cut(fleet: Fleet) -> None:
    for reader in fleet.readers:
        fleet.timeline.say("-- fault:", reader)
        reader.cut()


def reader_stuck(fleet: Fleet) -> None:
    """It reads nothing for a while, and is cut off where that is long."""
    if fleet.readers:
        reader = fleet.timeline.random.choice(fleet.readers)
        fleet.timeline.say("-- fault:", reader)
        reader.stuck_until = fleet.timeline.now + fleet.timeline.between(1.0, 120.0)


def loss(fleet: Fleet) -> None:
    fleet.timeline.say("-- fault: calls are lost")
    fleet.loss = fleet.timeline.between(0.1, 0.6)
    fleet.timeline.after(fleet.timeline.between(10.0, 100.0), setattr, fleet, "loss", 0.0)


TABLE: tuple[tuple[Fault, int], ...] = (  # and how often, against each other
    (silence, 6),
    (flap, 5),
    (half_open, 5),
    (restart, 5),
    (reboot, 4),
    (reimage, 2),
    (swap, 4),
    (burst, 1),
    (clone, 2),
    (skew, 2),
    (die, 5),
    (take_over, 2),
    (disk_full, 3),
    (disk_slow, 3),
    (forget, 3),
    (revoke, 3),
    (rekey, 2),
    (replace, 3),
    (accept, 4),
    (token, 2),
    (loss, 2),
    (sink_away, 3),
    (reader_cut, 2),
    (reader_stuck, 3),
    *RESTLESS,
    (end_token, 2),
)


def schedule(fleet: Fleet, seconds: float, each_s: float) -> None:
    """Faults over that time, one in `each_s` on average."""
    faults, weights = zip(*TABLE, strict=True)
    at = fleet.timeline.random.expovariate(1 / each_s)
    while at < seconds:
        fleet.timeline.after(at, fleet.timeline.random.choices(faults, weights)[0], fleet)
        at += fleet.timeline.random.expovariate(1 / each_s)
