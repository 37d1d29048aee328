"""How parts reach each other: the rules of `nvidia-smi topo -m`, on trees small enough to draw."""

import dataclasses
import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.v1.snapshot_pb2 import Gpu, Inventory, Link, NumaNode, NvLink, PciDevice, RdmaDevice, Topology
from nodeagent.topology import Place, by_number, matrix, path, topology

# A tree as text: host bridge, bridges, device; and the NUMA node.
TREE = """
pci0000:10 10:01.0 20:00.0              21:00.0  0
pci0000:10 10:01.0 20:01.0              22:00.0  0
pci0000:10 10:01.0 20:02.0 30:00.0      31:00.0  0
pci0000:10 10:02.0                      40:00.0  0
pci0000:50 50:01.0                      51:00.0  0
pci0000:80 80:01.0                      81:00.0  1
pci0000:90 90:01.0                      91:00.0  -1
"""


def device(line):
    *chain, address, numa = line.split()
    return PciDevice(
        address=f"0000:{address}",
        chain=[piece if piece.startswith("pci") else f"0000:{piece}" for piece in chain],
        numa_node=None if numa == "-1" else int(numa),
    )


def machine(tree=TREE, *, gpus=(), nics=(), links=(), numa_nodes=(0, 1)):
    return Inventory(
        pci_devices=[device(line) for line in tree.strip().splitlines()],
        gpus=gpus,
        rdma_devices=[RdmaDevice(name=name, pci_address=f"0000:{address}") for name, address in nics],
        links=links,
        numa_nodes=[NumaNode(number=number, cpus=f"{number * 8}-{number * 8 + 7}") for number in numa_nodes],
    )


def gpu(address, *remotes, module=None):
    links = [NvLink(number=number, active=True, **remote) for number, remote in enumerate(remotes)]
    return Gpu(pci_address=f"0000:{address}", uuid=f"GPU-{address}", module_id=module, nvlinks=links)


SWITCH = {"remote": NvLink.REMOTE_SWITCH, "remote_pci_address": "0000:06:00.0"}
HIDDEN = {"remote": NvLink.REMOTE_UNSPECIFIED}


def to(address):
    return {"remote": NvLink.REMOTE_GPU, "remote_pci_address": f"0000:{address}"}


def words(inventory):
    """GPU or NIC -> what its row of the matrix says."""
    have = topology(inventory)
    lines = matrix(have).splitlines()[1 : 1 + len(have.parts)]
    return {line.split()[0]: line.split()[1 : 1 + len(have.parts)] for line in lines}


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("22:00.0", "PIX"),
        ("31:00.0", "PXB"),
        ("40:00.0", "PHB"),
        ("51:00.0", "NODE"),
        ("81:00.0", "SYS"),
        ("91:00.0", "SYS"),
        ("99:00.0", "?"),
    ],
)
def test_each_path_has_the_word_that_nvidia_smi_has_for_it(address, word):
    assert words(machine(gpus=[gpu("21:00.0")], nics=[("mlx5_0", address)]))["GPU0"] == ["X", word]


def test_two_functions_of_one_device_are_one_switch_apart_even_under_no_bridge():
    tree = "pci0000:10  10:00.0  -1\npci0000:10  10:00.1  -1"
    assert words(machine(tree, nics=[("mlx5_0", "10:00.0"), ("mlx5_1", "10:00.1")]))["mlx5_0"] == ["X", "PIX"]


def test_a_second_host_bridge_in_the_chain_is_the_one_that_counts():
    tree = """
    pci0000:64 pci10000:00  02:00.0  0
    pci0000:64 pci10001:00  04:00.0  0
    pci0000:64 pci10001:00  05:00.0  0
    """
    nics = [("mlx5_0", "02:00.0"), ("mlx5_1", "04:00.0"), ("mlx5_2", "05:00.0")]
    assert words(machine(tree, nics=nics))["mlx5_1"] == ["NODE", "X", "PHB"]


def test_a_machine_of_one_numa_node_has_no_interconnect_to_cross():
    have = machine(gpus=[gpu("91:00.0")], nics=[("mlx5_0", "51:00.0")], numa_nodes=[0])
    assert words(have)["GPU0"] == ["X", "NODE"]
    assert topology(have).parts[0].numa_node == 0


