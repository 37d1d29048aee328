"""Machines for the tests of the terminal: made up, in the shape of ones that are sold."""

from google.protobuf.timestamp_pb2 import Timestamp

from bedplate.v1.fleet_pb2 import GetMachineResponse, Machine, Phase
from bedplate.v1.snapshot_pb2 import (
    Cpu,
    Disk,
    Gpu,
    HostVitals,
    Identity,
    Inventory,
    Link,
    LinkVitals,
    Memory,
    NumaNode,
    NvidiaDriver,
    NvLink,
    Os,
    PciDevice,
    Problem,
    RdmaDevice,
    RdmaPort,
    RdmaPortVitals,
    Snapshot,
    Vitals,
)
from nodeagent.topology import topology

NOW = 1_795_000_000


def at(seconds: float) -> Timestamp:
    return Timestamp(seconds=int(NOW + seconds))


def machine(number: int = 1, phase: Phase.ValueType = Phase.PHASE_PRESENT, **fields: object) -> Machine:
    told: dict[str, object] = {
        "machine_id": f"m-{number:08x}",
        "incarnation": 1,
        "hostname": f"gpu-{number:02}",
        "phase": phase,
        "because": "its stream is open since 2026-11-18 05:00:00Z",
        "product": "NVIDIA DGX H100",
        "gpu_count": 8,
        "gpu_model": "NVIDIA H100 80GB HBM3",
        "rdma_count": 12,
        "agent_version": "0.1.0",
        "asked_at": at(-7200),
        "accepted_at": at(-7100),
        "last_heard_at": at(0),
        "peer": "10.0.0.7:40112",
    }
    return Machine(**{**told, **fields})  # type: ignore[arg-type]


def gpu_host(gpus: int = 8, nics: int = 12, *, switched: bool = True) -> Snapshot:
    """Two NUMA nodes; under each, switches with two GPUs and the NICs that they share."""
    inventory = _chassis()
    for n in range(gpus):
        device = _device(n, gpus, n % (gpus // 2) // 2, 0x20 + n, "nvidia")
        inventory.pci_devices.append(device)
        gpu = Gpu(uuid=f"GPU-{n:04}", pci_address=device.address, name="NVIDIA H100 80GB HBM3", memory_bytes=85 << 30)
        links = range(18 if switched else 0)
        gpu.nvlinks.extend(NvLink(number=link, active=True, remote=NvLink.REMOTE_SWITCH) for link in links)
        inventory.gpus.append(gpu)
    vitals = Vitals(host=HostVitals(memory_available_bytes=2_000_000_000_000))
    for n in range(nics):
        device = _device(n, nics, n % (nics // 2) % (gpus // 4), 0x80 + n, "mlx5_core")
        inventory.pci_devices.append(device)
        port = RdmaPort(number=1, link_layer="InfiniBand", links=[f"ib{n}"])
        inventory.rdma_devices.append(RdmaDevice(name=f"mlx5_{n}", pci_address=device.address, ports=[port]))
        inventory.links.append(Link(name=f"ib{n}", pci_address=device.address, driver="mlx5_core"))
        state = "DOWN" if n == nics - 1 else "ACTIVE"
        vitals.rdma_ports[f"mlx5_{n}/1"].CopyFrom(RdmaPortVitals(state=state, gigabits=400))
    inventory.topology.CopyFrom(topology(inventory))
    return Snapshot(inventory=inventory, vitals=vitals)


def _chassis() -> Inventory:
    """All but GPUs and NICs."""
    nodes = [NumaNode(number=n, cpus=f"{n * 48}-{n * 48 + 47},{96 + n * 48}-{143 + n * 48}") for n in (0, 1)]
    disks = [Disk(name=f"nvme{n}n1", model="SAMSUNG MZQL2", size_bytes=3_840_755_982_336) for n in range(8)]
    return Inventory(
        identity=Identity(
            hostname="gpu-01", vendor="NVIDIA", product="NVIDIA DGX H100", product_serial="1660224000123"
        ),
        os=Os(name="Ubuntu 22.04.3 LTS", kernel="5.15.0-1030-nvidia", architecture="x86_64"),
        cpu=Cpu(model="Intel Xeon Platinum 8480C", sockets=2, cores=96, threads=192),
        memory=Memory(total_bytes=2_164_663_517_184),
        nvidia_driver=NvidiaDriver(module_version="580.65.06", cuda_version="13.0"),
        numa_nodes=nodes,
        disks=disks,
    )


def plain_host() -> Snapshot:
    """A virtual machine with one NIC, and a virtual interface."""
    inventory = Inventory(numa_nodes=[NumaNode(number=0, cpus="0-1")])
    inventory.identity.hostname, inventory.identity.hypervisor = "box", "kvm"
    bridge = PciDevice(address="0000:00:03.0", chain=["pci0000:00"], driver="virtio-pci")
    inventory.pci_devices.append(bridge)
    inventory.links.add(name="eth0", pci_address="0000:00:03.0", driver="virtio_net")
    inventory.links.add(name="lo", kind="loopback")
    inventory.topology.CopyFrom(topology(inventory))
    vitals = Vitals()
    vitals.links["eth0"].CopyFrom(LinkVitals(operational_state="up", gigabits=10))
    problem = Problem(probe="gpus", kind=Problem.KIND_ABSENT, detail="this machine has no NVIDIA driver")
    return Snapshot(inventory=inventory, vitals=vitals, problems=[problem])


def answer(snapshot: Snapshot | None = None, **fields: object) -> GetMachineResponse:
    return GetMachineResponse(machine=machine(**fields), snapshot=snapshot)  # type: ignore[arg-type]


def _device(number: int, total: int, switch: int, bus: int, driver: str) -> PciDevice:
    node = number * 2 // total
    chain = [
        f"pci0000:{node * 8:02x}",
        f"0000:{node * 8:02x}:01.0",
        f"0000:{node * 8 + 1 + switch:02x}:00.0",
        f"0000:{bus:02x}:01.0",
    ]
    return PciDevice(address=f"0000:{bus:02x}:00.0", chain=chain, driver=driver, numa_node=node)
