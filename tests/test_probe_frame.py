"""The frame of the probes and the observer: nobody waits for a probe longer than its limit, and failure is a fact."""

import errno
import threading
import time

import pytest
from trees import AT_NS, machine

from bedplate.v1.snapshot_pb2 import HostVitals, Identity, Inventory, Os, Problem, Snapshot, Vitals
from nodeagent.errors import Unanswered
from nodeagent.observe import Observer, digest
from nodeagent.probes import EVERYTHING, RETRY_S, Probe, registry


def named(hostname):
    return Snapshot(inventory=Inventory(identity=Identity(hostname=hostname)))


def says(name, part, **options):
    return Probe(name, lambda _host: part, **options)


class Counting:
    """A probe that gives the number of its run."""

    def __init__(self):
        self.runs = 0

    def __call__(self, _host):
        self.runs += 1
        return Snapshot(vitals=Vitals(host=HostVitals(load_1m=self.runs)))


def failing(error):
    def run(_host):
        raise error

    return run


@pytest.fixture
def held():
    """A probe that hangs until it is let go."""
    gate = threading.Event()
    yield gate
    gate.set()


def test_the_parts_of_all_probes_make_one_snapshot(tmp_path):
    system = Snapshot(inventory=Inventory(os=Os(id="flatcar")))
    snapshot = Observer(machine(tmp_path), [says("b", system), says("a", named("gpu-1"))]).observe(0.0)
    assert (snapshot.inventory.identity.hostname, snapshot.inventory.os.id) == ("gpu-1", "flatcar")
    assert snapshot.taken_at.ToNanoseconds() == AT_NS


def test_a_probe_that_fails_is_one_problem_and_the_others_answer(tmp_path):
    probes = [Probe("bad", failing(ValueError("two\nlines"))), says("good", named("gpu-1"))]
    snapshot = Observer(machine(tmp_path), probes).observe(0.0)
    assert snapshot.inventory.identity.hostname == "gpu-1"
    assert [(p.probe, p.kind, p.detail) for p in snapshot.problems] == [
        ("bad", Problem.KIND_FAILED, "cannot probe bad: ValueError: two lines")
    ]


def test_a_door_that_nobody_is_behind_is_a_problem_of_its_kind(tmp_path):
    probe = Probe("nvml", failing(Unanswered("LOST", "cannot read GPU 0000:53:00.0: GPU is lost")))
    (problem,) = Observer(machine(tmp_path), [probe]).observe(0.0).problems
    assert (problem.kind, problem.detail) == (Problem.KIND_LOST, "cannot read GPU 0000:53:00.0: GPU is lost")


def test_what_could_not_be_read_is_a_problem_and_the_rest_of_the_part_stands(tmp_path):
    host = machine(tmp_path, {"a": "gpu-1"}, refused={"serial": errno.EACCES, "disk": errno.EIO})

    def run(view):
        view.root.text("serial")
        view.root.text("disk")
        return named(view.root.text("a"))

    snapshot = Observer(host, [Probe("p", run)]).observe(0.0)
    assert snapshot.inventory.identity.hostname == "gpu-1"
    assert [(p.kind, p.part, p.detail) for p in snapshot.problems] == [
        (Problem.KIND_FAILED, "disk", "cannot read disk: Input/output error"),
        (Problem.KIND_NO_PERMISSION, "serial", "cannot read serial: Permission denied"),
    ]


def test_what_one_probe_could_not_read_is_not_another_s_problem(tmp_path):
    host = machine(tmp_path, refused={"x": errno.EACCES})
    probes = [Probe("a", lambda view: Snapshot() if view.root.text("x") else named("gpu-1")), says("b", Snapshot())]
    assert [p.probe for p in Observer(host, probes).observe(0.0).problems] == ["a"]


def test_a_probe_that_hangs_holds_up_the_others_no_longer_than_its_own_limit(tmp_path, held):
    def hang(_host):
        held.wait()
        return Snapshot()

    probes = [Probe("hung", hang, limit_s=0.1), says("quick", named("gpu-1"), limit_s=50)]
    began = time.monotonic()
    snapshot = Observer(machine(tmp_path), probes).observe(0.0)
    assert time.monotonic() - began < 5
    assert snapshot.inventory.identity.hostname == "gpu-1"
    assert [(p.kind, p.detail) for p in snapshot.problems] == [
        (Problem.KIND_TIMEOUT, "cannot probe hung: no answer within 0.1 s")
    ]


def test_a_probe_that_hangs_is_not_started_again_and_costs_later_looks_no_time(tmp_path, held):
    runs = []

    def hang(_host):
        runs.append(1)
        held.wait()
        return Snapshot()

    observer = Observer(machine(tmp_path), [Probe("hung", hang, every_s=1.0, limit_s=0.1)])
    observer.observe(0.0)
    began = time.monotonic()
    later = [observer.observe(now, EVERYTHING) for now in (10.0, 20.0, 30.0)]
    assert time.monotonic() - began < 0.1
    assert [[p.kind for p in snapshot.problems] for snapshot in later] == [[Problem.KIND_TIMEOUT]] * 3
    assert len(runs) == 1


