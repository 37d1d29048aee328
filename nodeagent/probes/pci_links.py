"""What each PCIe link has now: a GPU slows its link when it idles, and a bad seat narrows it."""

from bedplate.v1.snapshot_pb2 import PciLinkVitals, Snapshot, Vitals
from nodeagent.host import Host
from nodeagent.pci import gigatransfers, width
from nodeagent.root import Root

EVERY_S = 60.0  # two reads for each of some hundred devices

DEVICES = "sys/bus/pci/devices"


def probe(host: Host) -> Snapshot:
    now = {address.lower(): _link(host.root, f"{DEVICES}/{address}") for address in host.root.names(DEVICES)}
    return Snapshot(vitals=Vitals(pci_links={address: link for address, link in now.items() if link}))


def _link(root: Root, path: str) -> PciLinkVitals | None:
    lanes = width(root.natural(f"{path}/current_link_width"))
    if lanes is None:
        return None
    return PciLinkVitals(gigatransfers=gigatransfers(root.text(f"{path}/current_link_speed")), width=lanes)