@pytest.mark.parametrize(
    ("one", "other", "word"),
    [
        ([to("22:00.0")] * 2, [to("21:00.0")] * 2, "NV2"),
        ([SWITCH] * 18, [SWITCH] * 18, "NV18"),
        ([SWITCH] * 18, [SWITCH] * 17, "NV17"),
        ([HIDDEN] * 4, [SWITCH] * 4, "NV4"),
        ([to("77:00.0")] * 2, [to("21:00.0")] * 2, "PIX"),
        ([{"remote": NvLink.REMOTE_CPU}], [{"remote": NvLink.REMOTE_CPU}], "PIX"),
        ([], [SWITCH] * 18, "PIX"),
    ],
)
def test_nvlinks_count_where_both_ends_say_so(one, other, word):
    assert words(machine(gpus=[gpu("21:00.0", *one), gpu("22:00.0", *other)]))["GPU0"] == ["X", word]


def test_an_nvlink_that_is_down_or_was_not_measured_does_not_count():
    one, other = gpu("21:00.0", *[SWITCH] * 18), gpu("22:00.0", *[SWITCH] * 18)
    one.nvlinks[0].active = False
    one.nvlinks[1].ClearField("active")
    assert words(machine(gpus=[one, other]))["GPU0"] == ["X", "NV16"]


def test_gpus_are_numbered_by_address_and_nics_sorted_by_their_number():
    have = topology(
        machine(gpus=[gpu("22:00.0"), gpu("21:00.0")], nics=[("mlx5_10", "40:00.0"), ("mlx5_9", "51:00.0")])
    )
    assert [(part.name, part.pci_address) for part in have.parts] == [
        ("GPU0", "0000:21:00.0"),
        ("GPU1", "0000:22:00.0"),
        ("mlx5_9", "0000:51:00.0"),
        ("mlx5_10", "0000:40:00.0"),
    ]


def test_each_gpu_names_its_nearest_nics_and_those_that_tie():
    have = topology(
        machine(
            gpus=[gpu("21:00.0"), gpu("81:00.0")],
            nics=[("mlx5_0", "31:00.0"), ("mlx5_1", "31:00.1"), ("mlx5_2", "51:00.0")],
        )
    )
    near, far = have.parts[:2]
    assert (list(near.nearest), near.nearest_path) == (["mlx5_0"], Topology.PATH_PXB)
    assert (list(far.nearest), far.nearest_path) == (["mlx5_0", "mlx5_2"], Topology.PATH_SYS)


def test_rails_follow_the_modules_and_not_the_numbers_of_the_nics():
    nics = [("mlx5_0", "22:00.0"), ("mlx5_1", "41:00.0"), ("mlx5_2", "81:00.0")]
    tree = f"{TREE}pci0000:10 10:02.0  41:00.0  0"
    have = topology(machine(tree, gpus=[gpu("21:00.0", module=4), gpu("40:00.0", module=2)], nics=nics))
    rails = {part.name: part.rail if part.HasField("rail") else None for part in have.parts if not part.gpu}
    assert rails == {"mlx5_0": 1, "mlx5_1": 0, "mlx5_2": None}


def test_rails_follow_the_addresses_where_a_gpu_does_not_say_its_module():
    nics = [("mlx5_0", "22:00.0"), ("mlx5_1", "41:00.0")]
    tree = f"{TREE}pci0000:10 10:02.0  41:00.0  0"
    have = topology(machine(tree, gpus=[gpu("21:00.0"), gpu("40:00.0", module=2)], nics=nics))
    assert [part.rail for part in have.parts if not part.gpu] == [0, 1]


def test_a_virtual_function_is_no_nic_of_its_own():
    have = machine(nics=[("mlx5_0", "21:00.0"), ("mlx5_1", "21:00.1")])
    have.pci_devices.add(address="0000:21:00.1", physical_function="0000:21:00.0")
    assert [part.name for part in topology(have).parts] == ["mlx5_0"]


def test_a_virtual_function_whose_physical_one_is_elsewhere_is_what_there_is():
    have = machine(nics=[("mlx5_1", "21:00.1")])
    have.pci_devices.add(address="0000:21:00.1", physical_function="0000:21:00.0")
    assert [part.name for part in topology(have).parts] == ["mlx5_1"]


LINKS = (
    Link(name="eth0", pci_address="0000:21:00.0", driver="virtio_net"),
    Link(name="eth1", driver="hv_netvsc"),
    Link(name="docker0", kind="bridge"),
    Link(name="lo"),
)


