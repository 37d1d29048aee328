"""Who a newcomer is: by its key, by what it shows, and never by what says nothing."""

from dataclasses import replace

import pytest

from provisioner.admission import Newcomer, admit, foreign, known, pending
from provisioner.evidence import kinds
from provisioner.world import Facts, World
from tests.newcomers import OLD_HOST, OLD_MACS, evidence

NOW = 1_800_000_000.0
FULL = {kind: value for kind, value in OLD_HOST.items() if kind != "hostname"}
MACS = OLD_MACS
INCUMBENT = Facts("m-aaaaaaaa", 1, b"key-a", NOW, accepted_at=NOW, hostname="gpu-01", evidence=evidence(MACS, **FULL))
FORGOTTEN = replace(INCUMBENT, forgotten_at=NOW, incarnation=4)


def came(shown, *facts, key=b"key-new", review=False):
    world = World(1, NOW, machines={each.id: each for each in facts})
    return admit(Newcomer(key, shown, "t-token", review), world, "m-newcomer")


def test_somebody_new_is_let_in_by_its_token():
    outcome = came(evidence(product_serial="J1234567"))
    assert (outcome.machine_id, outcome.incarnation, outcome.accepted) == ("m-newcomer", 1, True)
    assert outcome.because == "its join token t-token lets it in"


def test_a_token_that_asks_for_review_lets_it_wait():
    outcome = came(evidence(), review=True)
    assert not outcome.accepted
    assert outcome.because == "its join token t-token asks for review"


@pytest.mark.parametrize(
    ("shown", "what"),
    [
        (evidence(product_serial="j1234567 "), "serial number j1234567"),
        (evidence(product_uuid=FULL["product_uuid"].upper()), f"system UUID {FULL['product_uuid']}"),
        (evidence(board_serial="B7654321"), "mainboard's serial number b7654321"),
        (evidence(chassis_serial="C1122334"), "chassis's serial number c1122334"),
        (evidence(bmc_mac="B0:7B:25:00:00:01"), "BMC's MAC address b0:7b:25:00:00:01"),
        (evidence(MACS[1:], product_serial="another"), "permanent MAC address b0:7b:25:00:00:11"),
    ],
)
def test_one_who_shows_what_a_known_machine_has_waits_under_a_name_of_its_own(shown, what):
    outcome = came(shown, INCUMBENT)
    assert (outcome.machine_id, outcome.incarnation, outcome.accepted) == ("m-newcomer", 1, False)
    assert outcome.because == f"it shows the {what} of machine m-aaaaaaaa (gpu-01), whose key it does not have"


def test_a_forgotten_machine_comes_back_under_its_name_in_its_next_life():
    outcome = came(evidence(MACS, **FULL), FORGOTTEN)
    assert (outcome.machine_id, outcome.incarnation, outcome.accepted) == ("m-aaaaaaaa", 5, True)
    assert outcome.because.endswith("it was here before and was forgotten")


def test_a_forgotten_machine_that_shows_nothing_is_known_by_its_key():
    assert came(evidence(), FORGOTTEN, key=b"key-a").machine_id == "m-aaaaaaaa"
    assert came(evidence(), FORGOTTEN).machine_id == "m-newcomer"


def test_a_nic_that_moved_does_not_carry_the_machine_along():
    moved = evidence(MACS[:1], product_serial="Z999", product_uuid="99999999-0051-3610-8052-b4c04f4d3232")
    assert came(moved, FORGOTTEN).machine_id == "m-newcomer"


def test_of_several_forgotten_lives_the_last_counts():
    older = replace(FORGOTTEN, id="m-bbbbbbbb", forgotten_at=NOW - 9)
    assert came(evidence(MACS, **FULL), older, FORGOTTEN).machine_id == "m-aaaaaaaa"


def test_a_key_is_the_machine_until_it_is_forgotten():
    assert known(b"key-a", World(1, NOW, machines={"m-aaaaaaaa": INCUMBENT})) == INCUMBENT
    assert known(b"key-a", World(1, NOW, machines={"m-aaaaaaaa": FORGOTTEN})) is None
    assert known(b"key-b", World(1, NOW, machines={"m-aaaaaaaa": INCUMBENT})) is None


def test_two_that_show_no_more_than_placeholders_do_not_collide():
    shown = evidence(
        product_serial="None.", product_uuid="0x00000000", board_serial="#N/A", bmc_mac="00:00:00:00:00:01"
    )
    assert came(shown, replace(INCUMBENT, evidence=shown)).accepted


def test_forty_hosts_of_one_image_with_one_machine_id_do_not_collide():
    shown = evidence(machine_id="b08dfa6083e7567a1921a715000001fb", hostname="golden")
    assert came(shown, replace(INCUMBENT, evidence=shown)).accepted


def test_a_machine_that_comes_again_does_not_wait_for_one_that_waits_itself():
    shown = evidence((MACS[0], "b0:7b:25:00:00:99"), **FULL)
    again = Newcomer(b"key-new", shown, "t-token", review=False, again="m-aaaaaaaa")
    for at, outcome in ((None, "m-aaaaaaaa"), (NOW, "m-newcomer")):
        other = Facts("m-cccccccc", 1, b"key-c", NOW, accepted_at=at, evidence=evidence(("b0:7b:25:00:00:99",)))
        world = World(1, NOW, machines={"m-aaaaaaaa": INCUMBENT, "m-cccccccc": other})
        assert admit(again, world, "m-newcomer").machine_id == outcome


