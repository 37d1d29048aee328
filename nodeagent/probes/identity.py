"""Who the machine is, as its firmware and its disk say: raw, for the provisioner weighs what it is worth."""

from bedplate.v1.snapshot_pb2 import Identity, Inventory, Snapshot
from nodeagent.host import Host
from nodeagent.root import Root

ON = ("dmi",)
EVERY_S = 60.0  # a host may get its name after the agent has started, and no event says so

DMI = {
    "vendor": "sys_vendor",
    "product": "product_name",
    "product_serial": "product_serial",
    "product_uuid": "product_uuid",
    "board_serial": "board_serial",
    "chassis_serial": "chassis_serial",
    "bios_version": "bios_version",
    "bios_date": "bios_date",
}

# What firmware that is a hypervisor's calls itself, in vendor or product.
HYPERVISORS = {
    "QEMU": "kvm",
    "KVM": "kvm",
    "Amazon EC2": "kvm",
    "Google Compute Engine": "kvm",
    "OpenStack": "kvm",
    "VMware": "vmware",
    "VirtualBox": "virtualbox",
    "Virtual Machine": "hyperv",
    "Xen": "xen",
    "Bochs": "bochs",
    "BHYVE": "bhyve",
}


def probe(host: Host) -> Snapshot:
    root = host.root
    dmi = {field: root.text(f"sys/class/dmi/id/{file}") for field, file in DMI.items()}
    identity = Identity(
        hostname=root.text("proc/sys/kernel/hostname") or "",
        machine_id=root.text("etc/machine-id"),
        hypervisor=_hypervisor(root, f"{dmi['vendor']} {dmi['product']}"),
        **dmi,
    )
    return Snapshot(inventory=Inventory(identity=identity))


def _hypervisor(root: Root, firmware: str) -> str | None:
    """Its name; "unknown" where the processor says that there is one and nothing says which."""
    told = root.text("sys/hypervisor/type")
    if told is not None:
        return told
    # Amazon's bare metal has the same vendor as its virtual machines: the processor's word is the first one.
    if not _virtual(root.text("proc/cpuinfo") or ""):
        return None
    return next((name for hint, name in HYPERVISORS.items() if hint in firmware), "unknown")


def _virtual(cpuinfo: str) -> bool:
    """Whether the first processor has the flag "hypervisor". ARM has none: there sys/hypervisor and DMI must say."""
    flags = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
    return "hypervisor" in flags.split()
