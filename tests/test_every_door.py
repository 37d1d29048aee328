"""Every method of every port against every identity, with the provisioner as it runs and over real mTLS: who comes in
where is one table, and a method that is not in it fails.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from provisioner import credentials
from provisioner.config import Config
from provisioner.fleet import Fleet
from provisioner.pki import Authority, authority, new_key
from provisioner.serve import serving
from provisioner.world import Accepted, Asked, Change, CredentialRevoked, Forgotten, Noted, Revoked
from tests.doors import DAY, NOW, Pair, came_of, dial, machine, methods, of_two_names, person, served_files
from tests.running import free_ports
from tests.test_access import MAY

METHODS = methods(*served_files())
ROW = {f"/bedplate.v1.{name}": who for name, who in MAY.items()}
ANYBODY = {name for name in METHODS if not name.startswith("/bedplate.")}  # health and reflection: open to all
DOOR = {name for name in METHODS if "Enrolment" in name}  # served on the port for newcomers


@dataclass(frozen=True, slots=True)
class Somebody:
    """Who comes in as whom, and what stands in the way where that would be let in."""

    pair: Pair
    role: str
    reason: str = ""


def everybody(ca: Authority) -> dict[str, Somebody]:
    return {
        "a machine": Somebody(machine(ca, "m-aaaaaaaa", 2), "machine"),
        "a machine in an older incarnation": Somebody(machine(ca, "m-aaaaaaaa", 1), "machine", "OLDER_INCARNATION"),
        "one in an incarnation that is not yet": Somebody(machine(ca, "m-aaaaaaaa", 3), "machine", "OLDER_INCARNATION"),
        "a revoked machine": Somebody(machine(ca, "m-bbbbbbbb", 1), "machine", "CERTIFICATE_REVOKED"),
        "a forgotten machine": Somebody(machine(ca, "m-cccccccc", 1), "machine", "MACHINE_FORGOTTEN"),
        "a machine that nobody knows": Somebody(machine(ca, "m-eeeeeeee", 1), "machine", "MACHINE_FORGOTTEN"),
        "a pending machine": Somebody(machine(ca, "m-dddddddd", 1), "machine", "MACHINE_PENDING"),
        "a viewer": Somebody(person(ca, "vera", "viewer"), "viewer"),
        "an operator": Somebody(person(ca, "otto", "operator"), "operator"),
        "an admin": Somebody(person(ca, "ada", "admin"), "admin"),
        "an admin who was taken back": Somebody(person(ca, "mallory", "admin"), "admin", "CREDENTIAL_REVOKED"),
        "somebody who says two things": Somebody(of_two_names(ca), ""),
    }


WHO = list(everybody(authority(new_key(), now=NOW)))


def known() -> list[Change]:
    changes: list[Change] = [
        CredentialRevoked("mallory", "", NOW),
        Noted("token.created", "", "", "because", "provisioner", NOW),
    ]
    for name, incarnation in (("a", 2), ("b", 1), ("c", 1), ("d", 1)):
        whole = f"m-{name * 8}"
        changes.append(Asked(whole, incarnation, name.encode() * 32, b"", "", "", "", "t-1", "review", NOW))
        changes += [Accepted(whole, NOW)] if name != "d" else []
    return [*changes, Revoked("m-bbbbbbbb", NOW), Forgotten("m-cccccccc", NOW)]


def expected(who: Somebody, method: str) -> str:
    """'in', or the reason of the refusal."""
    if method in ANYBODY or (who.role or "nobody") in ROW[method]:
        held = method not in ANYBODY or who.reason == "CREDENTIAL_REVOKED"
        return who.reason if who.reason and held else "in"
    return "ROLE_TOO_LOW" if who.role else "NO_IDENTITY"


@dataclass(frozen=True, slots=True)
class Site:
    ca: Authority
    main: str
    door: str
    fleet: Fleet


@contextlib.asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    main, door = (f"127.0.0.1:{port}" for port in free_ports(2))
    ca = credentials.init(folder, now=NOW)
    async with serving(Config(state=str(folder), listen=main, enrol_listen=door), lambda _: None) as running:
        await running.fleet.write(known())
        yield Site(ca, main, door, running.fleet)


def test_every_method_that_there_is_stands_in_the_table() -> None:
    assert set(ROW) == {name for name in METHODS if name.startswith("/bedplate.")}


@pytest.mark.slow
@pytest.mark.parametrize("name", WHO)
def test_each_identity_comes_in_where_the_table_says_and_nowhere_else(name: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as here:
            who = everybody(here.ca)[name]
            async with dial(here.main, here.ca, who.pair) as channel:
                came = {name: await came_of(channel, name, METHODS[name]) for name in METHODS if name not in DOOR}
            assert came == {method: expected(who, method) for method in came}

    asyncio.run(main())


def test_strangers_meet_one_method_and_what_everybody_may_see(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as here, dial(here.door, here.ca, (None, None)) as channel:
            came = {name: await came_of(channel, name, METHODS[name]) for name in METHODS}
            assert came == {method: "in" if method in DOOR | ANYBODY else "METHOD_UNKNOWN" for method in METHODS}

    asyncio.run(main())


def test_whose_certificate_is_none_of_ours_or_over_does_not_get_through_tls(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as here:
            pairs: dict[str, Pair | tuple[None, None]] = {
                "none": (None, None),
                "another CA's": person(authority(new_key(), now=NOW), "ada", "admin"),
                "over": person(here.ca, "ada", "admin", now=NOW - 400 * DAY),
                "the server's own": here.ca.issue_server(["localhost"], now=NOW),
            }
            for what, pair in pairs.items():
                async with dial(here.main, here.ca, pair) as channel:
                    for method in ("/bedplate.v1.Fleet/GetStatus", "/bedplate.v1.Uplink/Renew"):
                        assert await came_of(channel, method, METHODS[method]) == "UNAVAILABLE", what

    asyncio.run(main())
