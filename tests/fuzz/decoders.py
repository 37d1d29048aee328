"""Everything in both programs that reads bytes or text from outside, but for what is served: that is met over the wire.

A decoder is handed an input and a folder of its own; what it may raise is named beside it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from google.protobuf.message import DecodeError

from bedplate.v1.enrolment_pb2 import Evidence
from nodeagent import changes, config, identity, keys, meeting, notify, schedule
from nodeagent.errors import BedplateError as AgentError
from nodeagent.host import replayed
from nodeagent.observe import scan
from nodeagent.page import page
from provisioner import admission, chain, credentials, filters, paging, pki, post, tokens
from provisioner import config as provisioners_config
from provisioner.cli import contexts, snapshots
from provisioner.cli.commands.audit import When
from provisioner.cli.commands.token import Ttl
from provisioner.errors import BedplateError
from tests.enrolment_desk import csr_of

CA = pki.authority(pki.new_key(), now=1_800_000_000.0)
KEY, CSR = keys.make_key()
ISSUED = CA.issue_machine(CSR, pki.MachineIdentity("m-aaaaaaaa", 1), lifetime_s=86400, now=1_800_000_000.0)
KEPT = keys.Kept("m-aaaaaaaa", 1, ISSUED.certificate_pem.decode(), CA.roots_pem.decode(), ("h:1",), "t-1", 1.0)
TOKEN = tokens.encode(tokens.mint(), ["10.0.0.5:7444", "[::1]:7444"], CA.sha256).encode()
VM = Path(__file__).parents[1] / "machines/vm"
Refusals = tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True)
class Decoder:
    read: Callable[[bytes, Path], object]
    corpus: Sequence[bytes]
    raises: Refusals = ()


def _text(body: bytes) -> str:
    """As a terminal or a proto hands it over: text, with whatever cannot be said replaced."""
    return body.decode(errors="replace")


def _file(read: Callable[[Path], object], name: str) -> Callable[[bytes, Path], object]:
    def decode(body: bytes, folder: Path) -> object:
        path = folder / name
        path.write_bytes(body)
        path.chmod(0o600)
        return read(path)

    return decode


def _keep(body: bytes, _: Path) -> object:
    """What a provisioner that is none might hand over as a certificate."""
    return keys.identity_of(keys.Kept("m-aaaaaaaa", 1, _text(body), _text(body), (), "t", 1.0), KEY)


def _ca(name: str) -> Callable[[bytes, Path], object]:
    def decode(body: bytes, folder: Path) -> object:
        for other, content in (("ca.key", pki.key_pem(CA.key)), ("ca.pem", CA.roots_pem)):
            (folder / other).write_bytes(body if other == name else content)
            (folder / other).chmod(0o600)
        return credentials.load(folder)

    return decode


def _capture(body: bytes, folder: Path) -> object:
    """The manifest of a captured machine, and its answers."""
    (folder / "answers").mkdir(exist_ok=True)
    (folder / "capture.json").write_bytes((VM / "capture.json").read_bytes())
    for name in ("cpu", "memory", "boot", "links", "filesystems", "nvml", "uname"):
        (folder / "answers" / f"{name}.json").write_bytes(body)
    return page(scan(replayed(folder)))


def _answers() -> list[bytes]:
    return [path.read_bytes() for path in sorted((VM / "answers").glob("*.json"))]


def _click(kind: click.ParamType) -> Callable[[bytes, Path], object]:
    return lambda body, _: kind.convert(_text(body), None, None)


def _told(body: bytes, folder: Path) -> object:
    environment = {"WATCHDOG_USEC": _text(body), "WATCHDOG_PID": "", "NOTIFY_SOCKET": _text(body).replace("\0", "")}
    notify.notify("STATUS=x", environment=environment)
    return notify.watchdog_interval_s(environment)


SNAPSHOT = scan(replayed(VM))
JSON = json.dumps({"inventory": {"identity": {"hostname": "a"}}, "taken_at": "2026-11-24T10:00:00Z"}).encode()
PAGES = [paging.token(("machines", ""), key).encode() for key in (["gpu-01", "m-aaaaaaaa"], 7, "m")]
ROUTE = (32).to_bytes(4, "little") + (16).to_bytes(2, "little") + bytes(26)

DECODERS: dict[str, Decoder] = {
    "agent: join token": Decoder(lambda body, _: meeting.decode(_text(body)), [TOKEN], (AgentError,)),
    "agent: configuration": Decoder(_file(config.load, "a.toml"), [b'tick_s = 1\nstate = "/s"\n'], (AgentError,)),
    "agent: identity.json": Decoder(
        _file(lambda path: identity.load(path.parent), "identity.json"),
        [
            json.dumps(
                {name: getattr(keys.identity_of(KEPT, KEY), name) for name in identity.Identity.__slots__}
            ).encode()
        ],
        (AgentError,),
    ),
    "agent: certificate": Decoder(_keep, [ISSUED.certificate_pem, CA.roots_pem], (AgentError,)),
    "agent: next.key": Decoder(_file(lambda path: keys.request(path.parent), "next.key"), [KEY], (AgentError,)),
    "agent: uevent": Decoder(
        lambda body, _: changes.of_uevent(body), [b"change@/devices/x\0ACTION=change\0SUBSYSTEM=net\0"]
    ),
    "agent: rtnetlink": Decoder(lambda body, _: changes.of_rtnetlink(body), [ROUTE, ROUTE * 3]),
    "agent: captured answers": Decoder(_capture, _answers(), (AgentError,)),
    "agent: capture.json": Decoder(
        _file(lambda path: scan(replayed(path.parent)), "capture.json"),
        [(VM / "capture.json").read_bytes()],
        (AgentError,),
    ),
    "agent: sd_notify": Decoder(_told, [b"20000000", b"@bedplate"]),
    "provisioner: join token": Decoder(lambda body, _: tokens.decode(_text(body)), [TOKEN], (BedplateError,)),
    "provisioner: configuration": Decoder(
        _file(provisioners_config.load, "p.toml"),
        [b'listen = "127.0.0.1:7443"\n[mqtt]\nbroker = "mqtts://b:8883"\n', b'[[webhooks]]\nurl = "https://h/"\n'],
        (BedplateError,),
    ),
    "provisioner: CSR": Decoder(lambda body, _: pki.csr_key(body), [CSR, csr_of()], (BedplateError,)),
    "provisioner: ca.pem": Decoder(_ca("ca.pem"), [CA.roots_pem, CA.roots_pem * 2], (BedplateError,)),
    "provisioner: ca.key": Decoder(_ca("ca.key"), [pki.key_pem(CA.key)], (BedplateError,)),
    "provisioner: name in a certificate": Decoder(
        lambda body, _: pki.identity(_text(body)), [b"bedplate:machine:m-aaaaaaaa:1", b"bedplate:person:ada:admin"]
    ),
    "provisioner: name of the server": Decoder(
        lambda body, _: pki.general_name(_text(body)), [b"::1", b"*.example.org", b"10.0.0.1"], (BedplateError,)
    ),
    "provisioner: filter": Decoder(
        lambda body, _: filters.parse(_text(body)), [b'phase=silent gpus>=8 hostname~"rack 7"'], (BedplateError,)
    ),
    "provisioner: order": Decoder(
        lambda body, _: filters.parse_order(_text(body)), [b"hostname desc", b"gpus"], (BedplateError,)
    ),
    "provisioner: page token": Decoder(
        lambda body, _: paging.key_of(("machines", ""), _text(body), list[str]), PAGES, (BedplateError,)
    ),
    "provisioner: when a webhook may be asked again": Decoder(
        lambda body, _: post._retry_after_s(_text(body)), [b"120", b"Fri, 15 Jan 2027 08:00:00 GMT"]
    ),
    "agent: faults of a simulation": Decoder(
        lambda body, _: schedule.rates(_text(body)), [b"reboot=0.5,clone=2", b"all"], (ValueError,)
    ),
    "provisioner: anchor": Decoder(lambda body, _: chain.anchor(_text(body)), [b"42:" + b"9f" * 32], (BedplateError,)),
    "provisioner: evidence": Decoder(
        lambda body, _: admission.kinds(body),
        [Evidence(identity=SNAPSHOT.inventory.identity, permanent_macs=["b0:7b:25:00:00:10"]).SerializeToString()],
        (DecodeError,),
    ),
    "cli: contexts": Decoder(
        _file(contexts.load, "c.toml"),
        [b'current = "a"\n[contexts.a]\naddress = "h:1"\nca = "/c"\ncertificate = "/d"\nkey = "/k"\n'],
        (BedplateError,),
    ),
    "cli: snapshot": Decoder(_file(lambda path: snapshots.read(str(path)), "s.json"), [JSON], (BedplateError,)),
    "cli: time": Decoder(_click(When()), [b"2h", b"2026-11-23T11:47:00Z"], (click.UsageError,)),
    "cli: duration": Decoder(_click(Ttl()), [b"90m", b"7d"], (click.UsageError,)),
}
