"""What a fault of each kind does to a machine: from its beginning until it is over.

Rule: each comes in by a door that a real machine has, too: power, cable, clock, hardware, disk. What the agent makes of
it is its own affair.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Protocol

from nodeagent.schedule import CHURN, Fault
from nodeagent.simulate.machine import Machine

FLAPS = (2, 6)
FLICKERS = 6
STOPPING = "the agent is stopping: SIGTERM"
SKEWS_S = (-7200.0, -3600.0, 3600.0, 7200.0, 86400.0)


class Scene(Protocol):
    """Where a fault happens."""

    @property
    def machine(self) -> Machine: ...
    def say(self, fault: Fault, sentence: str, /) -> None: ...
    def another(self, suffix: str, /) -> Machine:
        """A machine of the same model beside this one, not powered on."""

    def take_away(self) -> None:
        """For good: another machine stands in its place from now on, not powered on."""

    async def until(self, at_s: float, /) -> None:
        """That second of the schedule."""


Play = Callable[[Scene, Fault], Awaitable[None]]


async def silence(scene: Scene, fault: Fault) -> None:
    scene.say(fault, "falls silent: its cable is out")
    if cable := scene.machine.cable:
        cable.pull_out()
        await scene.until(fault.over_s)
        cable.plug_in()


async def mute(scene: Scene, fault: Fault) -> None:
    scene.say(fault, "goes mute: its connection stands, and nothing comes through")
    if cable := scene.machine.cable:
        cable.mute()
        await scene.until(fault.over_s)
        cable.plug_in()


async def flap(scene: Scene, fault: Fault) -> None:
    random = Random(fault.roll)  # noqa: S311 - a simulation
    moments = sorted(random.uniform(fault.at_s, fault.over_s) for _ in range(random.randint(*FLAPS)))
    scene.say(fault, f"drops its link {len(moments)} times")
    for moment in moments:
        await scene.until(moment)
        if cable := scene.machine.cable:
            cable.drop()


async def reboot(scene: Scene, fault: Fault) -> None:
    machine = scene.machine
    scene.say(fault, "reboots")
    await machine.power_off(STOPPING)
    await scene.until(fault.over_s)
    machine.box.reboot(machine.clock())
    machine.power_on()


async def reimage(scene: Scene, fault: Fault) -> None:
    machine = scene.machine
    scene.say(fault, "is imaged anew: its key is gone, and it asks to enrol")
    await machine.power_off()
    machine.wipe()
    await scene.until(fault.over_s)
    machine.box.reimage(machine.clock())
    machine.power_on()


async def clone(scene: Scene, fault: Fault) -> None:
    machine, other = scene.machine, scene.another("clone")
    scene.say(fault, f"has its disk copied: {other.name} runs with the same key")
    other.box.image_of(machine.box, hostname=True)
    other.wipe()
    await asyncio.to_thread(shutil.copytree, machine.folder, other.folder, symlinks=True)
    await _beside(scene, fault, other)


async def twin(scene: Scene, fault: Fault) -> None:
    machine, other = scene.machine, scene.another("twin")
    scene.say(fault, f"has its image copied: {other.name} comes up with the same machine-id")
    other.box.image_of(machine.box, hostname=False)
    await _beside(scene, fault, other)


async def _beside(scene: Scene, fault: Fault, other: Machine) -> None:
    other.power_on()
    await scene.until(fault.over_s)
    await other.power_off(STOPPING)


async def skew(scene: Scene, fault: Fault) -> None:
    """Told with the next stream: the link drops for a moment each time the clock jumps."""
    machine, off_s = scene.machine, SKEWS_S[fault.roll % len(SKEWS_S)]
    scene.say(fault, f"has its clock {abs(off_s) / 3600:g} h {'behind' if off_s < 0 else 'ahead'}")
    for skew_s in (off_s, 0.0):
        machine.skew_s = skew_s
        if machine.cable:
            machine.cable.drop()
        await scene.until(fault.over_s)


async def swap(scene: Scene, fault: Fault) -> None:
    machine = scene.machine
    what = machine.box.swap(fault.roll)
    scene.say(fault, f"is powered off: it gets another {what}")
    await machine.power_off(STOPPING)
    await scene.until(fault.over_s)
    machine.box.reboot(machine.clock())
    machine.power_on()


async def problem(scene: Scene, fault: Fault) -> None:
    box = scene.machine.box
    scene.say(fault, f"has a problem: {box.fail(fault.roll)}")
    await scene.until(fault.over_s)
    box.mend()


async def flicker(scene: Scene, fault: Fault) -> None:
    box, each_s = scene.machine.box, fault.for_s / (2 * FLICKERS)
    scene.say(fault, f"has a problem that comes and goes {FLICKERS} times: {box.fail(fault.roll)}")
    for turn in range(FLICKERS):
        box.fail(fault.roll)
        await scene.until(fault.at_s + each_s * (2 * turn + 1))
        box.mend()
        await scene.until(fault.at_s + each_s * (2 * turn + 2))


async def leave(scene: Scene, fault: Fault) -> None:
    gone = scene.machine
    scene.take_away()
    scene.say(fault, f"leaves for good; {scene.machine.name} takes its place")
    await gone.power_off("the machine is taken out of the rack")
    if gone.cable:
        gone.cable.close()
    await scene.until(fault.over_s)
    scene.machine.power_on()


PLAYS: Mapping[str, Play] = {
    play.__name__: play for play in (silence, mute, flap, reboot, reimage, clone, twin, skew, swap, problem, flicker)
} | {CHURN: leave}
CABLE = frozenset({"silence", "mute", "flap", "skew"})  # kinds that take one
