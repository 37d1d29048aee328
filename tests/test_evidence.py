"""What evidence says of the hardware, and what says nothing."""

import pytest

from provisioner.evidence import alike, kinds
from tests.newcomers import OLD_HOST, OLD_MACS, evidence

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
    assert kinds(evidence((mac,), bmc_mac=mac)) == {}


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
    assert kinds(evidence(product_serial="A-12345")) != kinds(evidence(product_serial="A1-2345"))


def test_two_are_alike_where_more_agrees_than_differs():
    whole = kinds(evidence(OLD_MACS, **OLD_HOST))
    board_swapped = kinds(evidence(OLD_MACS, **OLD_HOST | {"board_serial": "B999", "product_uuid": "1234abcd-0000"}))
    half = kinds(evidence(product_serial="J1234567", board_serial="B999"))
    assert alike(whole, whole)
    assert alike(whole, board_swapped)
    assert not alike(whole, half)
    assert not alike(whole, {})
    assert not alike({}, {})
