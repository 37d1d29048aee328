"""The agent after its certificate was revoked, and under a clock that is hours wrong: real TLS and real key files."""

import asyncio
import base64
import json
import time
from dataclasses import replace

import pytest
from enrolment_desk import Book, Desk, showing

from nodeagent import keys
from nodeagent.credentials import Have, Want, plan
from nodeagent.decision import Settled
from nodeagent.enrolment import Pending, enrol, renew
from nodeagent.identity import IDENTITY, JOIN_KEY, NEXT_KEY, load, read
from nodeagent.steps.renew import Renew
from provisioner.pki import Authority, authority, csr_key, key_sha256, new_key
from provisioner.world import Accepted, Asked, Revoked

DAY = 86400.0


def of_the_thief(state):
    """The keys that whoever copies the folder has."""
    who, following, made = (read(state / name) for name in (IDENTITY, NEXT_KEY, JOIN_KEY))
    found = [who and json.loads(who)["key"], following and following.decode()]
    return {key for key in (*found, *(one["key"] for one in json.loads(made or b"[]"))) if key}


def coming(state, token):
    return enrol(state, token, showing(), "0.1.0", now=time.time())


@pytest.mark.parametrize("before", ["nothing", "a renewal that was not answered", "a token that let nobody in"])
def test_a_revoked_machine_comes_back_with_a_key_that_a_thief_of_its_state_folder_does_not_have(tmp_path, before):
    async def main():
        async with Desk() as desk:
            first = await coming(tmp_path, await desk.token())
            if before == "a renewal that was not answered":
                await asyncio.to_thread(keys.request, tmp_path)
            if before == "a token that let nobody in":
                await asyncio.to_thread(keys.request, tmp_path, "t-of-another-provisioner")
            stolen = await asyncio.to_thread(of_the_thief, tmp_path)
            assert len(stolen) == (1 if before == "nothing" else 2)
            await desk.book.write([Revoked(first.machine_id, desk.book.now())])
            again = await coming(tmp_path, await desk.token(machine_id=first.machine_id))
            assert (again.machine_id, again.incarnation) == (first.machine_id, 3)
            assert load(tmp_path) == again
            younger = await renew(tmp_path, again, now=time.time())
            assert not {again.key, younger.key} & stolen

    asyncio.run(main())
    assert [path.name for path in tmp_path.iterdir()] == [IDENTITY]


def test_a_revoked_machine_comes_back_also_where_it_waits_as_a_newcomer_by_then(tmp_path):
    """By the token that lay there when it was revoked."""

    async def main():
        async with Desk() as desk:
            first, other = await coming(tmp_path, await desk.token()), await desk.token()
            await desk.book.write([Revoked(first.machine_id, desk.book.now())])
            waits = await coming(tmp_path, other)
            assert isinstance(waits, Pending)
            assert await coming(tmp_path, await desk.token()) == waits, "another token for anybody is not spent"
            again = await coming(tmp_path, await desk.token(machine_id=first.machine_id))
            assert (again.machine_id, again.incarnation) == (first.machine_id, 3)

    asyncio.run(main())


def test_who_waits_by_one_key_and_was_let_in_by_another_is_in(tmp_path):
    async def main():
        async with Desk() as desk:
            waits = await coming(tmp_path, await desk.token(review=True))
            await asyncio.to_thread(keys.request, tmp_path, "t-later")
            later = csr_key(base64.b64decode((await asyncio.to_thread(keys.request, tmp_path))[-2]["csr"]))
            now, name = desk.book.now(), "m-bbbbbbbb"
            asked = Asked(name, 1, key_sha256(later), b"", "gpu-01", "", "", "t-later", "", now)
            await desk.book.write([asked, Accepted(name, now)])
            assert (await coming(tmp_path, await desk.token())).machine_id == name != waits.machine_id

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
