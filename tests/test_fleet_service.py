"""The Fleet service over a real connection: what people read, what they change, and what they are told instead."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bedplate.v1 import fleet_pb2 as pb
from bedplate.v1.snapshot_pb2 import Identity, Inventory, Problem, Topology, Vitals
from bedplate.v1.uplink_pb2 import Problems
from provisioner.world import Change, Forgotten, InventoryKept, Noted, Parted, SilenceNoted, VitalsKept
from tests.served import Served, asked, present, refusal, served

Work = Callable[[Served], Awaitable[None]]


def _run(folder: Path, work: Work, *changes: Change) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20), served(folder, changes) as here:
            await work(here)

    asyncio.run(whole())


def _inventory(number: int) -> InventoryKept:
    gpu = Topology.Part(name="GPU0", gpu=True)
    inventory = Inventory(identity=Identity(hostname=f"gpu-{number:02}"), topology=Topology(parts=[gpu]))
    name = f"m-{number:04}"
    body = inventory.SerializeToString()
    return InventoryKept(name, b"d" * 32, body, f"gpu-{number:02}", "DGX", "S", 8, "H100", 12, "os", "k", 1.0)


def test_machines_come_in_pages_that_fit_together(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        stub, names, page = here.stub(), [], ""
        for _ in range(3):
            request = pb.ListMachinesRequest(order_by="id desc", page_size=4, page_token=page)
            answer = await stub.ListMachines(request)
            names += [machine.machine_id for machine in answer.machines]
            page = answer.next_page_token
            assert (answer.total_size, answer.revision) == (10, here.fleet.world.revision)
        assert page == ""
        assert names == [f"m-{number:04}" for number in range(9, -1, -1)]

    _run(tmp_path, work, *(asked(number) for number in range(10)))


def test_a_filter_asks_for_phases_and_a_forgotten_machine_is_in_no_list(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        answer = await here.stub(role="viewer").ListMachines(pb.ListMachinesRequest(filter="phase=present"))
        assert [(machine.machine_id, machine.because) for machine in answer.machines] == [
            ("m-0001", "on a stream from 10.0.0.7; it last reported 10 s ago")
        ]
        everything = await here.stub().ListMachines(pb.ListMachinesRequest())
        assert everything.total_size == 2

    _run(tmp_path, work, *present(1), asked(2), asked(3), Forgotten("m-0003", 1.0))


@pytest.mark.parametrize(
    ("request_", "field", "part"),
    [
        (pb.ListMachinesRequest(filter="colour=red"), "filter", "at position 1: there is no field 'colour'"),
        (pb.ListMachinesRequest(order_by="colour"), "order_by", "the fields are id, hostname"),
        (pb.ListMachinesRequest(page_size=-1), "page_size", "must be between 0 and 1000"),
        (pb.ListMachinesRequest(page_token="AAAA"), "page_token", "is garbled"),
    ],
)
def test_a_list_that_cannot_be_had_says_which_field_is_wrong(
    tmp_path: Path, request_: pb.ListMachinesRequest, field: str, part: str
) -> None:
    async def work(here: Served) -> None:
        no = await refusal(here.stub().ListMachines(request_))
        assert no.code == "INVALID_ARGUMENT"
        assert part in no.line
        assert no.details["BadRequest"].field_violations[0].field == field
        assert no.details["ErrorInfo"].domain == "bedplate"

    _run(tmp_path, work)


def test_a_page_token_is_good_for_its_own_list_alone(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        first = await here.stub().ListMachines(pb.ListMachinesRequest(page_size=1))
        other = pb.ListMachinesRequest(page_size=1, filter="gpus=0", page_token=first.next_page_token)
        no = await refusal(here.stub().ListMachines(other))
        assert (no.code, "another filter or order" in no.line) == ("INVALID_ARGUMENT", True)

    _run(tmp_path, work, asked(1), asked(2))


def test_a_machine_is_found_by_id_by_host_name_and_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        stub = here.stub()
        for name in ("m-0001", "gpu-01", "m-0001"[:6]):
            answer = await stub.GetMachine(pb.GetMachineRequest(machine=name))
            assert answer.machine.machine_id == "m-0001"
        several = await refusal(stub.GetMachine(pb.GetMachineRequest(machine="m-0")))
        assert several.code == "INVALID_ARGUMENT"
        assert "m-0001 (gpu-01), m-0002 (gpu-02)" in several.line
        none = await refusal(stub.GetMachine(pb.GetMachineRequest(machine="m-9")))
        assert (none.code, none.details["ResourceInfo"].resource_name) == ("NOT_FOUND", "m-9")

    _run(tmp_path, work, asked(1), asked(2))


def test_a_machine_is_shown_with_its_latest_snapshot_and_topology(tmp_path: Path) -> None:
    problem = Problem(probe="gpus", kind=Problem.KIND_LOST, part="0000:53:00.0", detail="no answer")
    vitals = Vitals()
    vitals.links["eth0"].carrier = True
    problems = Problems(problems=[problem]).SerializeToString()
    kept = VitalsKept("m-0001", b"r" * 16, 1, vitals.SerializeToString(), problems, 1, 1_799_999_999.5)

    async def work(here: Served) -> None:
        stub = here.stub()
        shown = await stub.GetMachine(pb.GetMachineRequest(machine="gpu-01"))
        assert shown.snapshot.inventory.identity.hostname == "gpu-01"
        assert shown.snapshot.vitals.links["eth0"].carrier
        assert shown.snapshot.taken_at.ToJsonString() == "2027-01-15T07:59:59.500Z"
        assert [one.detail for one in shown.snapshot.problems] == ["no answer"]
        topology = await stub.GetMachineTopology(pb.GetMachineTopologyRequest(machine="gpu-01"))
        assert [part.name for part in topology.topology.parts] == ["GPU0"]
        told = await stub.ExplainMachine(pb.ExplainMachineRequest(machine="gpu-01"))
        assert told.because == shown.machine.because
        assert "gpus 0000:53:00.0: lost: no answer" in list(told.evidence)

    _run(tmp_path, work, *present(1), _inventory(1), kept)


def test_a_machine_whose_inventory_has_not_come_has_no_topology_yet(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        no = await refusal(here.stub().GetMachineTopology(pb.GetMachineTopologyRequest(machine="m-0001")))
        assert (no.code, "has not come yet" in no.line) == ("FAILED_PRECONDITION", True)

    _run(tmp_path, work, asked(1))


def test_events_come_in_pages_from_either_end(tmp_path: Path) -> None:
    noted = [Noted(f"machine.{number}", "m-0001", "", f"{number}", "provisioner", 1.0) for number in range(7)]

    async def work(here: Served) -> None:
        for newest_first in (False, True):
            kinds, page = [], ""
            while True:
                request = pb.ListEventsRequest(
                    newest_first=newest_first, page_size=3, page_token=page, machine="m-0001"
                )
                answer = await here.stub().ListEvents(request)
                kinds += [event.kind for event in answer.events]
                page = answer.next_page_token
                if not page:
                    break
            assert kinds == sorted((change.kind for change in noted), reverse=newest_first)

    _run(tmp_path, work, asked(1), *noted)


def test_a_viewer_changes_nothing_and_everybody_is_told_who_they_are(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        stub = here.stub("vera", "viewer")
        no = await refusal(stub.ForgetMachine(pb.ForgetMachineRequest(machine="m-0001", request_id="r-1")))
        assert (no.code, no.details["ErrorInfo"].reason) == ("PERMISSION_DENIED", "ROLE_TOO_LOW")
        status = await stub.GetStatus(pb.GetStatusRequest())
        assert (status.caller, status.role, status.version, status.epoch, status.machines) == (
            "vera",
            "viewer",
            "1.2.3",
            1,
            1,
        )

    _run(tmp_path, work, asked(1))


def test_a_store_that_cannot_be_read_is_said_and_not_a_traceback(tmp_path: Path) -> None:
    def spoil() -> None:
        for name in ("bedplate.db", "bedplate.db-wal"):
            (tmp_path / name).write_bytes(b"\xff" * (tmp_path / name).stat().st_size)

    async def work(here: Served) -> None:
        spoil()
        no = await refusal(here.stub().ListEvents(pb.ListEventsRequest()))
        assert no.code == "UNAVAILABLE"
        assert no.line.startswith("cannot read store")

    _run(tmp_path, work, asked(1), Parted("m-0001", "x", "", 1.0), SilenceNoted("m-0001", silent=True, at=1.0))
