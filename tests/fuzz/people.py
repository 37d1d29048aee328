"""What a person's terminal reads from outside: files, arguments, and what a provisioner answers.

Rule: an answer becomes lines of text, whatever it says, and nothing in them does anything to the terminal.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import click
import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from hypothesis import strategies as st

from bedplate.v1 import fleet_pb2
from nodeagent import refusal
from provisioner.cli import connection, contexts, diagnosis, frame, snapshots
from provisioner.cli.commands.audit import When
from provisioner.cli.commands.token import Ttl
from provisioner.cli.terminal import Terminal
from provisioner.cli.views import audit, cloudevents, events, explain, machine, machines, tokens, topology
from provisioner.cli.views import credentials as people
from provisioner.errors import BedplateError
from tests.fuzz.agents import ISSUED, SNAPSHOT
from tests.fuzz.decoder import Decoder, Read, a_file, plain, texts
from tests.fuzz.inputs import misshapen
from tests.fuzz.messages import filled, serialized

NARROW, NOW = Terminal(width=40), 1_800_000_000.0
NAMED = {"inventory": {"identity": {"hostname": "a"}}, "taken_at": "2026-11-24T10:00:00Z"}
View = Callable[[Any, Terminal], Sequence[str]]


def refused(body: bytes) -> grpc.aio.AioRpcError:
    """As a server refuses that has this to say besides."""
    metadata = grpc.aio.Metadata(("grpc-status-details-bin", body))
    return grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), metadata, "too fast")


def _refusal(body: bytes) -> object:
    error = refused(body)
    wait_s = connection.later_s(error)
    assert wait_s is None or wait_s >= 0
    return connection.status(error)


def statuses() -> st.SearchStrategy[bytes]:
    """With details of those kinds that are looked for, filled with anything."""
    kinds = (error_details_pb2.RetryInfo, error_details_pb2.BadRequest, error_details_pb2.Help)

    def packed(details: Sequence[Message]) -> bytes:
        status = status_pb2.Status(code=8, message="too fast")
        for one in details:
            status.details.add().Pack(one)
        return bytes(status.SerializeToString())

    return st.lists(st.one_of([filled(kind) for kind in kinds]), max_size=3).map(packed)


def _status() -> bytes:
    status = status_pb2.Status(code=8, message="too fast")
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2)))
    return bytes(status.SerializeToString())


def _shown(kind: type[Message], view: View) -> Read:
    def read(body: bytes) -> object:
        answer = kind.FromString(body)
        lines = [line for terminal in (NARROW, Terminal()) for line in view(answer, terminal)]
        assert all(line.isprintable() for line in lines), [line for line in lines if not line.isprintable()]
        return lines, frame.data(answer)

    return read


def _answer(kind: type[Message], view: View, *examples: Message) -> Decoder:
    bodies = [example.SerializeToString() for example in examples] or [b""]
    return Decoder(plain(_shown(kind, view)), bodies, (DecodeError, BedplateError), serialized(kind, *examples))


ENTRY = fleet_pb2.AuditEntry(
    sequence=1,
    who="ada",
    before='{"machines": [{"machine_id": "m-aaaaaaaa", "accepted": false}]}',
    after='{"machines": [{"machine_id": "m-aaaaaaaa", "accepted": true}], "tokens": [{"token_id": "t-1"}]}',
)
MACHINE = fleet_pb2.GetMachineResponse(snapshot=SNAPSHOT)

DECODERS: dict[str, Decoder] = {
    "cli: contexts": Decoder(
        a_file(contexts.load, "c.toml"),
        [b'current = "a"\n[contexts.a]\naddress = "h:1"\nca = "/c"\ncert = "/d"\nkey = "/k"\n'],
        (BedplateError,),
    ),
    "cli: snapshot": Decoder(
        a_file(lambda path: snapshots.read(str(path)), "s.json"),
        [json.dumps(NAMED).encode()],
        (BedplateError,),
        misshapen([NAMED, {"snapshot": NAMED}, {"parts": [], "paths": []}]),
    ),
    "cli: a certificate that is refused": Decoder(
        a_file(lambda path: diagnosis._unliked(contexts.Context("a", "h:1", "/ca", str(path), "/key")), "cert.pem"),
        [ISSUED.certificate_pem],
    ),
    "cli: time": Decoder(
        texts(lambda text: When().convert(text, None, None)), [b"2h", b"2026-11-23T11:47:00Z"], (click.UsageError,)
    ),
    "cli: duration": Decoder(texts(lambda text: Ttl().convert(text, None, None)), [b"90m", b"7d"], (click.UsageError,)),
    "agent: why it was refused": Decoder(
        plain(lambda body: refusal.retry_after(refused(body))), [_status()], (), statuses()
    ),
    "cli: why it was refused": Decoder(plain(_refusal), [_status()], (), statuses()),
    "cli: machines": _answer(
        fleet_pb2.ListMachinesResponse,
        lambda answer, terminal: machines.machines(answer.machines, terminal, NOW, wide=True),
    ),
    "cli: a machine": _answer(
        fleet_pb2.GetMachineResponse,
        lambda answer, terminal: machine.page(answer, terminal, NOW, everything=terminal.width is None),
        MACHINE,
    ),
    "cli: topology": _answer(
        fleet_pb2.GetMachineResponse,
        lambda answer, terminal: topology.topology(
            answer.machine.hostname, answer.snapshot.inventory, answer.snapshot.vitals, terminal
        ),
        MACHINE,
    ),
    "cli: explanation": _answer(fleet_pb2.ExplainMachineResponse, explain.explain),
    "cli: events": _answer(
        fleet_pb2.ListEventsResponse,
        lambda answer, terminal: [
            *events.events(answer.events, terminal),
            *(events.event_line(event, terminal) for event in answer.events),
        ],
    ),
    "cli: CloudEvents": Decoder(
        plain(lambda body: cloudevents.line(fleet_pb2.Event.FromString(body), "urn:x")),
        [fleet_pb2.Event(revision=7, kind="machine.changed").SerializeToString()],
        (DecodeError, BedplateError),
        serialized(fleet_pb2.Event),
    ),
    "cli: tokens": _answer(
        fleet_pb2.ListTokensResponse, lambda answer, terminal: tokens.tokens(answer.tokens, terminal, NOW)
    ),
    "cli: credentials": _answer(
        fleet_pb2.ListCredentialsResponse,
        lambda answer, terminal: people.credentials(answer.credentials, terminal, NOW),
    ),
    "cli: audit": _answer(
        fleet_pb2.ListAuditResponse,
        lambda answer, terminal: audit.entries(answer.entries, terminal),
        fleet_pb2.ListAuditResponse(entries=[ENTRY]),
    ),
}
