"""Network interfaces now, of sysfs alone: those that are hardware, and the bonds over them."""

from bedplate.v1.snapshot_pb2 import LinkVitals, Snapshot, Vitals
from nodeagent.host import Host
from nodeagent.root import Root

EVERY_S = 10.0

NET = "sys/class/net"


def probe(host: Host) -> Snapshot:
    root = host.root
    names = [name for name in root.names(NET) if root.exists(f"{NET}/{name}/device") or _is_bond(root, name)]
    return Snapshot(vitals=Vitals(links={name: _link(root, f"{NET}/{name}") for name in names}))


def _is_bond(root: Root, name: str) -> bool:
    return root.exists(f"{NET}/{name}/bonding")


def _link(root: Root, path: str) -> LinkVitals:
    carrier = root.natural(f"{path}/carrier")
    megabits = root.natural(f"{path}/speed", bits=31)  # absent while the link is down; -1 where there is none to tell
    return LinkVitals(
        operational_state=root.text(f"{path}/operstate"),
        carrier=None if carrier is None else carrier == 1,
        gigabits=megabits / 1000 if megabits else None,
        carrier_up_count=root.natural(f"{path}/carrier_up_count"),
        carrier_down_count=root.natural(f"{path}/carrier_down_count"),
        receive_errors=root.natural(f"{path}/statistics/rx_errors"),
        transmit_errors=root.natural(f"{path}/statistics/tx_errors"),
    )
