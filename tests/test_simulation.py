"""A few hundred fleets in virtual time, each with its own faults; and that the invariants bite."""

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bedplate.v1.uplink_pb2 import Dismissal, InventoryBody, SessionRequest, SessionResponse
from nodeagent import session as agent_side
from provisioner.world import Asked, Forgotten, Met, Noted, SilenceNoted, TokenRevoked, VitalsKept
from tests.simulation import faults
from tests.simulation.broken import BrokenError
from tests.simulation.conversation import Conversation
from tests.simulation.disk import Disk
from tests.simulation.fleet import Fleet
from tests.simulation.many import Span, outcomes
from tests.simulation.run import run
from tests.simulation.timeline import START

# Each found something once: two let in at once that show the same hardware; a stream opened while its machine's silence
# was being written; a silence on its way while its machine was forgotten; what its stream had on the way, stored in the
# next life of a machine that was revoked or replaced meanwhile; somebody let in by a token that was revoked meanwhile.
REGRESSIONS = (62, 77, 23, 27, 40, 129, 217, 246, 483)


@pytest.fixture(name="fleet_of")
def fleets():
    made = []

    def make(seed):
        made.append(Fleet(seed))
        return made[-1]

    yield make
    for fleet in made:
        fleet.end()


@pytest.mark.parametrize("first", range(1000, 1120, 15))
def test_whatever_fails_every_invariant_holds_and_the_fleet_is_well_in_the_end(first):
    assert [(seed, why) for seed in range(first, first + 15) if (why := run(seed).broken)] == []


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_a_seed_that_found_a_fault_finds_it_no_more(seed):
    assert run(seed).broken == ""


def test_the_same_seed_is_the_same_log_and_another_is_another():
    one, again, other = (run(seed, lines=True) for seed in (7, 7, 8))
    assert one == again
    assert one.lines != other.lines
    assert len(one.lines) > 100


def test_a_seed_replays_with_one_command_and_the_same_log_in_another_process():
    command = [sys.executable, "-m", "tests.simulation", "7", "--trace"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.splitlines()[:-1] == run(7, lines=True).lines
    assert done.stdout.splitlines()[-1].startswith("seed 7: all held")


def test_seeds_that_several_processes_share_out_are_those_of_one():
    alone = list(outcomes(Span(2000, 5, math.inf), 1))
    assert [one.seed for one in alone] == [2000, 2001, 2002, 2003, 2004]
    command = [sys.executable, "-m", "tests.simulation", "--from", "2000", "--count", "5", "--jobs", "2"]
    shared = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50)
    assert shared.stdout.startswith("5 seeds from 2000 on in ")
    assert f", {sum(one.happened for one in alone)} events, " in shared.stdout
    assert "by 2 processes" in shared.stdout


