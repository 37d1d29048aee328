"""Events on a terminal, as CloudEvents and otherwise: the same event everywhere, and a line where it cannot be."""

import json

import click
import pytest
from click.testing import CliRunner

from bedplate.v1.fleet_pb2 import Event, Sink
from provisioner.cli.commands.status import sink_lines
from provisioner.cli.commands.watch import command as watch
from provisioner.cli.views import cloudevents
from tests.cli_machines import at

SILENT = Event(revision=7, at=at(0), kind="machine.silent", machine_id="m-1", hostname="gpu-01", because="nothing")


def test_an_event_is_a_line_of_json_with_its_source() -> None:
    line = cloudevents.line(SILENT, "urn:bedplate:fleet:1")
    assert "\n" not in line
    told = json.loads(line)
    assert (told["id"], told["source"], told["type"]) == (
        "7-1795000000000000",
        "urn:bedplate:fleet:1",
        "io.bedplate.machine.silent.v1",
    )


def test_a_provisioner_that_is_older_than_cloud_events_is_named_as_such() -> None:
    with pytest.raises(click.UsageError, match=r"older than its events as CloudEvents; upgrade it, or use -o json"):
        cloudevents.line(SILENT, "")


def test_machines_are_no_cloud_events() -> None:
    done = CliRunner().invoke(watch, ["-o", "cloudevents"])
    assert done.exit_code == 2
    assert "-o cloudevents is for --events" in done.output


def test_a_status_says_where_events_go_and_how_it_goes_there() -> None:
    assert sink_lines([]) == []
    assert sink_lines(
        [
            Sink(name="mqtt", delivered_revision=42, because="it has had everything"),
            Sink(name="webhook/pager", delivered_revision=7, because="hooks:443 answers 500; 35 events wait"),
        ]
    ) == [
        "Events to    mqtt, up to revision 42: it has had everything",
        "             webhook/pager, up to revision 7: hooks:443 answers 500; 35 events wait",
    ]