def test_those_who_wait_are_counted():
    waiting = replace(INCUMBENT, id="m-cccccccc", accepted_at=None)
    gone = replace(waiting, id="m-dddddddd", forgotten_at=NOW)
    assert pending(World(1, NOW, machines={each.id: each for each in (INCUMBENT, waiting, gone)})) == 1


def test_what_two_machines_that_are_let_in_both_show_is_that_of_a_batch_and_says_nothing():
    batch = evidence(product_serial="BATCH-7", board_serial="B1")
    twin = replace(INCUMBENT, id="m-bbbbbbbb", key_sha256=b"key-b", evidence=batch)
    other = replace(twin, id="m-cccccccc", key_sha256=b"key-c")
    assert not came(evidence(product_serial="BATCH-7"), twin).accepted
    assert not came(evidence(product_serial="BATCH-7"), twin, replace(other, accepted_at=None)).accepted
    assert not came(evidence(product_serial="BATCH-7"), twin, replace(other, forgotten_at=NOW)).accepted
    assert came(evidence(product_serial="BATCH-7"), twin, other).accepted
    assert came(
        evidence(product_serial="BATCH-7"), twin, other, replace(other, id="m-dddddddd", accepted_at=None)
    ).accepted
    assert not came(evidence(product_serial="BATCH-7", chassis_serial="C1122334"), INCUMBENT, twin, other).accepted


@pytest.mark.parametrize(
    ("differs", "waits"),
    [
        (("product_serial",), True),
        (("product_uuid", "board_serial", "bmc_mac"), True),  # a mainboard
        (("product_uuid", "board_serial", "bmc_mac", "chassis_serial"), False),
        (("product_uuid", "board_serial", "bmc_mac", "chassis_serial", "product_serial"), False),  # a NIC moved
    ],
)
def test_a_newcomer_waits_unless_more_differs_than_agrees(differs, waits):
    other = {kind: "b0:7b:25:77:77:77" if kind == "bmc_mac" else f"another-{kind}" for kind in differs}
    outcome = came(evidence(MACS[1:], **FULL | other), INCUMBENT)
    assert outcome.machine_id == "m-newcomer"
    assert outcome.accepted is not waits


def test_what_is_shared_and_outweighed_is_said():
    outcome = came(evidence(("b0:7b:25:00:00:99",), product_serial="J1234567", board_serial="B999"), INCUMBENT)
    assert outcome.because == (
        "its join token t-token lets it in; it shows the serial number j1234567 of machine m-aaaaaaaa (gpu-01) too, "
        "and more that is not that one's"
    )


def test_nobody_wears_an_identifier_out_by_showing_it_among_what_is_another_s():
    worn = [
        replace(INCUMBENT, id=f"m-{at}", key_sha256=b"%d" % at, evidence=evidence(**{kind: value, **junk}))
        for at, (kind, value) in enumerate(FULL.items())
        for junk in [{other: f"B0:7B:25:99:00:0{at}" for other in FULL if other != kind}]
    ]
    known_ones = [INCUMBENT]
    for one in worn:
        assert came(one.evidence, *known_ones).accepted
        known_ones.append(one)
    outcome = came(evidence(MACS, **FULL), *known_ones)
    assert not outcome.accepted
    assert "of machine m-aaaaaaaa (gpu-01)" in outcome.because


def test_what_a_batch_shares_does_not_help_to_wear_out_more():
    batch = evidence(product_serial="BATCH-7", chassis_serial="BATCH-7-C")
    twins = [replace(INCUMBENT, id=f"m-{at}", key_sha256=b"%d" % at, evidence=batch) for at in range(2)]
    whole = evidence(MACS, **FULL | {"product_serial": "BATCH-7", "chassis_serial": "BATCH-7-C"})
    assert came(whole, *twins).accepted, "what the two share says nothing"
    facts = replace(INCUMBENT, evidence=whole)
    among = {"product_serial": "BATCH-7", "chassis_serial": "BATCH-7-C", "product_uuid": FULL["product_uuid"]}
    outcome = came(evidence(("b0:7b:25:99:00:01",), board_serial="B999", **among), facts, *twins)
    assert not outcome.accepted
    assert f"system UUID {FULL['product_uuid']} of machine m-aaaaaaaa" in outcome.because


def test_one_that_shows_no_more_than_the_serial_number_of_a_batch_is_let_in_beside_one_of_it():
    batch = [
        replace(INCUMBENT, id=f"m-{at}", key_sha256=b"%d" % at, evidence=evidence(product_serial="BATCH-7", **own))
        for at, own in enumerate({"board_serial": f"B700{at}", "chassis_serial": f"C700{at}"} for at in range(3))
    ]
    world = World(1, NOW, machines={each.id: each for each in batch})
    assert "serial number batch-7 of machine m-0" in foreign(
        b"key-new", kinds(evidence(product_serial="BATCH-7")), world
    )
    assert not foreign(b"key-new", kinds(evidence(product_serial="BATCH-7")), world, "m-0")
    two = kinds(evidence(product_serial="BATCH-7", board_serial="B7001"))
    assert "mainboard's serial number b7001 of machine m-1" in foreign(b"key-new", two, world, "m-0")
