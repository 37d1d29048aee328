"""What gRPC is told about both ports: how large, how many, how long. What it refuses by itself, it refuses here.

Rule 1: nothing is refused at random. gRPC's own queue of calls that nobody has taken yet drops some of them by chance
        from 1,000 on (with `CANCELLED`, and no word on when to come back); here it is as long as it gets, and the
        turnstile, which is behind it, says who is to come back, and when.
Rule 2: what a peer can hold without a call is bounded: connections in number, handshakes and idleness in time.
Rule 3: no window is measured. gRPC would send a ping after what comes on a connection, and so for nearly each word of
        a machine, to learn how much can be under way; an inventory of 27 kB fits into the 64 of HTTP/2.
"""

import logging
import resource
from urllib.parse import unquote

from provisioner.config import Config

LOG = logging.getLogger("provisioner")
Options = list[tuple[str, int]]
ENDLESS = 1 << 30
REQUEST_S = 20.0  # for a request to come whole, once it was taken: less than a stranger's connection lasts
QUEUE_S = 120  # a call that nobody took for so long is given up: 30 by default, which a storm may need
HANDSHAKE_MS = 30_000  # ten thousand agents that come at once take 20 s on two cores
STREAMS = 1000  # calls at a time on one connection: a client that does not know that yet has its further ones reset
METADATA = 16 << 10
IDLE_MS = 300_000  # a connection without a call; a client makes another when it needs one
MESSAGE = 4 << 20  # of a machine: a hundred times the largest inventory
STRANGER_MESSAGE = 64 << 10  # an enrolment has some kilobytes
STRANGER_STREAMS = 8  # an agent has one
STRANGER_IDLE_MS = 15_000
STRANGER_AGE_MS = 30_000  # whatever is under way: a call that was begun and never said is not held for ever
ANSWER_MS = 10_000  # for the answer to a ping
RESERVE = 256  # descriptors that are not connections: the store, its threads, the log


def main(config: Config) -> Options:
    """Of the port for machines, people and tools: all who get through the handshake hold a certificate."""
    return [
        *_both(config),
        ("grpc.max_receive_message_length", MESSAGE),
        ("grpc.max_send_message_length", 32 << 20),
        ("grpc.max_allowed_incoming_connections", config.connections),
        ("grpc.max_concurrent_streams", STREAMS),
        ("grpc.max_connection_idle_ms", IDLE_MS),
    ]


def door(config: Config) -> Options:
    """Of the port for newcomers: a stranger is kept small."""
    return [
        *_both(config),
        ("grpc.max_receive_message_length", STRANGER_MESSAGE),
        ("grpc.max_send_message_length", 1 << 20),
        ("grpc.max_allowed_incoming_connections", config.enrol_connections),
        ("grpc.max_concurrent_streams", STRANGER_STREAMS),
        ("grpc.max_connection_idle_ms", STRANGER_IDLE_MS),
        ("grpc.max_connection_age_ms", STRANGER_AGE_MS),
        ("grpc.max_connection_age_grace_ms", STRANGER_IDLE_MS),
    ]


def _both(config: Config) -> Options:
    keepalive_ms = int(config.keepalive_s * 1000)
    answer_ms = min(keepalive_ms, ANSWER_MS)
    return [
        ("grpc.so_reuseport", 0),  # a port that is taken is an error, not half of the connections
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", answer_ms),
        ("grpc.http2.ping_timeout_ms", answer_ms),  # a minute, if nobody says otherwise
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.bdp_probe", 0),  # rule 3
        ("grpc.server.max_pending_requests", ENDLESS),
        ("grpc.server.max_pending_requests_hard_limit", ENDLESS),
        ("grpc.server_max_unrequested_time_in_server", QUEUE_S),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.max_metadata_size", METADATA),
        ("grpc.absolute_max_metadata_size", METADATA),
    ]


def make_room(config: Config) -> None:
    """A descriptor for each connection that is allowed, where the host allows it; a line where it does not."""
    need = config.connections + config.enrol_connections + RESERVE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    may = need if hard == resource.RLIM_INFINITY else min(need, hard)
    if soft != resource.RLIM_INFINITY and soft < may:
        resource.setrlimit(resource.RLIMIT_NOFILE, (may, hard))
    if may < need:
        LOG.warning(
            "this process may have %d open files, and connections and enrol_connections allow %d: "
            "raise LimitNOFILE or lower them",
            may,
            need,
        )


def host_of(peer: str) -> str:
    """'ipv4:127.0.0.1:41234' -> '127.0.0.1', 'ipv6:%5B2001:db8::1%5D:41234' -> '2001:db8::1'"""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]") or peer