def test_an_answer_that_comes_late_is_taken_when_it_comes(tmp_path, held):
    ended = threading.Event()

    def slow(_host):
        held.wait()
        ended.set()
        return named("late")

    observer = Observer(machine(tmp_path), [Probe("slow", slow, limit_s=0.05), says("z", Snapshot(), every_s=1.0)])
    assert len(observer.observe(0.0).problems) == 1
    held.set()
    ended.wait()
    for now in range(1, 1000):
        snapshot = observer.observe(float(now))
        if not snapshot.problems:
            break
    assert snapshot.inventory.identity.hostname == "late"
    assert not snapshot.problems


def test_inventory_is_read_at_the_start_and_when_its_subsystem_has_an_event(tmp_path):
    probe = Counting()
    observer = Observer(machine(tmp_path), [Probe("p", probe, on=frozenset({"pci", "net"}))])
    looks = [(0.0, ""), (10.0, ""), (99999.0, "block"), (99999.0, "net"), (99999.0, "everything")]
    assert [observer.observe(now, frozenset({woken})).vitals.host.load_1m for now, woken in looks] == [1, 1, 1, 2, 3]


def test_vitals_are_read_when_their_time_is_over_though_ticks_come_a_little_early(tmp_path):
    observer = Observer(machine(tmp_path), [Probe("p", Counting(), every_s=10.0)])
    assert [observer.observe(now).vitals.host.load_1m for now in (0.0, 5.0, 9.9, 15.0, 20.0)] == [1, 1, 2, 2, 3]


def test_a_probe_that_failed_keeps_its_last_part_and_is_tried_again_after_a_while(tmp_path):
    answers = iter([named("gpu-1"), None, named("gpu-2")])

    def run(_host):
        part = next(answers)
        if part is None:
            raise OSError(errno.EIO, "Input/output error")
        return part

    observer = Observer(machine(tmp_path), [Probe("p", run, on=frozenset({"pci"}))])
    observer.observe(0.0)
    failed = observer.observe(1.0, frozenset({"pci"}))
    assert (failed.inventory.identity.hostname, len(failed.problems)) == ("gpu-1", 1)
    soon, later = observer.observe(2.0), observer.observe(1.0 + RETRY_S)
    assert (soon.inventory.identity.hostname, len(soon.problems)) == ("gpu-1", 1)
    assert (later.inventory.identity.hostname, len(later.problems)) == ("gpu-2", 0)


def test_a_snapshot_is_not_changed_by_the_next_look(tmp_path):
    observer = Observer(machine(tmp_path), [Probe("p", Counting(), every_s=1.0)])
    first = observer.observe(0.0)
    observer.observe(10.0)
    assert first.vitals.host.load_1m == 1


def test_the_digest_of_an_inventory_does_not_depend_on_the_order_in_which_it_was_filled():
    one, other = Inventory(), Inventory()
    for name in ("nvidia", "mlx5_core"):
        one.os.module_versions[name] = "1"
    for name in ("mlx5_core", "nvidia"):
        other.os.module_versions[name] = "1"
    assert digest(one) == digest(other)
    assert len(digest(one)) == 32


def test_the_folder_is_the_registry_and_each_probe_says_when_it_is_stale():
    probes = registry()
    assert [probe.name for probe in probes] == sorted(probe.name for probe in probes)
    assert {"identity", "pci", "links", "rdma", "disks", "host_vitals"} <= {probe.name for probe in probes}
    assert [probe.name for probe in probes if not probe.on and not probe.every_s] == []


@pytest.mark.parametrize(
    ("run", "detail"),
    [
        (lambda _host: None, "cannot probe p: AttributeError: 'NoneType' object has no attribute 'problems'"),
        (failing(Unanswered("NO_SUCH_KIND", "cannot ask p: why")), "cannot ask p: why"),
        (failing(ValueError("sys/\udcff")), "cannot probe p: ValueError: sys/\\udcff"),
    ],
)
def test_a_probe_that_breaks_beyond_its_own_code_is_a_problem_and_is_tried_again(tmp_path, run, detail):
    observer = Observer(machine(tmp_path), [Probe("p", run, limit_s=0.5)])
    for now in (0.0, RETRY_S):
        (problem,) = observer.observe(now).problems
        assert (problem.kind, problem.detail) == (Problem.KIND_FAILED, detail)


def test_a_probe_that_gets_no_thread_is_a_problem_and_runs_once_there_is_one(tmp_path):
    observer = Observer(machine(tmp_path), [says("p", named("gpu-1"))])
    before = threading.stack_size(1 << 50)  # more than any machine has
    try:
        (problem,) = observer.observe(0.0).problems
    finally:
        threading.stack_size(before)
    assert problem.detail == "cannot probe p: can't start new thread"
    assert observer.observe(RETRY_S).inventory.identity.hostname == "gpu-1"
