"""One seed: a site is made, put under load, and its programs are killed one time after another."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Event

import grpc

from bedplate.v1 import fleet_pb2 as pb
from nodeagent import identity
from tests import running
from tests.kills import lying, moments
from tests.kills.load import Load, load
from tests.running import Program, Site

HOST = Path(__file__).parents[1] / "machines/vm"
HOSTNAME = "hb78b55cfa"  # of that captured machine
PROGRAMS = ("provisioner", "agent")
VICTIMS = (("provisioner",), ("provisioner",), ("agent",), ("agent", "provisioner"))
OF_STARTS = 0.35  # of kills, that come in the middle of a start
START_S = 0.9  # of one start, roughly
BACK_S = 20.0
LIFE_S = 5.0  # of a certificate: the agent renews at three quarters
CLEAR = Event()


@dataclass(frozen=True, slots=True)
class Outcome:
    seed: int
    kills: int
    broken: tuple[str, ...]
    log: tuple[str, ...]


@dataclass(slots=True)
class Run:
    place: Site
    random: Random
    socket: Path
    up: dict[str, Program] = field(default_factory=dict)
    stacks: dict[str, contextlib.ExitStack] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    who: identity.Identity | None = None
    epoch: int = 0  # of the last provisioner that served

    def folder(self, name: str) -> Path:
        """Of its state."""
        return self.place.folder / ("agent/state" if name == "agent" else "provisioner")

    def begin(self, name: str) -> Program:
        if name not in self.up:
            self.stacks[name] = contextlib.ExitStack()
            program = self.place.run() if name == "provisioner" else self._agent()
            self.up[name] = self.stacks[name].enter_context(program)
        return self.up[name]

    def _agent(self) -> contextlib.AbstractContextManager[Program]:
        folder, words = self.place.folder / "agent", {"root": HOST, "tick_s": 0.2, "socket": self.socket}
        return running.agent(folder, self.place.folder / "join-token", **words)

    def kill(self, name: str, *, with_children: bool) -> None:
        program = self.up.pop(name)
        left = moments.children(program.pid)
        program.process.kill()
        for pid in left if with_children else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        program.process.wait()
        self.stacks.pop(name).close()
        running.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left))

    def end(self) -> None:
        """With what they started, which would write on into a folder that is being taken away."""
        for name in list(self.up):
            self.kill(name, with_children=True)


def run(seed: int, kills: int) -> Outcome:
    """That many kills, and everything that holds after each."""
    random = Random(seed)  # noqa: S311 - a schedule
    with tempfile.TemporaryDirectory(prefix="bpk") as folder:
        place, born = _born(Path(folder), random)
        run_ = Run(place, random, Path(folder) / "s")
        try:
            broken = _killed(run_, kills - born)
        except (AssertionError, grpc.RpcError) as error:
            broken = [f"after {run_.log[-1:]}: {error}"]
        finally:
            run_.end()
    return Outcome(seed, kills, tuple(broken), tuple(run_.log))


def _born(folder: Path, random: Random) -> tuple[Site, int]:
    """A site whose `provisioner init` was killed a few times, and how often."""
    place = running.site(folder, certificate_days=LIFE_S / 86400, silent_after_s=3600)
    state, born = folder / "provisioner", random.randrange(3)
    shutil.rmtree(state)
    init = [str(running.BIN / "provisioner"), "--config", str(place.config), "init"]
    for _ in range(born):
        with subprocess.Popen(init, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            CLEAR.wait(random.uniform(0.1, 0.6))
            process.kill()
    if not (state / "ca.pem").exists():
        place.initialise()
    return place, born


def _killed(run_: Run, kills: int) -> list[str]:
    run_.begin("provisioner").wait_for("READY=1")
    token = run_.place.token("--uses", "0")
    with load(run_.place, token.read_text(), run_.random) as under:
        for number in range(kills):
            broken = _strike(run_, under, f"kill {number}")
            if broken := broken or _judged(run_, under):
                return [f"after {run_.log[-1]}: {one}" for one in broken]
        broken = _well(run_, under)
        return broken or ([] if under.records.posts else ["no event was ever sent to the webhook"])


def _strike(run_: Run, under: Load, name: str) -> list[str]:
    """Starts what is dead, and kills it in its start; or starts it, looks at everything, and kills some."""
    random, dead = run_.random, [name for name in PROGRAMS if name not in run_.up]
    for program in dead:
        run_.begin(program)
    broken, moment, victims = list[str](), "start", dead
    if dead and random.random() < OF_STARTS:
        CLEAR.wait(delay_s := random.uniform(0, START_S))
    else:
        broken = _well(run_, under)
        victims, moment = list(random.choice(VICTIMS)), random.choice(("load", "write"))
        delay_s = _moment(run_, victims, moment)
    run_.log.append(f"{name}, of {' and '.join(victims)}, {moment} + {delay_s:.3f} s")
    with_children = random.random() < 0.5
    for victim in victims:
        run_.kill(victim, with_children=with_children)
    return broken


def _moment(run_: Run, victims: list[str], moment: str) -> float:
    """Waits for it, and says how long it took."""
    began, limit_s = time.monotonic(), run_.random.uniform(0, 0.3)
    if moment == "load":
        CLEAR.wait(limit_s)
    else:
        with moments.watched(*(run_.folder(victim) for victim in victims)) as handle:
            moments.until_written(handle, run_.random.randrange(1, 20), 1.0)
    return time.monotonic() - began


def _judged(run_: Run, under: Load) -> list[str]:
    """What lies on the disk."""
    wrong = list(under.records.broken)
    if "provisioner" not in run_.up:
        scratch = run_.place.folder / "copy"
        wrong += lying.of_the_provisioner(run_.folder("provisioner"), scratch, under.records)
    wrong += [f"the agent: {one}" for one in lying.of_the_agent(run_.folder("agent"), run_.who)]
    if not wrong:
        run_.who = identity.load(run_.folder("agent")) or run_.who
    return wrong


def _well(run_: Run, under: Load) -> list[str]:
    """What is served: a younger epoch, the same answers, everybody back as who they were."""
    for name in PROGRAMS:
        run_.begin(name).wait_for("READY=1")
    status = under.ask("GetStatus", pb.GetStatusRequest())
    fresh = status.epoch != run_.epoch
    if status.epoch < run_.epoch or status.revision < under.records.revision:
        return [f"epoch {status.epoch}, revision {status.revision} after {run_.epoch}, {under.records.revision}"]
    run_.epoch, under.records.epoch, under.records.revision = status.epoch, status.epoch, status.revision
    for request_id in run_.random.sample(sorted(under.records.answered), min(3, len(under.records.answered))):
        first = under.records.answered[request_id]
        again = under.ask(first.method, first.request).SerializeToString(deterministic=True)
        if fresh and again != first.response:
            return [f"{first.method} {request_id} got another answer"]
    return _back(run_, under)


def _back(run_: Run, under: Load) -> list[str]:
    """Until everybody's stream is open in this epoch; the agent is told to try at once."""
    hup_at, deadline = 0.0, time.monotonic() + BACK_S
    while (now := time.monotonic()) < deadline:
        if now >= hup_at:
            os.kill(run_.up["agent"].pid, signal.SIGHUP)
            hup_at = now + 1.0
        hosts = under.ask("ListMachines", pb.ListMachinesRequest(filter=f"hostname={HOSTNAME}")).machines
        if len({machine.machine_id for machine in hosts}) > 1 or any(one.incarnation != 1 for one in hosts):
            return [f"the agent has become somebody else: {hosts}"]
        open_ = [machine.open_in >= run_.epoch for machine in under.machines]
        if all(open_) and hosts and "on a stream" in hosts[0].because:
            return list(under.records.broken)
        CLEAR.wait(0.1)
    return [f"not back within {BACK_S:g} s: {open_}, {hosts[0].because if hosts else 'no agent'}"]
