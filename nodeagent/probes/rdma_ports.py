"""RDMA ports now: state, rate, and the counters that tell of trouble."""

import re

from bedplate.v1.snapshot_pb2 import RdmaPortVitals, Snapshot, Vitals
from nodeagent.host import Host
from nodeagent.root import Root

EVERY_S = 10.0

PORTS = "sys/class/infiniband/*/ports/*"

# Of the port itself (counters) and of its transport (hw_counters). What counts ordinary work is left out.
TROUBLE = {
    "counters": (
        "VL15_dropped",
        "excessive_buffer_overrun_errors",
        "link_downed",
        "link_error_recovery",
        "local_link_integrity_errors",
        "port_rcv_errors",
        "port_rcv_remote_physical_errors",
        "port_rcv_switch_relay_errors",
        "port_xmit_constraint_errors",
        "port_xmit_discards",
        "symbol_error",
    ),
    "hw_counters": (
        "implied_nak_seq_err",
        "local_ack_timeout_err",
        "out_of_sequence",
        "packet_seq_err",
        "req_cqe_error",
        "resp_cqe_error",
        "rnr_nak_retry_err",
        "roce_adp_retrans_to",
        "roce_slow_restart",
        "rp_cnp_ignored",
        "rx_drops",
        "rx_icrc_encapsulated",
        "rdma_read_wr_err",
        "rdma_write_wr_err",
        "retrans_timeout_events",
        "impaired_remote_conn_events",
        "unresponsive_remote_events",
    ),
}


def probe(host: Host) -> Snapshot:
    ports = {_name(path): _port(host.root, path) for path in host.root.glob(PORTS)}
    return Snapshot(vitals=Vitals(rdma_ports=ports))


def _name(path: str) -> str:
    """'sys/class/infiniband/mlx5_0/ports/1' -> 'mlx5_0/1'"""
    parts = path.split("/")
    return f"{parts[-3]}/{parts[-1]}"


def _port(root: Root, path: str) -> RdmaPortVitals:
    gigabits, width_and_rate = _rate(root.text(f"{path}/rate") or "")
    return RdmaPortVitals(
        state=_word(root.text(f"{path}/state")),
        physical_state=_word(root.text(f"{path}/phys_state")),
        gigabits=gigabits,
        width_and_rate=width_and_rate,
        counters=_counters(root, path),
    )


def _counters(root: Root, path: str) -> dict[str, int]:
    """Those that are there: which ones a device has is its driver's affair."""
    found = {}
    for folder, wanted in TROUBLE.items():
        for name in set(root.names(f"{path}/{folder}")).intersection(wanted):
            count = root.natural(f"{path}/{folder}/{name}")
            if count is not None:
                found[name] = count
    return found


def _word(text: str | None) -> str | None:
    """'4: ACTIVE' -> 'ACTIVE'"""
    return text.rpartition(":")[2].strip() or None if text else None


def _rate(text: str) -> tuple[float | None, str | None]:
    """'400 Gb/sec (4X NDR)' -> (400.0, '4X NDR')"""
    found = re.match(r"(\d+(?:\.\d+)?) Gb/sec(?: \((.+)\))?", text)
    return (float(found[1]), found[2]) if found else (None, None)
