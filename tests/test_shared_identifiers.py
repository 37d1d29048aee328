"""Hosts that share an identifier and are two all the same: a batch with one serial number, a NIC that moved."""

from pathlib import Path

from bedplate.v1 import fleet_pb2 as pb
from provisioner.pki import new_key
from tests.newcomers import NEW_BOARD, OLD_MACS, Yard, story
from tests.served import refusal


def _of_a_batch(number: int) -> dict[str, str]:
    there = {"hostname": f"gpu-{number:02}", "product_serial": "BATCH-2024-07"}
    return there | dict.fromkeys(("product_uuid", "board_serial", "chassis_serial", "bmc_mac"), "")


def test_a_batch_with_one_serial_number_and_all_else_its_own_is_let_in_and_the_events_say_what_is_shared(
    tmp_path: Path,
) -> None:
    async def tell(yard: Yard) -> None:
        token = await yard.token()

        def host(at: int) -> dict[str, str]:
            return _of_a_batch(at) | {
                "product_uuid": f"4c4c4544-0051-3610-8052-b4c04f4d320{at}",
                "board_serial": f"B70{at}",
            }

        came = [await yard.come(new_key(), token, (f"b0:7b:25:00:02:0{at}",), **host(at)) for at in range(4)]
        names = [one.credentials.machine_id for one in came]
        assert len(set(names)) == len(names)
        events = (await yard.here.stub().ListEvents(pb.ListEventsRequest(kind_prefix="machine.accepted"))).events
        said = {event.machine_id: event.because for event in events}
        shared = f"it shows the serial number batch-2024-07 of machine {names[0]} (gpu-00) too, and more that is not"
        assert shared in said[names[1]]
        again = (await yard.come(new_key(), token, ("b0:7b:25:00:02:02",), **host(2))).pending
        assert f"it shows the system UUID 4c4c4544-0051-3610-8052-b4c04f4d3202 of machine {names[2]}" in again.because
        assert (await yard.accept(again.machine_id, names[2])).incarnation == 2

    story(tmp_path, tell)


def test_a_nic_that_moved_into_another_host_keeps_neither_of_them_waiting(tmp_path: Path) -> None:
    async def tell(yard: Yard) -> None:
        token = await yard.token()
        first = (await yard.come(new_key(), token)).credentials.machine_id
        other = {"hostname": "gpu-08", "product_serial": "J8888888", "chassis_serial": "", "bmc_mac": "", **NEW_BOARD}
        second = (await yard.come(new_key(), token, (OLD_MACS[1], "b0:7b:25:00:08:10"), **other)).credentials.machine_id
        assert second != first
        assert yard.good(first, 1)
        left = (await yard.come(new_key(), token, OLD_MACS[:1])).pending
        assert f"of machine {first} (gpu-07)" in left.because, "the host that it left is still known by all else"

    story(tmp_path, tell)


def test_a_machine_of_which_hardly_anything_is_left_comes_in_as_another_and_a_person_makes_it_that_one(
    tmp_path: Path,
) -> None:
    async def tell(yard: Yard) -> None:
        stub, key = yard.here.stub(), new_key()
        old = (await yard.come(new_key(), await yard.token())).credentials.machine_id
        unwritten = {"product_serial": "To be filled by O.E.M.", "chassis_serial": "", "bmc_mac": "", **NEW_BOARD}
        new = (await yard.come(key, await yard.token(), OLD_MACS, **unwritten)).credentials.machine_id
        assert new != old
        await stub.ForgetMachine(pb.ForgetMachineRequest(machine=new, request_id=yard.intent()))
        token = (await stub.RekeyMachine(pb.RekeyMachineRequest(machine=old, request_id=yard.intent()))).join_token
        waits = (await yard.come(key, token, OLD_MACS, **unwritten)).pending
        assert "most of what it shows is not that one's" in waits.because
        assert (await yard.accept(waits.machine_id, old)).machine_id == old
        assert (await yard.come(key, token, OLD_MACS, **unwritten)).credentials.incarnation == 2

    story(tmp_path, tell)


def test_a_batch_with_no_more_than_one_serial_number_waits_for_one_word_of_a_person_and_its_token_and_key_hold_then(
    tmp_path: Path,
) -> None:
    """The first comes in; the others wait; one is said to be another, and the serial number identifies nobody since."""

    async def tell(yard: Yard) -> None:
        token, stub = await yard.token(), yard.here.stub()
        keys = [new_key() for _ in range(4)]
        macs = [(f"b0:7b:25:00:02:{number:02x}",) for number in range(4)]
        first = (await yard.come(keys[0], token, macs[0], **_of_a_batch(0))).credentials.machine_id
        waiting = [(await yard.come(keys[at], token, macs[at], **_of_a_batch(at))).pending for at in (1, 2)]
        assert "it shows the serial number batch-2024-07 of machine" in waiting[0].because
        no = await refusal(
            stub.AcceptMachine(pb.AcceptMachineRequest(machine=waiting[0].machine_id, request_id=yard.intent()))
        )
        assert f"bedplate machine accept {waiting[0].machine_id} --beside THAT" in no.line
        said = pb.AcceptMachineRequest(machine=waiting[0].machine_id, request_id=yard.intent(), beside=first)
        assert (await stub.AcceptMachine(said)).machine.phase == pb.PHASE_ACCEPTED
        assert (await yard.accept(waiting[1].machine_id)).phase == pb.PHASE_ACCEPTED, "without another word"
        assert (await yard.come(keys[3], token, macs[3], **_of_a_batch(3))).credentials.machine_id, (
            "the rest do not wait"
        )
        assert yard.good(first, 1)
        rekeyed = await stub.RekeyMachine(pb.RekeyMachineRequest(machine=first, request_id=yard.intent()))
        again = (await yard.come(new_key(), rekeyed.join_token, macs[0], **_of_a_batch(0))).credentials
        assert (again.machine_id, again.incarnation) == (first, 2)
        events = (await stub.ListEvents(pb.ListEventsRequest(kind_prefix="machine.accepted"))).events
        assert any("though it shows what" in event.because for event in events)

    story(tmp_path, tell)
