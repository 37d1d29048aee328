"""Events as CloudEvents, a line of JSON each: the same bytes that a broker or a webhook gets."""

from dataclasses import dataclass

import click

from bedplate.v1.fleet_pb2 import Event
from provisioner.cli.refusals import NO, RefusedError
from provisioner.cloudevents import encoded


@dataclass(frozen=True, slots=True)
class _Told:
    revision: int
    at_ns: int
    kind: str
    machine_id: str
    hostname: str
    because: str
    actor: str
    incarnation: int
    count: int


def line(event: Event, source: str) -> str:
    """UsageError where the provisioner is too old to say who it is."""
    if not source:
        raise click.UsageError("this provisioner is older than its events as CloudEvents; upgrade it, or use -o json")
    try:
        at_ns = event.at.ToNanoseconds()
    except ValueError as error:  # a time beyond all years
        raise RefusedError(f"cannot print event {event.revision}: {error}", NO) from error
    told = _Told(
        event.revision,
        at_ns,
        event.kind,
        event.machine_id,
        event.hostname,
        event.because,
        event.actor,
        event.incarnation,
        event.count,
    )
    return encoded(told, source).decode()
