"""Stores that older versions have left are opened by this one, and nothing of what was in them is lost."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from bedplate.v1.snapshot_pb2 import Inventory, LinkVitals, Vitals
from bedplate.v1.uplink_pb2 import Delta
from provisioner import onhost
from provisioner.store import Policy, Store
from provisioner.store.schema import metadata
from provisioner.world import Accepted, Facts, VitalsMoved
from tests.release import ROOT

STORES = ROOT / "tests/stores"
NOW = 1795570000.0  # ten minutes after it was left
VM, DGX2, H100 = "m-gjchylm3", "m-x2y73d5z", "m-4ocjeh4i"


def _laid(name: str, folder: Path) -> Path:
    path = folder / "bedplate.db"
    path.touch(mode=0o600)
    with closing(sqlite3.connect(path)) as database:
        database.executescript((STORES / name).read_text())
    return path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """That of the first version that landed, opened by this one."""
    with closing(Store.open(_laid("0001.sql", tmp_path))) as opened:
        opened.begin_epoch()
        yield opened


def _told(facts: Facts) -> str:
    """'16 GPUs, delta 1, forgotten'"""
    if facts.forgotten_at is not None:
        where = "forgotten"
    else:
        where = "let in" if facts.accepted_at is not None else f"waits: {facts.waits_because}"
    revoked = ", revoked" if facts.revoked else ""
    return f"{facts.gpu_count} GPUs, delta {facts.sequence}, {where}{revoked}"


@pytest.mark.parametrize("left", sorted(path.name for path in STORES.glob("*.sql")))
def test_an_older_store_gets_the_tables_that_the_code_means(left: str, tmp_path: Path) -> None:
    path = _laid(left, tmp_path)
    with closing(Store.open(path)) as opened:
        opened.begin_epoch()
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
    engine.dispose()


def test_the_store_of_0_2_0_has_its_machines_its_packed_bodies_and_its_audit(tmp_path: Path) -> None:
    path = _laid("0006.sql", tmp_path)
    with closing(Store.open(path)) as opened:
        opened.begin_epoch()
        machines = opened.load(0.0).machines
        assert {facts.hostname: _told(facts) for facts in machines.values()} == {
            "hb78b55cfa": "0 GPUs, delta 1, let in",
            "dgx2": "16 GPUs, delta 1, forgotten",
            "h100": "8 GPUs, delta 1, let in, revoked",
        }
        for facts in machines.values():
            body = opened.inventory(facts.inventory_digest)
            assert body is not None
            assert hashlib.sha256(body).digest() == facts.inventory_digest
        entries, _ = opened.audit()
        assert [entry.method for entry in entries] == [
            "provisioner init",
            "CreateToken",
            "RevokeMachine",
            "ForgetMachine",
        ]
    assert onhost.verify(path, ()).sequence == 4


def test_the_first_store_s_machines_tokens_and_certificates_are_all_there(store: Store) -> None:
    world = store.load(0.0)
    assert {facts.id: _told(facts) for facts in world.machines.values()} == {
        VM: "0 GPUs, delta 1, let in",
        DGX2: "16 GPUs, delta 1, forgotten",
        H100: "0 GPUs, delta 0, waits: its join token t-5voaqc5a asks for review",
    }
    assert {token.id: len(token.used_by) for token in world.tokens.values()} == {"t-b7emnxsa": 2, "t-5voaqc5a": 1}
    assert (world.revision, world.epoch) == (36, 2)
    assert store.certified_until().keys() == {VM, DGX2}
    assert store.is_issued("fee8713db894117f062acd0f3ec833ac")


def test_the_first_store_s_bodies_and_events_are_read_as_they_were_written(store: Store) -> None:
    for machine_id in (VM, DGX2):
        digest = store.load(0.0).machines[machine_id].inventory_digest
        body = store.inventory(digest)
        assert body is not None
        assert hashlib.sha256(body).digest() == digest
        assert Inventory.FromString(body).identity.hostname == store.load(0.0).machines[machine_id].hostname
        assert [seen.digest for seen in store.history(machine_id)] == [digest]
    kept = store.vitals(VM)
    assert kept is not None
    assert list(Vitals.FromString(kept.vitals).links) == ["eth0"]
    assert [(event.kind, event.count) for event in store.events(machine_id=DGX2)] == [
        ("machine.asked", 0),
        ("machine.accepted", 0),
        ("machine.enrolled", 0),
        ("machine.present", 0),
        ("machine.forgotten", 0),
    ]


def test_the_first_store_is_written_and_pruned_like_any_other(store: Store) -> None:
    facts = store.load(0.0).machines[VM]
    vitals = Vitals(links={"eth0": LinkVitals(carrier_up_count=77)})
    delta = Delta(sequence=2, vitals=vitals).SerializeToString()
    assert store.write([Accepted(H100, NOW), VitalsMoved(VM, facts.run_id, 2, 1, delta, NOW)]) == [37, 38]
    kept = store.vitals(VM)
    assert kept is not None
    assert Vitals.FromString(kept.vitals).links["eth0"].carrier_up_count == 77
    pruned = store.prune(NOW + 86400.0 * 400, Policy())
    assert (pruned.events, pruned.answers, pruned.inventories) == (12, 1, 0)
    assert store.oldest_event_revision() == 36
    with closing(Store.open(store.path)) as again:
        assert (again.load(0.0), again.fleet) == (store.load(0.0), store.fleet)
