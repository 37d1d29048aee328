"""The plan of the certificate, as sentences; and its steps lead where the plan says."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.credentials import Have, Want, plan
from nodeagent.decision import Settled, Todo, Wait
from nodeagent.identity import Identity
from nodeagent.steps.enrol import Enrol
from nodeagent.steps.renew import Renew

DAY = 86400.0
NOW = 1_800_000_000.0
WHO = Identity(
    machine_id="m-4kq7zt2x",
    incarnation=1,
    not_before=NOW - 3600,
    not_after=NOW + 7 * DAY - 3600,
    kept_at=NOW,
    token_id="t-old",
    uplink_addresses=("10.0.0.5:7443",),
    certificate="",
    key="",
    ca="",
)
GOOD = Have(WHO, NOW + DAY, token_id="t-old")


@pytest.mark.parametrize(
    ("have", "decision", "because"),
    [
        (
            Have(None, NOW),
            Wait,
            "this machine has no certificate and no join token: make one with `bedplate token create`",
        ),
        (Have(None, NOW, token_flaw="cannot read the join token: …"), Wait, "cannot read the join token: …"),
        (Have(None, NOW, token_id="t-old"), Enrol, "this machine has no certificate: it asks to be let in"),
        (
            Have(None, NOW, token_id="t-old", again_in_s=9, last="machine m-x waits for a person"),
            Wait,
            "machine m-x waits for a person",
        ),
        (GOOD, Settled, "the certificate of m-4kq7zt2x is good until 2027-01-22 07:00 UTC"),
        (replace(GOOD, token_id=""), Settled, "the certificate of m-4kq7zt2x is good until 2027-01-22 07:00 UTC"),
        (
            replace(GOOD, now=NOW + 3.6 * DAY),
            Renew,
            "the certificate of m-4kq7zt2x is no longer young: it asks for another",
        ),
        (
            replace(GOOD, now=NOW + 8 * DAY),
            Enrol,
            "the certificate of m-4kq7zt2x is over: it asks again with the key that it has",
        ),
        (replace(GOOD, now=NOW + 8 * DAY, token_id=""), Renew, "no longer young"),
        (replace(GOOD, now=NOW + 4 * DAY, again_in_s=5, last="nobody listens"), Wait, "nobody listens"),
        (replace(GOOD, refused="machine m-4kq7zt2x is not known here"), Wait, "is not used again"),
        (replace(GOOD, refused="it is not known here", token_id=""), Wait, "and no join token"),
        (replace(GOOD, refused="it is not known here", token_id="t-new"), Enrol, "it is not known here: it asks"),
    ],
)
def test_what_is_to_be_done_about_the_certificate(have, decision, because):
    outcome = plan(have, Want())
    assert because in outcome.because
    if isinstance(outcome, Todo):
        assert outcome.steps == (decision(),)
    else:
        assert type(outcome) is decision


@given(skew=st.floats(-10 * 365 * DAY, 10 * 365 * DAY))
def test_a_clock_that_is_wrong_and_steady_changes_nothing(skew):
    kept = replace(WHO, kept_at=NOW + skew)
    assert isinstance(plan(Have(kept, NOW + skew + DAY), Want()), Settled)
    assert plan(Have(kept, NOW + skew + 4 * DAY), Want()).steps == (Renew(),)


@pytest.mark.parametrize("jump", [-400 * DAY, 400 * DAY])
def test_a_clock_that_jumps_costs_one_renewal(jump):
    have = Have(WHO, NOW + DAY + jump)
    assert plan(have, Want()).steps == (Renew(),)
    younger = replace(WHO, kept_at=have.now)
    assert isinstance(plan(replace(have, identity=younger, now=have.now + 60), Want()), Settled)


class Door:
    """Leads where the steps say that they lead."""

    def __init__(self, have):
        self.have = have

    async def enrol(self):
        self.have = replace(self.have, identity=replace(WHO, kept_at=self.have.now, token_id="t-new"), refused="")

    async def renew(self):
        await self.enrol()


@given(
    held=st.booleans(),
    age=st.floats(-DAY, 20 * DAY),
    token=st.sampled_from(["", "t-old", "t-new"]),
    refused=st.sampled_from(["", "it is not known here"]),
)
def test_taking_the_first_step_leaves_exactly_the_rest_of_the_plan(held, age, token, refused):
    door = Door(Have(WHO if held else None, NOW + age, token_id=token, refused=refused))
    before = plan(door.have, Want())
    if isinstance(before, Todo):
        asyncio.run(before.steps[0].take(door))
        after = plan(door.have, Want())
        assert (after.steps if isinstance(after, Todo) else ()) == before.steps[1:]