def test_ctrl_c_ends_all_processes_and_says_how_far_they_came():
    command = [sys.executable, "-m", "tests.simulation", "--count", "100000", "--jobs", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        while len(_children(process.pid)) < 2:
            assert process.poll() is None
        workers = _children(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        told, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert told.endswith("; 0 failed; ended by Ctrl-C\n")
    assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []


def _children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_every_fault_happens_and_is_undone(fleet_of):
    for fault, _ in faults.TABLE:
        fleet = fleet_of(3)
        fleet.timeline.run_until(START + 60)
        fault(fleet)
        fleet.timeline.run_until(START + 400)
        assert fleet.site is not None, fault.__name__
        assert (fleet.dark, fleet.loss, fleet.platter.full, fleet.undead) == (set(), 0.0, False, []), fault.__name__


# -- the invariants bite: what would be judged, said on purpose -----------------------------------------------------


@pytest.fixture(name="settled")
def settled_fleet(fleet_of):
    fleet = fleet_of(1)
    fleet.timeline.run_until(START + 90)
    (facts, *_) = fleet.known()
    return fleet, facts, fleet.site.conversations[facts.id]


def _committed(fleet, *changes, author=None):
    fleet.site.submit(changes, author)
    fleet.timeline.run_until(fleet.timeline.now + 1)


def test_an_acknowledgement_of_what_is_not_stored_is_found(settled):
    fleet, facts, conversation = settled
    conversation.session._stored += 3
    with pytest.raises(BrokenError, match=f"{facts.id}/1 is told that"):
        conversation.handle(conversation.session._ack(fleet.timeline.now))


def test_an_inventory_that_is_asked_for_twice_is_found(settled):
    _, facts, conversation = settled
    with pytest.raises(BrokenError, match="is asked for an inventory that is stored"):
        conversation.handle(conversation.session._want(facts.inventory_digest))


def test_vitals_that_were_never_sent_so_are_found(settled):
    fleet, facts, conversation = settled
    agent = fleet.invariants.owners[facts.key_sha256].session
    row = fleet.platter.rows[facts.id]
    fleet.invariants._sent[agent.run_id][facts.sequence + 1] = (b"", b"")
    wrong = VitalsKept(facts.id, row.run_id, facts.sequence + 1, row.vitals, row.problems, 0, fleet.timeline.now)
    with pytest.raises(BrokenError, match="has other vitals stored than it sent"):
        _committed(fleet, wrong, author=conversation)


def test_an_older_stream_that_still_counts_is_found(settled):
    fleet, facts, conversation = settled
    older = Conversation(fleet.site, conversation.who, conversation.wire)
    met = Met(facts.id, "s", fleet.site.world.epoch, facts.run_id, "1", "b", "p", 0.0, fleet.timeline.now)
    with pytest.raises(BrokenError, match="is changed by stream 0 after stream"):
        _committed(fleet, met, author=older)


def test_a_silence_without_its_event_is_found(settled):
    fleet, facts, _ = settled
    with pytest.raises(BrokenError, match=f"{facts.id} presence is told as .. and ..told.. is due"):
        _committed(fleet, SilenceNoted(facts.id, silent=True, at=fleet.timeline.now))


def test_a_store_that_loses_what_was_acknowledged_is_found(settled):
    fleet, facts, _ = settled
    assert fleet.invariants._acknowledged[facts.id, 1][1] > 0
    del fleet.platter.rows[facts.id]
    with pytest.raises(BrokenError, match="lost all that was acknowledged"):
        fleet.begin()


def test_a_world_that_is_not_the_fold_of_its_changes_is_found(settled):
    fleet, facts, _ = settled
    world = fleet.platter.world
    fleet.platter.world = world.after([(world.revision + 1, Forgotten(facts.id, 1.0))])
    with pytest.raises(BrokenError, match="not the fold of what is durable"):
        fleet.begin()


def test_an_agent_that_obeys_an_older_epoch_is_found(settled):
    fleet, facts, _ = settled
    machine = fleet.invariants.owners[facts.key_sha256]
    assert machine.session.state is agent_side.State.OPEN
    with pytest.raises(BrokenError, match="obeys epoch 1 after 2"):
        fleet.invariants.heard(machine, None, 2)


def test_the_disk_that_is_made_up_refuses_as_the_store_does(settled):
    fleet, _, _ = settled
    older = fleet.site.store
    assert isinstance(older, Disk)
    fleet.begin()
    with pytest.raises(Exception, match="another provisioner has taken it over"):
        older.write([Forgotten(fleet.known()[0].id, 1.0)])


def test_a_phase_that_is_not_what_it_has_to_be_is_found(settled):
    fleet, facts, _ = settled
    fleet.invariants.oracle.machines[facts.id].stream = ""
    with pytest.raises(BrokenError, match=f"{facts.id} is PHASE_PRESENT and has to be PHASE_SILENT"):
        fleet.invariants.phases(fleet.site.world, fleet.timeline.now + 1000, 45.0)


def test_an_agent_that_dials_before_it_was_asked_to_come_back_is_found(settled):
    fleet, facts, _ = settled
    machine = fleet.invariants.owners[facts.key_sha256]
    dismissal = SessionResponse(dismissal=Dismissal(because="later", retry_after_s=60.0))
    fleet.invariants.manners.hears(machine, dismissal, fleet.timeline.now)
    with pytest.raises(BrokenError, match="dials before it was asked to come back"):
        fleet.invariants.manners.dials(machine, fleet.timeline.now + 59.0)


def test_an_inventory_that_nobody_asked_for_is_found(settled):
    fleet, facts, _ = settled
    machine = fleet.invariants.owners[facts.key_sha256]
    with pytest.raises(BrokenError, match="sends an inventory that nobody asked for"):
        machine._send([SessionRequest(inventory=InventoryBody(digest=b"another", inventory=machine.box.body))])


def test_a_reboot_without_its_event_is_found(settled):
    fleet, facts, conversation = settled
    met = Met(facts.id, "s", fleet.site.world.epoch, facts.run_id, "1", "another", "p", 0.0, fleet.timeline.now)
    with pytest.raises(BrokenError, match=f"{facts.id} boot is told as .. and ..told.. is due"):
        _committed(fleet, met, author=conversation)


def test_a_last_word_that_is_not_so_is_found(settled):
    fleet, facts, _ = settled
    course = fleet.invariants.swings._courses[facts.id, "inventory"]
    course.doubt = True  # of how many changes there were, and not of how it stands
    because = "its inventory is host name box-0, kernel 5.4 now, after 6 changes"
    last = Noted("machine.changed", facts.id, "", because, "provisioner", fleet.timeline.now, 6)
    with pytest.raises(BrokenError, match=f"{facts.id} inventory has a last word that is not so"):
        _committed(fleet, last)


def test_a_machine_that_comes_in_by_a_token_that_is_over_is_found(settled):
    fleet, _, _ = settled
    token_id = fleet.machines[0].token[0]
    asked = Asked("m-x", 1, b"k", b"", "x", "", "", token_id, "", fleet.timeline.now)
    _committed(fleet, TokenRevoked(token_id, fleet.timeline.now))
    with pytest.raises(BrokenError, match=f"m-x came in by token {token_id} and it is over"):
        _committed(fleet, asked)


def test_an_agent_that_comes_back_too_soon_is_found(settled):
    fleet, facts, _ = settled
    machine, manners = fleet.invariants.owners[facts.key_sha256], fleet.invariants.manners
    now = fleet.timeline.now
    for failures in range(4):
        manners.lost(machine, now)
        now += 2.0**failures
        manners.dials(machine, now)
    manners.lost(machine, now)
    with pytest.raises(BrokenError, match="dials before"):
        manners.dials(machine, now + 7.9)
