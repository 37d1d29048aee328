"""What the agent reads from outside, but for what its peers say to it: that is in `peers.py`."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from nodeagent import changes, config, host, identity, keys, meeting, notify, schedule
from nodeagent.capture import capture
from nodeagent.errors import BedplateError
from nodeagent.host import replayed
from nodeagent.observe import scan
from nodeagent.page import page
from provisioner import pki, tokens
from tests.fuzz.decoder import Decoder, a_file, in_a_folder, plain, texts
from tests.fuzz.inputs import misshapen, tables

CA = pki.authority(pki.new_key(), now=1_800_000_000.0)
KEY, CSR = keys.make_key()
ISSUED = CA.issue_machine(CSR, pki.MachineIdentity("m-aaaaaaaa", 1), lifetime_s=86400, now=1_800_000_000.0)
KEPT = keys.Kept("m-aaaaaaaa", 1, ISSUED.certificate_pem.decode(), CA.roots_pem.decode(), ("h:1",), "t-1", 1.0)
TOKEN = tokens.encode(tokens.mint(), ["10.0.0.5:7444", "[::1]:7444"], CA.sha256).encode()
VM = Path(__file__).parents[1] / "machines/vm"
ROUTE = (32).to_bytes(4, "little") + (16).to_bytes(2, "little") + bytes(26)
MADE = [{"token_id": "t-4kq7zt2x", "key": KEY.decode()}, {"token_id": "t-x-for-m-y", "key": KEY.decode()}]
IDENTITY: dict[str, Any] = {name: getattr(keys.identity_of(KEPT, KEY), name) for name in identity.Identity.__slots__}
SNAPSHOT = scan(replayed(VM))
LINKS = [
    (path / "answers" / f"{name}.json").read_bytes()
    for path in sorted(VM.parent.iterdir())
    for name in ("links", "nvml")
    if (path / "answers" / f"{name}.json").exists()
]
ANSWERS = {path.stem: json.loads(path.read_bytes()) for path in sorted((VM / "answers").glob("*.json"))}


def _credentials(certificate: bytes, roots: bytes) -> object:
    """What a provisioner that is none might hand over as such."""
    given = (one.decode(errors="replace") for one in (certificate, roots))
    return keys.identity_of(keys.Kept("m-aaaaaaaa", 1, *given, (), "t", 1.0), KEY)


def _answers(body: bytes, folder: Path) -> object:
    """A captured machine that gives this answer to every question."""
    (folder / "answers").mkdir(exist_ok=True)
    shutil.copy(VM / "capture.json", folder)
    for name in ("cpu", "memory", "boot", "links", "filesystems", "nvml", "uname"):
        (folder / "answers" / f"{name}.json").write_bytes(body)
    snapshot = scan(replayed(folder))
    assert [one.detail for one in snapshot.problems if "\n" in one.detail + one.part] == []
    return page(snapshot)


def _kept(body: bytes, folder: Path) -> None:
    """A certificate on its way to the disk."""
    identity.write_secret(folder / identity.NEXT_KEY, KEY)
    (folder / identity.IDENTITY).unlink(missing_ok=True)
    keys.keep(folder, dataclasses.replace(KEPT, certificate=body.decode(errors="replace")))
    assert identity.load(folder) is not None


def _scrubbed(body: bytes, folder: Path) -> object:
    """A capture of a machine that answers this, without its names."""
    (folder / "answers").mkdir(exist_ok=True)
    shutil.copy(VM / "capture.json", folder)
    for name in ("links", "filesystems", "nvml"):
        (folder / "answers" / f"{name}.json").write_bytes(body)
    return capture(replayed(folder), scrub=True).files


def _told(text: str) -> object:
    environment = {"WATCHDOG_USEC": text, "WATCHDOG_PID": text, "NOTIFY_SOCKET": text.replace("\0", "")}
    notify.notify("STATUS=x", environment=environment)
    return notify.watchdog_interval_s(environment)


DECODERS: dict[str, Decoder] = {
    "agent: join token": Decoder(texts(meeting.decode), [TOKEN], (BedplateError,)),
    "agent: HOST:PORT": Decoder(texts(meeting.endpoint), [b"10.0.0.5:7444", b"[::1]:7444"], (BedplateError,)),
    "agent: configuration": Decoder(
        a_file(config.load, "a.toml"),
        [b'tick_s = 1\nstate = "/s"\n'],
        (BedplateError,),
        tables((*config.Config.__struct_fields__, r'"\n"'), ("", "[x]", "[[x]]")),
    ),
    "agent: identity.json": Decoder(
        a_file(lambda path: identity.load(path.parent), "identity.json"),
        [json.dumps(IDENTITY).encode()],
        (BedplateError,),
        misshapen([IDENTITY]),
    ),
    "agent: certificate": Decoder(
        plain(lambda body: _credentials(body, CA.roots_pem)), [ISSUED.certificate_pem], (BedplateError,)
    ),
    "agent: certificate that is kept": Decoder(
        in_a_folder(_kept), [ISSUED.certificate_pem], (BedplateError,), examples=100
    ),
    "agent: roots": Decoder(
        plain(lambda body: _credentials(ISSUED.certificate_pem, body)),
        [CA.roots_pem, CA.roots_pem * 2],
        (BedplateError,),
    ),
    "agent: next.key": Decoder(a_file(lambda path: keys.request(path.parent), "next.key"), [KEY], (BedplateError,)),
    "agent: join.key": Decoder(
        a_file(lambda path: keys.request(path.parent, "t"), "join.key"),
        [json.dumps(MADE).encode()],
        (BedplateError,),
        misshapen([MADE]),
    ),
    "agent: uevent": Decoder(plain(changes.of_uevent), [b"change@/devices/x\0ACTION=change\0SUBSYSTEM=net\0"]),
    "agent: rtnetlink": Decoder(plain(changes.of_rtnetlink), [ROUTE, ROUTE * 3]),
    "agent: mountinfo": Decoder(
        plain(host.read_only_disks),
        [rb"36 35 98:0 / /mnt/a\040b ro,noatime master:1 - ext3 /dev/root ro,errors=continue"],
    ),
    "agent: join token file": Decoder(
        a_file(lambda path: config.token(config.Config(join_token_file=str(path))), "join-token"),
        [TOKEN],
        (BedplateError,),
    ),
    "agent: captured answers": Decoder(
        in_a_folder(_answers),
        [json.dumps(one).encode() for one in ANSWERS.values()],
        (BedplateError,),
        misshapen([*ANSWERS.values()]),
        examples=150,
    ),
    "agent: capture.json": Decoder(
        a_file(lambda path: scan(replayed(path.parent)), "capture.json"),
        [(VM / "capture.json").read_bytes()],
        (BedplateError,),
        misshapen([json.loads((VM / "capture.json").read_bytes())]),
    ),
    "agent: a machine to be captured without its names": Decoder(
        in_a_folder(_scrubbed), LINKS, (BedplateError,), misshapen([*map(json.loads, LINKS)]), examples=60
    ),
    "agent: sd_notify": Decoder(texts(_told), [b"20000000", b"@bedplate"]),
    "agent: faults of a simulation": Decoder(texts(schedule.rates), [b"reboot=0.5,clone=2", b"all=1"], (ValueError,)),
}
