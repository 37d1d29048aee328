"""What happens to machines' identities on real hardware: each ends in a state that a person can read and clear."""

import asyncio
from pathlib import Path

import pytest

from bedplate.v1 import fleet_pb2 as pb
from provisioner.access import RefusedError, standing
from provisioner.pki import MachineIdentity, new_key
from tests.newcomers import NEW_BOARD, OLD_MACS, Yard, story
from tests.served import refusal


@pytest.mark.parametrize(
    ("what", "macs", "changed"),
    [
        ("its state folder was lost", OLD_MACS, {}),
        ("its mainboard was swapped", ("b0:7b:25:00:00:99", OLD_MACS[1]), NEW_BOARD),
        (
            "the BMC and a NIC on it too",
            ("b0:7b:25:00:00:99", OLD_MACS[1]),
            NEW_BOARD | {"bmc_mac": "b0:7b:25:00:00:98"},
        ),
        ("a NIC was replaced, and its disk too", ("b0:7b:25:00:00:99", OLD_MACS[1]), {}),
    ],
)
def test_a_machine_that_lost_its_key_waits_and_a_person_says_which_it_is(
    tmp_path: Path, what: str, macs: tuple[str, ...], changed: dict[str, str]
) -> None:
    async def tell(yard: Yard) -> None:
        token = await yard.token()
        first = (await yard.come(new_key(), token)).credentials
        key = new_key()
        waiting = (await yard.come(key, token, macs, **changed)).pending
        assert f"of machine {first.machine_id} (gpu-07), whose key it does not have" in waiting.because, what
        assert yard.good(first.machine_id, 1), "the incumbent is not disturbed"
        no = await refusal(
            yard.here.stub().AcceptMachine(pb.AcceptMachineRequest(machine=waiting.machine_id, request_id="r-no"))
        )
        assert no.line.endswith(f"bedplate machine accept {waiting.machine_id} --replaces THAT")
        taken = await yard.accept(waiting.machine_id, first.machine_id)
        assert (taken.machine_id, taken.incarnation, taken.phase) == (first.machine_id, 2, pb.PHASE_ACCEPTED)
        again = (await yard.come(key, token, macs, **changed)).credentials
        assert (again.machine_id, again.incarnation) == (first.machine_id, 2)
        assert yard.good(first.machine_id, 2)
        assert not yard.good(first.machine_id, 1)
        assert yard.here.cut == [
            (first.machine_id, "another host took this machine's place; its certificate is worth nothing")
        ]
        assert len(yard.here.fleet.world.known) == 1, "nothing is left behind"
        assert {"machine.replaced", "machine.forgotten"} <= set(await yard.kinds())
        for name in (first.machine_id, waiting.machine_id):
            audit = await yard.here.stub().ListAudit(pb.ListAuditRequest(machine=name))
            assert [entry.method for entry in audit.entries] == ["Enrol", "AcceptMachine"], "it is of both"

    story(tmp_path, tell)


def test_a_moved_disk_carries_the_machine_along_and_the_host_that_is_left_is_somebody_new(tmp_path: Path) -> None:
    async def tell(yard: Yard) -> None:
        token, key = await yard.token(), new_key()
        first = (await yard.come(key, token)).credentials
        elsewhere = {"product_serial": "J7777777", "product_uuid": "", "board_serial": "", "chassis_serial": ""}
        moved = (await yard.come(key, token, ("b0:7b:25:00:07:77",), **elsewhere, bmc_mac="")).credentials
        assert (moved.machine_id, moved.incarnation) == (first.machine_id, 1), "the key is the machine"
        left = (await yard.come(new_key(), token)).pending
        assert f"of machine {first.machine_id}" in left.because
        assert yard.good(first.machine_id, 1)

    story(tmp_path, tell)


def test_a_cloned_image_with_one_machine_id_on_forty_hosts_is_forty_machines(tmp_path: Path) -> None:
    async def tell(yard: Yard) -> None:
        token = await yard.token()
        hosts = [
            yard.come(
                new_key(),
                token,
                (f"b0:7b:25:00:01:{number:02x}",),
                hostname="localhost",
                machine_id="c0ffee00c0ffee00c0ffee00c0ffee00",
                product_serial=f"K{number:07}",
                product_uuid="To be filled by O.E.M.",
                board_serial="None",
                chassis_serial="0000000000",
                bmc_mac="",
            )
            for number in range(40)
        ]
        came = await asyncio.gather(*hosts)
        assert len({one.credentials.machine_id for one in came}) == len(came)

    story(tmp_path, tell)


