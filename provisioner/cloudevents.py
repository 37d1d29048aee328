"""Events as the world outside gets them: CloudEvents 1.0, by one schema that is published and has a version.

Rule 1: one event is always the same bytes, however often and to whomever it is sent: nothing here depends on the time
        of sending.
Rule 2: `source` and `id` together name an event for ever. The source is the store's own name, and the id holds the time
        beside the revision: a store that was restored from a backup counts the same revisions once more.
Rule 3: within version 1 fields and kinds are added, and never taken away or given another meaning.
        docs/events.schema.json is made from the classes here.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Protocol

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp
from msgspec import UNSET, Meta, UnsetType

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
SCHEMA: Final = "urn:bedplate:schema:event-data:v1"
PREFIX, VERSION = "io.bedplate.", ".v1"
KINDS = (
    "machine.asked",
    "machine.accepted",
    "machine.enrolled",
    "machine.present",
    "machine.silent",
    "machine.changed",
    "machine.flapping",
    "machine.problem.appeared",
    "machine.problem.cleared",
    "machine.problem.flapping",
    "machine.revoked",
    "machine.rekey",
    "machine.replaced",
    "machine.forgotten",
    "token.created",
    "token.revoked",
    "credential.revoked",
)
NANOS, MICRO = 1_000_000_000, 1000


class Kept(Protocol):
    """An event as it is stored."""

    @property
    def revision(self) -> int: ...
    @property
    def at_ns(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def machine_id(self) -> str: ...
    @property
    def hostname(self) -> str: ...
    @property
    def because(self) -> str: ...
    @property
    def actor(self) -> str: ...
    @property
    def incarnation(self) -> int: ...
    @property
    def count(self) -> int: ...


@dataclass(frozen=True, slots=True)
class EventData:
    """What happened."""

    revision: Annotated[int, Meta(ge=1, description="Goes up with each event of a fleet; a watch resumes from it.")]
    kind: Annotated[str, Meta(description="What happened; the event's type without prefix and version.")]
    because: Annotated[str, Meta(description="One sentence for a person.")]
    actor: Annotated[str, Meta(description="Who did it: 'machine m-4kq7zt2x', 'alice (admin)', 'provisioner'.")]
    machine_id: Annotated[str | UnsetType, Meta(description="Absent where it concerns no machine.")] = UNSET
    hostname: Annotated[str | UnsetType, Meta(description="As the machine said it last.")] = UNSET
    incarnation: Annotated[int | UnsetType, Meta(description="The machine's life number, where it is known.")] = UNSET
    count: Annotated[
        int | UnsetType, Meta(description="For how many changes it stands, where that is more than one: a flap.")
    ] = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEvent:
    """An event of a Bedplate fleet, in the JSON format of CloudEvents 1.0."""

    specversion: Literal["1.0"]
    id: Annotated[str, Meta(min_length=1, description="With the source, unique for ever: the same again is the same.")]
    source: Annotated[str, Meta(min_length=1, description="The fleet.", extra_json_schema={"format": "uri-reference"})]
    type: Annotated[
        str, Meta(pattern=r"^io\.bedplate(\.[a-z_]+)+\.v1$", description="Pass over those you do not know.")
    ]
    subject: Annotated[str | UnsetType, Meta(description="The machine's id; absent where it concerns none.")] = UNSET
    time: Annotated[
        str, Meta(description="When, by the provisioner's clock, in UTC.", extra_json_schema={"format": "date-time"})
    ]
    datacontenttype: Literal["application/json"]
    dataschema: Literal["urn:bedplate:schema:event-data:v1"]
    data: EventData


def source_of(fleet: str, configured: str = "") -> str:
    """'0123456789abcdef' -> 'urn:bedplate:fleet:0123456789abcdef', unless the configuration says another."""
    return configured or f"urn:bedplate:fleet:{fleet}"


def type_of(kind: str) -> str:
    """'machine.silent' -> 'io.bedplate.machine.silent.v1'"""
    return f"{PREFIX}{kind}{VERSION}"


def id_of(event: Kept) -> str:
    """Revision and microseconds: '1042-1800000000123456'"""
    return f"{event.revision}-{_micros(event.at_ns)}"


def cloud_event(event: Kept, source: str) -> CloudEvent:
    return CloudEvent(
        specversion="1.0",
        id=id_of(event),
        source=source,
        type=type_of(event.kind),
        subject=event.machine_id or UNSET,
        time=_instant(event.at_ns),
        datacontenttype="application/json",
        dataschema=SCHEMA,
        data=EventData(
            revision=event.revision,
            kind=event.kind,
            because=event.because,
            actor=event.actor,
            machine_id=event.machine_id or UNSET,
            hostname=event.hostname or UNSET,
            incarnation=event.incarnation or UNSET,
            count=event.count or UNSET,
        ),
    )


def encoded(event: Kept, source: str) -> bytes:
    """One line of JSON, UTF-8."""
    return msgspec.json.encode(cloud_event(event, source))


def schema() -> dict[str, Any]:
    """The JSON Schema of what `encoded` gives."""
    _, parts = msgspec.json.schema_components([CloudEvent], ref_template="#/$defs/{name}")
    whole = parts.pop("CloudEvent")
    parts["EventData"]["$id"] = SCHEMA
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:bedplate:schema:event:v1",
        **whole,
        "$defs": parts,
    }


def _instant(at_ns: int) -> str:
    """To the microsecond, as in the id: '2027-01-15T08:00:00.123456Z'"""
    whole, rest = divmod(_micros(at_ns) * MICRO, NANOS)
    return Timestamp(seconds=whole, nanos=rest).ToJsonString()


def _micros(at_ns: int) -> int:
    """Rounded, for what comes from a float is a little off: 249_999_872 -> 250_000"""
    return (at_ns + MICRO // 2) // MICRO
