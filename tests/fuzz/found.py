"""Inputs that something did not stand once, as they were shrunk: by decoder, each once more in every run."""

import math
import ssl

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from bedplate.v1.enrolment_pb2 import EnrolResponse, Pending
from tests.fuzz.agents import ISSUED


def _soon(seconds: int) -> Any:
    packed = Any()
    packed.Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=seconds)))
    return packed


GARBLED = Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\x0b\x02\x08\x02")
CAPTURE = b'{"format": 1, "taken_at": "2026-11-24T10:00:00Z", "refused": %s}'
NO_YEAR = b"\x10\xff\xff\xff\xff\x07"  # a time with too many nanoseconds
WEBHOOK = b'[[webhook]]\nname = "a"\nsecret_file = "/s"\nurl = "%s"\n'
TWICE = ssl.PEM_cert_to_DER_cert(ISSUED.certificate_pem.decode()).replace(b"\x55\x1d\x0f", b"\x55\x1d\x13")

FOUND: dict[str, tuple[bytes, ...]] = {
    "agent: capture.json": (CAPTURE % b"null", CAPTURE % b'{"a": 1}', CAPTURE % b'{"a": "__name__"}'),
    "agent: HOST:PORT": (b"h:" + 5000 * b"9",),
    "agent: mountinfo": (b"36 35 98:0 / /mnt/a\f\fb ro - tmpfs tmpfs ro\n\n36",),
    "agent: configuration": (b'"\\n" = 1',),
    "provisioner: configuration": (
        b'"\\n" = 1',
        b"keepalive_s = inf",
        b"connections = 99999999999",
        WEBHOOK % b"https://h::443/x",
        WEBHOOK % b"https://h:99999/x",
        WEBHOOK % b"https://[h/x",
    ),
    "provisioner: secrets of a webhook": (b"whsec_\xff\xff\xff\xffMfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",),
    "provisioner: certificate that a caller shows": (ssl.DER_cert_to_PEM_cert(TWICE).encode(),),  # an extension, twice
    "agent: what the provisioner answers a newcomer": (
        b"\xff",
        EnrolResponse(pending=Pending(retry_after_s=math.inf)).SerializeToString(),
        EnrolResponse(pending=Pending(retry_after_s=math.nan)).SerializeToString(),
    ),
    "cli: snapshot": (b'{"snapshot": null}', b'{"snapshot": true}'),
    "cli: why it was refused": (
        b"\x08\x02\x12",
        status_pb2.Status(code=8, message="too fast", details=[GARBLED]).SerializeToString(),
        status_pb2.Status(code=8, message="too fast", details=[_soon(-1)]).SerializeToString(),
    ),
    "cli: a machine": (
        b"\n\x03\n\x01\x1f",
        b"\n\n\xa9\x01\x00\x00\x00\x00\x00\x00\xf0\x7f",
    ),
    "cli: machines": (b"\n\x08z\x06" + NO_YEAR,),
    "cli: CloudEvents": (b"\x12\x06" + NO_YEAR,),
}
