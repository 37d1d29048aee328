"""Network interfaces as the kernel's rtnetlink has them, through pyroute2.

The library costs 24 MiB and 0.4 s to import, so only `links` imports it; it is asked at the start and on events.
"""

from collections import defaultdict
from typing import Any

_MAIN_TABLE = 254
_PASSING_ADDRESS = 0x01 | 0x40  # IFA_F_TEMPORARY, IFA_F_TENTATIVE: privacy addresses that change daily, half-made ones


def links() -> list[dict[str, Any]]:
    """All interfaces, in order of their index."""
    from pyroute2 import IPRoute  # type: ignore[import-untyped]  # noqa: PLC0415 - see above

    with IPRoute() as route:
        found = [(message["index"], message.get("attrs", ())) for message in route.get_links()]
        addresses = defaultdict(list)
        for message in route.get_addr():
            attrs = dict(message.get("attrs", ()))
            address = attrs.get("IFA_LOCAL") or attrs.get("IFA_ADDRESS")
            if address and not attrs.get("IFA_FLAGS", message["flags"]) & _PASSING_ADDRESS:
                addresses[message["index"]].append(f"{address}/{message['prefixlen']}")
        default = {index for message in route.get_default_routes(table=_MAIN_TABLE) for index in _ways(message)}
    names = {index: dict(attrs).get("IFLA_IFNAME") for index, attrs in found}
    return [
        {**_link(index, dict(attrs), names), "addresses": sorted(addresses[index]), "default_route": index in default}
        for index, attrs in sorted(found, key=lambda link: link[0])
    ]


def _ways(route: Any) -> list[int]:
    """The interfaces of a route: one, or several where it has several next hops."""
    attrs = dict(route.get("attrs", ()))
    hops = attrs.get("RTA_MULTIPATH")
    if hops:
        return [hop["oif"] for hop in hops]
    return [attrs["RTA_OIF"]] if "RTA_OIF" in attrs else []


def _link(index: int, attrs: dict[str, Any], names: dict[int, str | None]) -> dict[str, Any]:
    info = dict((attrs.get("IFLA_LINKINFO") or {}).get("attrs", ()))
    return {
        "name": attrs.get("IFLA_IFNAME"),
        "index": index,
        "kind": info.get("IFLA_INFO_KIND"),
        "mac": attrs.get("IFLA_ADDRESS"),
        "permanent_mac": attrs.get("IFLA_PERM_ADDRESS"),
        "mtu": attrs.get("IFLA_MTU"),
        "controller": names.get(attrs.get("IFLA_MASTER", 0)),
    }
