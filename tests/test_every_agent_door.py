"""Every method of the agent's port against every identity, over real mTLS: people by their role, and nobody else."""

import asyncio
from pathlib import Path

import pytest

from bedplate.v1 import node_pb2
from provisioner.pki import authority, new_key
from tests.doors import DAY, NOW, Pair, came_of, dial, machine, methods, of_two_names, person
from tests.shown_agent import serving
from tests.test_agent_access import CA, mtls

METHODS = methods(node_pb2.DESCRIPTOR)
OPERATORS = {"/bedplate.v1.NodeAgent/Capture"}
TLS = "UNAVAILABLE"
WHO: dict[str, tuple[Pair | tuple[None, None], str, str]] = {  # who, and what comes of it: for viewers, for operators
    "a viewer": (person(CA, "vera", "viewer"), "in", "ROLE_TOO_LOW"),
    "an operator": (person(CA, "otto", "operator"), "in", "in"),
    "an admin": (person(CA, "ada", "admin"), "in", "in"),
    "a machine": (machine(CA, "m-aaaaaaaa", 1), "NOT_A_PERSON", "NOT_A_PERSON"),
    "somebody who says two things": (of_two_names(CA), "NOT_A_PERSON", "NOT_A_PERSON"),
    "somebody without a certificate": ((None, None), TLS, TLS),
    "an admin of another CA": (person(authority(new_key(), now=NOW), "ada", "admin"), TLS, TLS),
    "an admin whose certificate is over": (person(CA, "ada", "admin", now=NOW - 400 * DAY), TLS, TLS),
    "a provisioner": (CA.issue_server(["127.0.0.1"], now=NOW), TLS, TLS),
}


@pytest.mark.parametrize("name", WHO)
def test_each_identity_comes_in_where_the_table_says_and_nowhere_else(name: str, tmp_path: Path) -> None:
    pair, viewers, operators = WHO[name]

    async def main() -> None:
        async with serving(**mtls(tmp_path)) as (_, port), dial(f"127.0.0.1:{port}", CA, pair) as channel:
            came = {method: await came_of(channel, method, METHODS[method]) for method in METHODS}
        assert came == {method: operators if method in OPERATORS else viewers for method in METHODS}

    asyncio.run(main())
