"""What the other end of a conversation says to one of our programs, when it is not what it should be."""

import random

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st

from bedplate.v1.snapshot_pb2 import Snapshot
from bedplate.v1.uplink_pb2 import SessionResponse, Welcome
from nodeagent.session import PeerError, Session
from tests.edge import RUN
from tests.fuzz.decoder import Decoder, plain
from tests.fuzz.inputs import framed, unframed
from tests.fuzz.messages import serialized

WELCOME = SessionResponse(welcome=Welcome(epoch=1)).SerializeToString()


def _session(body: bytes) -> None:
    """The agent's end, for which each message is one second."""
    session, snapshot = Session(RUN, "1", random.Random(1)), Snapshot()  # noqa: S311 - jitter
    session.observe(snapshot, b"", b"d" * 32, 0.0)
    session.connected(1.0, Timestamp())
    try:
        for now, one in enumerate(unframed(body), 1):
            for request in session.receive(SessionResponse.FromString(one), float(now)):
                request.SerializeToString()
            session.observe(snapshot, b"", b"e" * 32, float(now))
    finally:
        session.lost("it is over", 9.0)
        assert session.dial_at < 1e6


def _said() -> st.SearchStrategy[bytes]:
    said = serialized(SessionResponse)
    return st.builds(lambda first, rest: framed([first, *rest]), st.just(WELCOME) | said, st.lists(said, max_size=5))


DECODERS: dict[str, Decoder] = {
    "agent: what the provisioner says on its stream": Decoder(
        plain(_session), [framed([WELCOME])], (PeerError, DecodeError), _said()
    ),
}
