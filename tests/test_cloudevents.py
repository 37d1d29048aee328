"""Events as CloudEvents: what is sent is what the published schema says, and what the official SDK reads."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st

from provisioner import cloudevents
from provisioner.cli.views import cloudevents as view
from provisioner.service import messages
from provisioner.store import Event

ROOT = Path(__file__).resolve().parent.parent
SOURCE = cloudevents.source_of("0123456789abcdef")
SILENT = Event(42, 1_800_000_000.25, "machine.silent", "m-4kq7zt2x", "gpu-01", "nothing heard", "provisioner", 3)
TEXT = st.text(max_size=50)
EVENTS = st.builds(
    Event,
    revision=st.integers(1, 2**53),
    at=st.floats(0, 4e9),
    kind=st.sampled_from(["machine.silent", "machine.problem.appeared", "token.created"]),
    machine_id=TEXT,
    hostname=TEXT,
    because=TEXT,
    actor=TEXT,
    incarnation=st.integers(0, 2**31),
    count=st.integers(0, 2**31),
)


def test_an_event_is_one_line_of_json() -> None:
    assert json.loads(cloudevents.encoded(SILENT, SOURCE)) == {
        "specversion": "1.0",
        "id": "42-1800000000250000",
        "source": "urn:bedplate:fleet:0123456789abcdef",
        "type": "io.bedplate.machine.silent.v1",
        "subject": "m-4kq7zt2x",
        "time": "2027-01-15T08:00:00.250Z",
        "datacontenttype": "application/json",
        "dataschema": "urn:bedplate:schema:event-data:v1",
        "data": {
            "revision": 42,
            "kind": "machine.silent",
            "because": "nothing heard",
            "actor": "provisioner",
            "machine_id": "m-4kq7zt2x",
            "hostname": "gpu-01",
            "incarnation": 3,
        },
    }


@given(event=EVENTS)
def test_whatever_happened_fits_the_published_schema(event: Event) -> None:
    schema = json.loads((ROOT / "docs/events.schema.json").read_text())
    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    checker.validate(json.loads(cloudevents.encoded(event, SOURCE)))


@given(event=EVENTS)
def test_the_terminal_prints_the_same_bytes(event: Event) -> None:
    assert view.line(messages.event(event), SOURCE) == cloudevents.encoded(event, SOURCE).decode()


@given(event=EVENTS)
def test_the_official_sdk_reads_what_is_sent(event: Event) -> None:
    message = HTTPMessage({"content-type": cloudevents.CONTENT_TYPE}, cloudevents.encoded(event, SOURCE))
    read = from_structured_event(message, JSONFormat())
    assert (read.get_id(), read.get_source()) == (cloudevents.id_of(event), SOURCE)
    assert read.get_type() == f"io.bedplate.{event.kind}.v1"
    data = read.get_data()
    assert isinstance(data, dict)
    assert data["because"] == event.because


@pytest.mark.parametrize("key", ["specversion", "id", "source", "type", "time", "dataschema", "data"])
def test_the_schema_refuses_an_event_that_lacks_something(key: str) -> None:
    whole = json.loads(cloudevents.encoded(SILENT, SOURCE))
    del whole[key]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(whole, cloudevents.schema())


def test_the_schema_lets_fields_of_a_younger_provisioner_through() -> None:
    whole = json.loads(cloudevents.encoded(SILENT, SOURCE))
    whole["younger"] = whole["data"]["younger"] = 1
    jsonschema.validate(whole, cloudevents.schema())


def test_a_revision_that_is_counted_again_after_a_restore_is_another_event() -> None:
    again = Event(
        42, SILENT.at + 60, *(getattr(SILENT, name) for name in ("kind", "machine_id", "hostname", "because")), "x"
    )
    assert cloudevents.id_of(again) != cloudevents.id_of(SILENT)


def test_each_kind_that_is_written_is_described_in_the_docs_and_in_the_protocol() -> None:
    fleet = (ROOT / "protos/bedplate/v1/fleet.proto").read_text()
    proto = set(re.findall(r'"([a-z.]+)"', fleet.split("message Event {")[1].split("string kind")[0]))
    subjects = "|".join({kind.partition(".")[0] for kind in proto})
    written = set()
    for path in (ROOT / "provisioner").rglob("*.py"):
        if path.name != "cloudevents.py" and not path.is_relative_to(ROOT / "provisioner/cli"):
            written |= set(re.findall(rf'"((?:{subjects})\.[a-z]+(?:\.[a-z]+)?)"', path.read_text()))
    described = set(re.findall(r"^\| `([a-z.]+)` \|", (ROOT / "docs/events.md").read_text(), re.MULTILINE))
    assert written == described == proto == set(cloudevents.KINDS)