def test_without_rdma_the_nics_are_the_interfaces_that_are_hardware():
    have = topology(machine(links=LINKS))
    assert [(part.name, part.pci_address, part.cpus) for part in have.parts] == [
        ("eth0", "0000:21:00.0", "0-7"),
        ("eth1", "", ""),
    ]


def test_with_rdma_the_other_interfaces_are_not_listed():
    assert [part.name for part in topology(machine(links=LINKS, nics=[("mlx5_0", "40:00.0")])).parts] == ["mlx5_0"]


def test_a_machine_with_neither_gpu_nor_nic_says_so():
    assert matrix(topology(Inventory())) == "No GPU and no NIC"


def test_the_matrix_says_where_each_part_sits():
    have = machine(gpus=[gpu("21:00.0", module=1)], nics=[("mlx5_0", "31:00.0")])
    assert matrix(topology(have)).splitlines()[:4] == [
        "        GPU0  mlx5_0  CPU affinity  NUMA  PCI address   Nearest NICs  Rail",
        "GPU0    X     PXB     0-7           0     0000:21:00.0  mlx5_0 (PXB)",
        "mlx5_0  PXB   X       0-7           0     0000:31:00.0                0",
        "",
    ]


ADDRESSES = [line.split()[-2] for line in TREE.strip().splitlines()] + ["99:00.0"]
PLACES = st.builds(
    Place,
    address=st.sampled_from(["", *ADDRESSES]),
    bridges=st.lists(st.sampled_from("abc"), max_size=4).map(tuple),
    host_bridge=st.sampled_from(["", "pci0000:10", "pci0000:80"]),
    numa_node=st.sampled_from([None, 0, 1]),
    known=st.booleans(),
)
REMOTES = st.lists(st.sampled_from([SWITCH, HIDDEN, *map(to, ADDRESSES[:3])]), max_size=4)


@st.composite
def inventories(draw):
    addresses = draw(st.permutations(ADDRESSES))
    cut = draw(st.integers(0, len(addresses)))
    return machine(
        gpus=[gpu(address, *draw(REMOTES)) for address in addresses[:cut]],
        nics=[(f"mlx5_{number}", address) for number, address in enumerate(addresses[cut:])],
    )


@given(PLACES, PLACES)
def test_a_path_is_the_same_from_either_end(a, b):
    assert path(a, b) == path(b, a)


@given(PLACES, PLACES)
def test_one_more_bridge_in_common_never_makes_a_path_longer(a, b):
    closer = path(*(dataclasses.replace(place, bridges=("root", *place.bridges)) for place in (a, b)))
    assert closer <= (path(a, b) or Topology.PATH_SYS)


@given(inventories())
def test_each_unordered_pair_stands_once_and_joins_two_parts(inventory):
    have = topology(inventory)
    pairs = [(pair.one, pair.other) for pair in have.pairs]
    assert pairs == list(combinations(range(len(have.parts)), 2))


@given(inventories(), st.randoms(use_true_random=False))
def test_the_order_of_the_inventory_makes_no_difference(inventory, chance: random.Random):
    mixed = Inventory()
    mixed.CopyFrom(inventory)
    for field in ("pci_devices", "gpus", "rdma_devices", "numa_nodes"):
        entries = list(getattr(inventory, field))
        chance.shuffle(entries)
        mixed.ClearField(field)
        getattr(mixed, field).extend(entries)
    assert topology(mixed) == topology(inventory)


@given(inventories())
def test_no_other_nic_is_nearer_than_the_nearest(inventory):
    have = topology(inventory)
    for number, part in enumerate(have.parts):
        ways = {
            have.parts[pair.other].name: pair.path
            for pair in have.pairs
            if pair.one == number and part.gpu and not have.parts[pair.other].gpu and pair.path
        }
        assert set(part.nearest) == {name for name, way in ways.items() if way == min(ways.values())}


@given(inventories())
def test_rails_are_counted_without_a_gap(inventory):
    rails = sorted(part.rail for part in topology(inventory).parts if part.HasField("rail"))
    assert rails == list(range(len(rails)))


def test_names_sort_by_their_numbers():
    by_number("eth" + "1" * 5000)
    assert sorted(["mlx5_10", "mlx5_bond_0", "mlx5_2", "eth0"], key=by_number) == [
        "eth0",
        "mlx5_2",
        "mlx5_10",
        "mlx5_bond_0",
    ]
