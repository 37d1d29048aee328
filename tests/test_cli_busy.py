"""What a person reads of a provisioner that has much to refuse, and when it refuses them."""

import pytest

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
    assert "Slowed       machines that send too fast, for 2m in all\n" in said


def test_one_that_is_told_to_come_back_soon_does_and_one_that_would_wait_long_says_so(admin, fleet):
    fleet.busy = 1
    assert admin.bedplate("machines").returncode == 0
    fleet.busy, fleet.later_s = 1, 60
    assert "more than 100 calls a second; come back in 60 s" in admin.refused(1, "machines")
