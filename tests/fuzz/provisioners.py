"""What the provisioner reads from outside, but for what its peers say to it: that is in `peers.py` and `wires.py`."""

import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from google.protobuf.message import DecodeError
from hypothesis import strategies as st

from bedplate.v1.enrolment_pb2 import Evidence
from bedplate.v1.snapshot_pb2 import HostVitals, Vitals
from bedplate.v1.uplink_pb2 import Delta
from provisioner import (
    access,
    bus,
    chain,
    config,
    credentials,
    evidence,
    filters,
    paging,
    pki,
    ports,
    post,
    shown,
    tokens,
    vitals,
)
from provisioner.errors import BedplateError
from provisioner.outbox import webhook
from provisioner.store import cut, frames
from tests.enrolment_desk import csr_of
from tests.fuzz.agents import CA, CSR, ISSUED, SNAPSHOT, TOKEN
from tests.fuzz.decoder import Decoder, a_file, in_a_folder, plain, texts
from tests.fuzz.inputs import framed, tables, unframed
from tests.fuzz.messages import serialized

PAGES = [paging.token(("machines", ""), key).encode() for key in (["gpu-01", "m-aaaaaaaa"], [])]
PERSON = CA.issue_person(pki.PersonIdentity("ada", pki.Role.ADMIN), now=1_800_000_000.0)
SECRET = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EVIDENCE = Evidence(identity=SNAPSHOT.inventory.identity, permanent_macs=["b0:7b:25:00:00:10", "b0:7b:25:00:00:11"])
SETTINGS = (
    *config.Config.__struct_fields__,
    *config.Mqtt.__struct_fields__,
    *config.Webhook.__struct_fields__,
    r'"\n"',
)
VITALS = Vitals(host=HostVitals(load_1m=1.0)).SerializeToString()
DELTA = Delta(sequence=2, vitals=Vitals(host=HostVitals(load_1m=2.0)), gone=["links/eth0"]).SerializeToString()


def _folded(body: bytes) -> object:
    """As they were stored: vitals, and deltas after them."""
    whole, *deltas = unframed(body) or [b""]
    return vitals.folded(whole, [Delta.FromString(one) for one in deltas])


def _stored() -> st.SearchStrategy[bytes]:
    deltas = st.lists(serialized(Delta), max_size=3)
    return st.builds(lambda whole, since: framed([whole, *since]), serialized(Vitals), deltas)


def _ca(name: str) -> Callable[[bytes, Path], object]:
    def decode(body: bytes, folder: Path) -> object:
        for other, content in (("ca.key", pki.key_pem(CA.key)), ("ca.pem", CA.roots_pem)):
            (folder / other).write_bytes(body if other == name else content)
            (folder / other).chmod(0o600)
        return credentials.load(folder)

    return in_a_folder(decode)


def _configured(path: Path) -> object:
    """What is read can be used: the ports are opened with it, and the sinks go where it says."""
    found = config.load(path)
    return [ports.door(found), *map(post._where, found.webhook)]


def _broker(body: bytes, folder: Path) -> object:
    """What is to be trusted at the broker, who we are there, and the password."""
    path = folder / "broker"
    path.write_bytes(body)
    path.chmod(0o600)
    name = str(path)
    settings = config.Mqtt(host="h", ca_file=name, certificate_file=name, key_file=name, password_file=name)
    return bus._credentials(settings)


def _logged() -> list[bytes]:
    """The log of a small database, and its file."""
    with tempfile.TemporaryDirectory(prefix="bpf") as folder:
        path = Path(folder) / "s.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            for line in ("PRAGMA page_size=512", "PRAGMA journal_mode=WAL", "CREATE TABLE t (n)", "DROP TABLE t"):
                database.execute(line)
            return [(path.with_name("s.db-wal")).read_bytes(), path.read_bytes()]


def _frames(path: Path) -> object:
    """By its salts, and by its sums."""
    return [frames.read(path, summed=False), frames.read(path, summed=True)]


DECODERS: dict[str, Decoder] = {
    "provisioner: join token": Decoder(texts(tokens.decode), [TOKEN], (BedplateError,)),
    "provisioner: configuration": Decoder(
        a_file(_configured, "p.toml"),
        [
            b'listen = "127.0.0.1:7443"\nkeepalive_s = 10\n[mqtt]\nhost = "b"\nport = 8883\n',
            b'[[webhook]]\nname = "a"\nurl = "https://h:8443/x"\nsecret_file = "/s"\ntimeout_s = 1\n',
        ],
        (BedplateError,),
        tables(SETTINGS, ("", "[mqtt]", "[[webhook]]")),
    ),
    "provisioner: CSR": Decoder(plain(pki.csr_key), [CSR, csr_of()], (BedplateError,)),
    "provisioner: ca.pem": Decoder(_ca("ca.pem"), [CA.roots_pem, CA.roots_pem * 2], (BedplateError,)),
    "provisioner: ca.key": Decoder(_ca("ca.key"), [pki.key_pem(CA.key)], (BedplateError,)),
    "provisioner: certificate that a caller shows": Decoder(plain(shown.shown.__wrapped__), [ISSUED.certificate_pem]),
    "provisioner: name in a certificate": Decoder(
        texts(lambda text: (pki.identity(text), access.caller_of([text]))),
        [b"bedplate:machine:m-aaaaaaaa:1", b"bedplate:person:ada:admin"],
    ),
    "provisioner: name of the server": Decoder(
        texts(pki.general_name), [b"::1", b"*.example.org", b"10.0.0.1"], (BedplateError,)
    ),
    "provisioner: filter": Decoder(texts(filters.parse), [b'phase=silent gpus>=8 hostname~"rack 7"'], (BedplateError,)),
    "provisioner: order": Decoder(texts(filters.parse_order), [b"hostname desc", b"gpus"], (BedplateError,)),
    "provisioner: page token": Decoder(
        texts(lambda text: paging.key_of(("machines", ""), text, list[str])), PAGES, (BedplateError,)
    ),
    "provisioner: when a webhook may be asked again": Decoder(
        texts(post._retry_after_s), [b"120", b"Fri, 15 Jan 2027 08:00:00 GMT"]
    ),
    "provisioner: secrets of a webhook": Decoder(
        a_file(lambda path: webhook.secrets_of(str(path)), "secret"),
        [SECRET, SECRET + b"\n" + SECRET],
        (BedplateError,),
    ),
    "provisioner: files for the broker": Decoder(in_a_folder(_broker), [b"".join(PERSON)], (BedplateError,)),
    "provisioner: vitals that were stored": Decoder(
        plain(_folded), [framed([VITALS, DELTA])], (DecodeError,), _stored()
    ),
    "provisioner: log of the store": Decoder(a_file(_frames, "s.db-wal"), _logged()),
    "provisioner: head of the store": Decoder(plain(cut.head_of), _logged()[::-1]),
    "provisioner: anchor": Decoder(texts(chain.anchor), [b"42:" + b"9f" * 32], (BedplateError,)),
    "provisioner: evidence": Decoder(
        plain(evidence.kinds.__wrapped__),
        [EVIDENCE.SerializeToString()],
        (DecodeError,),
        serialized(Evidence, EVIDENCE),
    ),
}