def test_a_cloned_key_is_one_machine_and_a_person_ends_it_with_revoke_and_rekey(tmp_path: Path) -> None:
    async def tell(yard: Yard) -> None:
        token, key, stub = await yard.token(), new_key(), yard.here.stub()
        name = (await yard.come(key, token)).credentials.machine_id
        request = pb.RevokeMachineRequest(machine="gpu-07", request_id=yard.intent())
        revoked = await stub.RevokeMachine(request)
        assert await stub.RevokeMachine(request) == revoked
        assert (revoked.machine.machine_id, revoked.machine.incarnation) == (name, 2)
        assert yard.here.cut[0] == (name, "this machine's certificate was revoked")
        refused = standing(MachineIdentity(name, 1), yard.here.fleet.world)
        assert refused is not None
        assert refused.reason == "CERTIFICATE_REVOKED"
        told = await stub.ExplainMachine(pb.ExplainMachineRequest(machine=name))
        assert told.advice.startswith(f"to let it in again with a new key: bedplate machine rekey {name}")
        rekeyed = await stub.RekeyMachine(pb.RekeyMachineRequest(machine=name, request_id=yard.intent()))
        assert (rekeyed.token.machine_id, rekeyed.token.uses_allowed) == (name, 1)
        stolen = (await yard.come(key, token)).pending
        assert "its key is the one of machine" in stolen.because
        no = await refusal(
            stub.AcceptMachine(
                pb.AcceptMachineRequest(machine=stolen.machine_id, request_id=yard.intent(), replaces=name)
            )
        )
        assert no.details["ErrorInfo"].reason == "KEY_REVOKED"
        back = (await yard.come(new_key(), rekeyed.join_token)).credentials
        assert (back.machine_id, back.incarnation) == (name, 3)
        assert yard.good(name, 3)
        assert not yard.good(name, 2)

    story(tmp_path, tell)


def test_a_rekey_changes_nothing_until_it_is_used_and_is_used_once_in_its_time_by_that_hardware(tmp_path: Path) -> None:
    async def tell(yard: Yard) -> None:
        stub = yard.here.stub()
        name = (await yard.come(new_key(), await yard.token())).credentials.machine_id
        first = (await stub.RekeyMachine(pb.RekeyMachineRequest(machine=name, request_id=yard.intent()))).join_token
        other = (await stub.RekeyMachine(pb.RekeyMachineRequest(machine=name, request_id=yard.intent()))).join_token
        assert yard.good(name, 1)
        stranger = {"product_serial": "J7777777", "chassis_serial": "C7777777", "bmc_mac": "", **NEW_BOARD}
        waiting = (await yard.come(new_key(), other, ("b0:7b:25:00:07:77",), **stranger)).pending
        assert waiting.because.endswith(f"is for machine {name} (gpu-07), and most of what it shows is not that one's")
        assert (await yard.come(new_key(), first)).credentials.incarnation == 2
        with pytest.raises(RefusedError, match="is used up"):
            await yard.come(new_key(), first)
        late = (await stub.RekeyMachine(pb.RekeyMachineRequest(machine=name, request_id=yard.intent()))).join_token
        yard.here.clock.now += 3601
        with pytest.raises(RefusedError, match="expired"):
            await yard.come(new_key(), late)

    story(tmp_path, tell)


def test_a_certificate_that_was_on_its_way_while_the_machine_was_revoked_brings_no_key_back(tmp_path: Path) -> None:
    async def tell(yard: Yard) -> None:
        token, key = await yard.token(), new_key()
        name = (await yard.come(key, token)).credentials.machine_id
        asked_again = asyncio.create_task(yard.come(key, token))
        await asyncio.sleep(0)
        revoked = yard.here.stub().RevokeMachine(pb.RevokeMachineRequest(machine=name, request_id=yard.intent()))
        await asyncio.gather(asked_again, revoked)
        assert yard.here.fleet.world.machines[name].revoked
        assert not yard.good(name, 1)

    story(tmp_path, tell)


def test_what_waits_has_nothing_to_revoke_and_cannot_be_replaced(tmp_path: Path) -> None:
    async def tell(yard: Yard) -> None:
        stub, token = yard.here.stub(), await yard.token()
        first = (await yard.come(new_key(), token)).credentials.machine_id
        waiting = (await yard.come(new_key(), token)).pending.machine_id
        for call in (
            stub.RevokeMachine(pb.RevokeMachineRequest(machine=waiting, request_id=yard.intent())),
            stub.RekeyMachine(pb.RekeyMachineRequest(machine=waiting, request_id=yard.intent())),
            stub.AcceptMachine(pb.AcceptMachineRequest(machine=first, request_id=yard.intent(), replaces=waiting)),
        ):
            assert (await refusal(call)).code == "FAILED_PRECONDITION"

    story(tmp_path, tell)


def test_a_machine_is_another_one_or_takes_its_place_and_never_both(tmp_path: Path) -> None:
    async def tell(yard: Yard) -> None:
        request = pb.AcceptMachineRequest(machine="m-1", request_id="r", replaces="m-2", beside="m-2")
        assert (await refusal(yard.here.stub().AcceptMachine(request))).code == "INVALID_ARGUMENT"

    story(tmp_path, tell)
