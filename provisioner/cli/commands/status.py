"""`bedplate status`: the provisioner, and who the caller is to it."""

import time
from collections.abc import Mapping, Sequence

import click

from bedplate.v1.fleet_pb2 import GetStatusRequest, GetStatusResponse, Port, Sink
from provisioner.cli.connection import connected
from provisioner.cli.frame import context_of, examples, form_option, say, say_data
from provisioner.cli.terminal import plain
from provisioner.cli.views import words

ENROL = "enrol_listen"


@click.command("status", epilog=examples("bedplate status", "bedplate --context lab status -o json"))
@form_option
@click.pass_obj
def command(context: str, form: str) -> None:
    """Show the provisioner, and who you are to it."""
    chosen = context_of(context)
    with connected("get status", chosen) as provisioner:
        answer = provisioner.read("get status", provisioner.fleet.GetStatus, GetStatusRequest())
    if form != "table":
        say_data(form, answer)
        return
    rows = {
        "Provisioner": f"{chosen.address} (context {chosen.name}), version {answer.version}",
        "You": f"{answer.caller} ({answer.role})",
        "Machines": f"{answer.machines:,}",
        "Started": f"{words.instant(answer.started_at)}, {words.ago(answer.started_at, time.time())}",
        "Epoch": f"{answer.epoch}, at revision {answer.revision}",
    }
    rows |= _conduct(answer)
    lines = [f"{label:13}{text}" for label, text in rows.items()]
    say([plain(line) for line in (*lines, *sink_lines(answer.sinks))])


def sink_lines(sinks: Sequence[Sink]) -> list[str]:
    """Where events go to, and how it goes there."""
    labels = ("Events to", *[""] * len(sinks))
    told = (f"{sink.name}, up to revision {sink.delivered_revision}: {sink.because}" for sink in sinks)
    return [f"{label:13}{line}" for label, line in zip(labels, told, strict=False)]


def _conduct(answer: GetStatusResponse) -> dict[str, str]:
    """What there was to refuse since it started; nothing where there was nothing."""
    rows = {}
    if answer.refused:
        rows["Refused"] = f"{_counted(answer.refused)}; docs/operations.md says what each is"
    if answer.cut_off:
        rows["Cut off"] = f"{_counted(answer.cut_off)}; `bedplate explain MACHINE` says which"
    if answer.broken_off:
        rows["Broken off"] = f"{_counted(answer.broken_off)}; docs/operations.md says what each is"
    if told := without_a_call(answer.ports):
        rows["No call"] = f"from {told}; docs/operations.md says what that is"
    if answer.slowed_s >= 1:
        rows["Slowed"] = f"machines that send too fast, for {words.span(answer.slowed_s)} in all"
    return rows


def without_a_call(ports: Sequence[Port]) -> str:
    """'3 of 1,201 connections to listen', of those ports where that is news.

    An agent that asks to enrol comes twice: it hangs up once it has seen whom it meets, and then it calls.
    """
    told = []
    for port in ports:
        without = port.connections - port.connections_with_a_call
        if without > (port.connections_with_a_call if port.name == ENROL else 0):
            told.append(f"{without:,} of {port.connections:,} connections to {port.name}")
    return ", ".join(told)


def _counted(counts: Mapping[str, int]) -> str:
    """'12 CALLER_TOO_FAST, 2 ROLE_TOO_LOW', the most first"""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {reason}" for reason, count in ordered)
