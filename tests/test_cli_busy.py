"""What a person reads of a provisioner that has much to refuse, and when it refuses them."""

import pytest

from bedplate.v1.fleet_pb2 import Port
from provisioner.cli.commands.status import without_a_call
from tests.canned_fleet import CannedFleet, serving
from tests.test_cli import Person

pytestmark = pytest.mark.slow


@pytest.fixture
def fleet():
    return CannedFleet([])


@pytest.fixture
def admin(fleet, tmp_path):
    with serving(tmp_path / "state", fleet) as (address, _):
        yield Person(tmp_path).knows(address, tmp_path / "state/admin")


def test_status_says_what_there_was_to_refuse(admin):
    said = admin.bedplate("status").stdout
    assert "Refused      1,200 CALLER_TOO_FAST, 2 ROLE_TOO_LOW; docs/operations.md says what each is\n" in said
    assert "Cut off      3 ORDER; `bedplate explain MACHINE` says which\n" in said
    assert "Broken off   14 Uplink.Session, 3 Enrolment.Enrol; docs/operations.md says what each is\n" in said
    no_call = "No call      from 4,000 of 4,040 connections to enrol_listen"
    assert f"{no_call}; docs/operations.md says what that is\n" in said
    assert "Slowed       machines that send too fast, for 2m in all\n" in said


@pytest.mark.parametrize(
    ("listen", "enrol_listen", "told"),
    [
        ((7, 7), (0, 0), ""),
        ((7, 7), (8, 4), ""),  # four agents asked: each looked first whom it met
        ((7, 6), (9, 4), "1 of 7 connections to listen, 5 of 9 connections to enrol_listen"),
    ],
)
def test_connections_without_a_call_are_told_where_they_are_news(listen, enrol_listen, told):
    counts = {"listen": listen, "enrol_listen": enrol_listen}
    ports = [Port(name=name, connections=all_, connections_with_a_call=by) for name, (all_, by) in counts.items()]
    assert without_a_call(ports) == told


def test_one_that_is_told_to_come_back_soon_does_and_one_that_would_wait_long_says_so(admin, fleet):
    fleet.busy = 1
    assert admin.bedplate("machines").returncode == 0
    fleet.busy, fleet.later_s = 1, 60
    assert "more than 100 calls a second; come back in 60 s" in admin.refused(1, "machines")
