"""Who a newcomer is: by its key, by what it shows, and never by what says nothing."""

from dataclasses import replace

import pytest

from bedplate.v1.enrolment_pb2 import Evidence
from bedplate.v1.snapshot_pb2 import Identity
from provisioner.admission import Newcomer, admit, alike, kinds, known, pending
from provisioner.world import Facts, World

NOW = 1_800_000_000.0
FULL = {
    "product_serial": "J1234567",
    "product_uuid": "4c4c4544-0051-3610-8052-b4c04f4d3232",
    "board_serial": "B7654321",
    "chassis_serial": "C1122334",
    "bmc_mac": "b0:7b:25:00:00:01",
}
MACS = ["b0:7b:25:00:00:10", "b0:7b:25:00:00:11"]


def evidence(macs=(), **identity):
    return Evidence(identity=Identity(**identity), permanent_macs=macs).SerializeToString(deterministic=True)


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


NOTHING = (
    "",
    " ",
    "NA",
    "N/A",
    "None",
    "To be filled by O.E.M.",
    "TO BE FILLED BY  O.E.M.",
    "Default string",
    "System Serial Number",
    "Not Specified",
    "0",
    "0000000000",
    "xxxxxxxx",
    "........",
    "123456789",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
    "03000200-0400-0500-0006-000700080009",
    "00112233-4455-6677-8899-aabbccddeeff",
    "fefefefe-fefe-fefe-fefe-fefefefefefe",
    "12345",
    "1234567890123456",
    "BSN12345678901234567",
    "EB-1234567890123",
    "$(DEFAULT_STRING)",
    "Filled By OEM",
    "N.A.",
    "#N/A",
    "n.a",
    "None.",
    "<none>",
    "(none)",
    "ToBeFilledByO.E.M.",
    "To-Be-Filled-By-O.E.M.",
    "To be filled by O.E.M",
    "O.E.M",
    "O.E.M.",
    "Not Specified.",
    "NotSpecified",
    "Not-Found",
    "Not Found",
    "No Serial Number",
    "Serial_Number",
    "Default String.",
    "Default_String",
    "TBD",
    "T.B.D.",
    "To be determined",
    "0x00000000",
    "0x0",
    "0xFFFFFFFF",
    "0x12345678",
    "9876543210",
    "1234-5678",
    "00000000000000000000000000000000",
    "{03000200-0400-0500-0006-000700080009}",
    "\x00\x00\x00\x00",
    "ÿÿÿÿÿÿÿÿ",
)


@pytest.mark.parametrize("text", NOTHING)
def test_a_placeholder_matches_nothing(text):
    shown = evidence(product_serial=text, product_uuid=text, board_serial=text, chassis_serial=text, bmc_mac=text)
    assert kinds(shown) == {}
    assert came(shown, replace(INCUMBENT, evidence=shown)).accepted


@pytest.mark.parametrize(
    "mac",
    [
        "00:00:00:00:00:00",
        "00:00:00:00:00:01",
        "00:00:00:00:00:02",
        "ff:ff:ff:ff:ff:ff",
        "fa:4b:7f:12:34:56",
        "02:42:ac:11:00:02",
        "52:54:00:12:34:56",
        "01:00:5e:00:00:01",
        "00:11:22:33:44:55",
        "00:E0:4C:68:00:01",
        "88:88:88:88:87:88",
        "b0:7b:25",
        "not a mac",
        "b0:7b:25:00:00:1٣",
    ],
)
def test_a_mac_that_is_not_burned_in_matches_nothing(mac):
    assert kinds(evidence([mac], bmc_mac=mac)) == {}


def test_forty_hosts_of_one_image_with_one_machine_id_do_not_collide():
    shown = evidence(machine_id="b08dfa6083e7567a1921a715000001fb", hostname="golden")
    assert came(shown, replace(INCUMBENT, evidence=shown)).accepted


def test_two_are_alike_where_more_agrees_than_differs():
    whole = kinds(evidence(MACS, **FULL))
    board_swapped = kinds(evidence(MACS, **FULL | {"board_serial": "B999", "product_uuid": "1234abcd-0000"}))
    half = kinds(evidence(product_serial="J1234567", board_serial="B999"))
    assert alike(whole, whole)
    assert alike(whole, board_swapped)
    assert not alike(whole, half)
    assert not alike(whole, {})
    assert not alike({}, {})


def test_those_who_wait_are_counted():
    waiting = replace(INCUMBENT, id="m-cccccccc", accepted_at=None)
    gone = replace(waiting, id="m-dddddddd", forgotten_at=NOW)
    assert pending(World(1, NOW, machines={each.id: each for each in (INCUMBENT, waiting, gone)})) == 1


@pytest.mark.parametrize(
    "text",
    [
        "J1234567",
        "1234599",
        "9876501",
        "0xA1B2C3",
        "NONE-4711",
        "N0NE",
        "NA12345",
        "OEM-00017",
        "S/N 123456",
        "SERIAL-9",
        "TBD00017",
        "DEFAULT-7",
    ],
)
def test_a_serial_number_that_only_looks_counted_or_like_a_placeholder_is_one(text):
    assert kinds(evidence(product_serial=text)) == {"serial number": frozenset({text.lower()})}


def test_two_serial_numbers_that_differ_in_a_hyphen_are_two():
    assert came(
        evidence(product_serial="A-12345"), replace(INCUMBENT, evidence=evidence(product_serial="A1-2345"))
    ).accepted


def test_what_two_machines_that_are_let_in_both_show_is_that_of_a_batch_and_says_nothing():
    batch = evidence(product_serial="BATCH-7", board_serial="B1")
    twin = replace(INCUMBENT, id="m-bbbbbbbb", key_sha256=b"key-b", evidence=batch)
    other = replace(twin, id="m-cccccccc", key_sha256=b"key-c")
    assert not came(evidence(product_serial="BATCH-7"), twin).accepted
    assert not came(evidence(product_serial="BATCH-7"), twin, replace(other, accepted_at=None)).accepted
    assert not came(evidence(product_serial="BATCH-7"), twin, replace(other, forgotten_at=NOW)).accepted
    assert came(evidence(product_serial="BATCH-7"), twin, other).accepted
    assert not came(evidence(product_serial="BATCH-7", chassis_serial="C1122334"), INCUMBENT, twin, other).accepted
