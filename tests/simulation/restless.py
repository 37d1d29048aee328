"""What comes and goes more often than anybody wants to be told: faults of the kind that `faults` has."""

from tests.simulation.fleet import Fleet
from tests.simulation.machine import Machine
from tests.simulation.site import SILENT_AFTER_S, TICK_S


def flaps(fleet: Fleet) -> None:
    machine = fleet.victim()
    for _ in range(fleet.timeline.random.randrange(2, 8)):
        fleet.timeline.after(fleet.timeline.between(0.0, 30.0), fleet.cut, machine, 0.0, 0.0)


def flicker(fleet: Fleet) -> None:
    """A problem comes and goes, more often than anybody wants to be told."""
    machine, problem = fleet.victim(), fleet.timeline.random.choice(("rdma", "disks"))
    for _ in range(fleet.timeline.random.randrange(2, 14)):
        fleet.timeline.after(fleet.timeline.between(0.0, 120.0), _turn, machine, problem)


def _turn(machine: Machine, problem: str) -> None:
    if not machine.settled:
        machine.box.turn(problem)
        machine.glance()


def swaps(fleet: Fleet) -> None:
    """What is in it changes, more often than anybody wants to be told."""
    machine = fleet.victim()
    for _ in range(fleet.timeline.random.randrange(3, 14)):
        fleet.timeline.after(fleet.timeline.between(0.0, 90.0), swap_again, machine)


def boots(fleet: Fleet) -> None:
    """It reboots as soon as it is up, again and again."""
    machine, at = fleet.victim(), 0.0
    for _ in range(fleet.timeline.random.randrange(3, 9)):
        at += fleet.timeline.between(8.0, 24.0)
        fleet.timeline.after(at, _boot, machine)


def _boot(machine: Machine) -> None:
    if machine.wire and not machine.settled:  # else it would dial more often than its manners let it
        machine.stop(politely=True)
        machine.box.reboot()
        # A boot takes longer than a word that is on its way.
        machine.timeline.after(machine.timeline.between(0.5, 3.0), machine.start)


def edge(fleet: Fleet) -> None:
    """It is away for just as long as counts as silence, and comes back, again and again."""
    machine, at = fleet.victim(), 0.0
    for _ in range(fleet.timeline.random.randrange(3, 8)):
        fleet.timeline.after(at, _away, machine)
        at += SILENT_AFTER_S + fleet.timeline.between(0.0, 2 * TICK_S)
        fleet.timeline.after(at, machine.start)
        at += fleet.timeline.between(0.0, 5.0)


def _away(machine: Machine) -> None:
    if not machine.settled:
        machine.stop(politely=True)


def swap_again(machine: Machine) -> None:
    if not machine.settled:
        machine.box.swap_a_part()
        machine.glance()


RESTLESS = ((flaps, 2), (flicker, 3), (swaps, 2), (boots, 2), (edge, 2))  # and how often
