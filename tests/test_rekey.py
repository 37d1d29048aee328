"""The agent after its certificate was revoked, and under a clock that is hours wrong: real TLS and real key files."""

import asyncio
import time
from dataclasses import replace

import pytest
from enrolment_desk import Book, Desk, showing

from nodeagent.credentials import Have, Want, plan
from nodeagent.decision import Settled
from nodeagent.enrolment import enrol, renew
from nodeagent.identity import load
from nodeagent.steps.renew import Renew
from provisioner import tokens
from provisioner.pki import Authority, authority, new_key
from provisioner.world import Revoked, TokenMade

DAY = 86400.0


def test_a_revoked_agent_comes_in_again_by_its_token_with_a_new_key_from_the_same_state_folder(tmp_path):
    async def main():
        async with Desk() as desk:
            first = await enrol(tmp_path, await desk.token(), showing(), "0.1.0", now=time.time())
            now = desk.book.now()
            minted = tokens.mint(first.machine_id)
            made = TokenMade(minted.token_id, minted.secret_sha256, now, now + 60, 1, review=False, created_by="ada")
            await desk.book.write([Revoked(first.machine_id, now), made])
            token = tokens.encode(minted, [desk.address], desk.ca.sha256)
            again = await enrol(tmp_path, token, showing(), "0.1.0", now=time.time())
            assert (again.machine_id, again.incarnation) == (first.machine_id, 3)
            assert again.key != first.key
            assert load(tmp_path) == again

    asyncio.run(main())


@pytest.mark.parametrize("skew_s", [-7200.0, 7200.0])
def test_a_host_whose_clock_is_two_hours_wrong_enrols_and_renews_in_its_time(tmp_path, skew_s):
    async def main():
        async with Desk() as desk:
            now = time.time() + skew_s
            identity = await enrol(tmp_path, await desk.token(), showing(), "0.1.0", now=now)
            assert isinstance(plan(Have(identity, now), Want()), Settled)
            assert isinstance(plan(Have(identity, now + 3 * DAY), Want()), Settled)
            assert plan(Have(identity, now + 4 * DAY), Want()).steps == (Renew(),)
            younger = await renew(tmp_path, identity, now=now + 4 * DAY)
            assert (younger.machine_id, younger.incarnation) == (identity.machine_id, 1)
            assert isinstance(plan(Have(younger, now + 4 * DAY), Want()), Settled)

    asyncio.run(main())


@pytest.mark.parametrize("skew_s", [-7200.0, 7200.0])
def test_a_root_that_a_clock_two_hours_wrong_has_made_takes_the_other_s_place(tmp_path, skew_s):
    """The provisioner's clock was wrong when the root was made, or the host's is: neither loses the machine."""

    async def main():
        now, book = time.time(), Book()
        old, new = authority(new_key(), now=now), authority(new_key(), now=now + skew_s)
        both = Authority(new.certificate, new.key, (old.certificate,), old)
        async with Desk(book, old) as desk:
            identity = await enrol(tmp_path, await desk.token(), showing(), "0.1.0", now=now + skew_s)
            told = Have(identity, now + skew_s + 60, told=True)
            assert plan(told, Want()).steps == (Renew(),)
        for ca in (both, Authority(new.certificate, new.key, (old.certificate,)), new):
            async with Desk(book, ca) as desk:
                identity = replace(identity, uplink_addresses=(desk.book.settings.config.dial,))
                identity = await renew(tmp_path, identity, now=now + skew_s)
                assert identity.ca_pem == ca.roots_pem
                assert isinstance(plan(Have(identity, now + skew_s + 60), Want()), Settled)
        assert identity.incarnation == 1

    asyncio.run(main())
