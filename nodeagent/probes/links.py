"""Network interfaces: names and addresses of rtnetlink, driver and place of sysfs."""

from typing import Any

from bedplate.v1.snapshot_pb2 import Inventory, Link, Snapshot
from nodeagent.host import Host
from nodeagent.pci import address_in
from nodeagent.root import Root

ON = ("net", "links")

# What comes and goes with containers and tunnels is not the machine: an inventory that lists it changes with every pod.
PASSING = frozenset(
    {"dummy", "geneve", "gre", "gretap", "ifb", "ip6tnl", "ipip", "ipvlan", "macvlan", "macvtap", "netkit", "nlmon"}
    | {"sit", "tun", "veth", "vxlan", "wireguard", "xfrm"}
)


def probe(host: Host) -> Snapshot:
    found = [link for link in host.ask("links") if link.get("name") not in {None, "lo"}]
    links = [_link(host.root, link) for link in found if link.get("kind") not in PASSING]
    return Snapshot(inventory=Inventory(links=sorted(links, key=lambda link: link.name)))


def _link(root: Root, link: dict[str, Any]) -> Link:
    device = f"sys/class/net/{link['name']}/device"
    hardware = root.exists(device)
    return Link(
        name=link["name"],
        kind=link.get("kind"),
        mac=link.get("mac"),
        permanent_mac=link.get("permanent_mac"),
        driver=root.link(f"{device}/driver") if hardware else None,
        pci_address=address_in(root.real(device)) if hardware else None,
        mtu=link.get("mtu"),
        controller=link.get("controller"),
        addresses=sorted(link.get("addresses") or ()),
        default_route=link.get("default_route"),
    )
