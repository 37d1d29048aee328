"""The captured machines: each replays to its golden snapshot and its golden matrix, and says where it comes from.

To change a golden on purpose: `python tests/golden.py`, and read the diff.
"""

import json
import os
from pathlib import Path

import pytest
from golden import MACHINES, golden, names, texts

from bedplate.v1.snapshot_pb2 import Problem
from nodeagent.host import replayed
from nodeagent.observe import scan
from nodeagent.topology import matrix

# What `nvidia-smi topo -m` printed on a DGX-2 (NVIDIA/nccl-tests, issue 78): the first GPUs against mlx5_0 … mlx5_9.
PRINTED = """
GPU0  PIX  PXB  NODE NODE SYS SYS SYS SYS SYS SYS
GPU1  PIX  PXB  NODE NODE SYS SYS SYS SYS SYS SYS
GPU2  PXB  PIX  NODE NODE SYS SYS SYS SYS SYS SYS
GPU3  PXB  PIX  NODE NODE SYS SYS SYS SYS SYS SYS
GPU4  NODE NODE PIX  PXB  SYS SYS SYS SYS SYS SYS
"""

each_machine = pytest.mark.parametrize("name", names())


def seen(name):
    return scan(replayed(MACHINES / name))


def rows(name):
    """The cells of each part's row, under the names of the parts."""
    lines = matrix(seen(name).inventory.topology).partition("\n\n")[0].splitlines()
    parts = [line.split()[0] for line in lines[1:]]
    return {line.split()[0]: dict(zip(parts, line.split()[1:], strict=False)) for line in lines[1:]}


def manifest(name):
    return json.loads((MACHINES / name / "capture.json").read_text())


@each_machine
def test_a_machine_replays_to_its_golden_snapshot_and_matrix(name):
    have = texts(seen(name))
    assert have == {file: (golden(name) / file).read_text() for file in have}


@each_machine
def test_a_machine_replays_to_the_same_bytes_each_time(name):
    one, other = (seen(name).SerializeToString(deterministic=True) for _ in range(2))
    assert one == other


@each_machine
def test_every_question_that_a_captured_machine_is_asked_has_an_answer(name):
    bad = {Problem.KIND_FAILED, Problem.KIND_TIMEOUT, Problem.KIND_UNSPECIFIED}
    assert [problem.detail for problem in seen(name).problems if problem.kind in bad] == []


@each_machine
def test_a_machine_says_where_it_comes_from_in_its_manifest_and_in_the_readme(name):
    origin = manifest(name)["provenance"]
    assert origin["kind"] in {"recorded", "derived", "invented"}
    assert origin["note"]
    assert f"| [{name}]({name}) | {origin['kind']} |" in (MACHINES / "README.md").read_text()


@each_machine
def test_a_machine_was_scrubbed(name):
    assert manifest(name)["scrubbed"]


@each_machine
def test_no_link_leads_out_of_a_machine(name):
    folder = MACHINES / name
    links = [path for path in folder.rglob("*") if path.is_symlink()]
    targets = [Path(os.path.normpath(link.parent / link.readlink())) for link in links]
    assert [target for target in targets if not target.is_relative_to(folder)] == []


@each_machine
def test_each_gpu_and_nic_stands_in_the_pci_tree_of_its_machine(name):
    inventory = seen(name).inventory
    tree = {device.address for device in inventory.pci_devices}
    assert {part.pci_address for part in inventory.topology.parts} <= tree


def test_the_dgx2_has_the_matrix_that_nvidia_smi_prints():
    have = rows("dgx2")
    for line in PRINTED.strip().splitlines():
        gpu, *cells = line.split()
        assert [have[gpu][f"mlx5_{number}"] for number in range(10)] == cells


def test_every_pair_of_gpus_of_the_dgx2_has_six_nvlinks():
    have = rows("dgx2")
    gpus = [f"GPU{number}" for number in range(16)]
    assert {have[a][b] for a in gpus for b in gpus if a != b} == {"NV6"}


def test_the_h100_has_one_nic_behind_the_switches_of_each_gpu():
    parts = seen("h100").inventory.topology.parts
    assert [list(part.nearest) for part in parts if part.gpu] == [[f"mlx5_{n}"] for n in (0, 1, 4, 5, 6, 7, 8, 9)]


def test_the_rails_of_the_h100_follow_the_sockets_of_its_baseboard():
    inventory = seen("h100").inventory
    nics = {part.name: part.rail for part in inventory.topology.parts if part.HasField("rail")}
    nearest = [part.nearest[0] for part in inventory.topology.parts if part.gpu]
    modules = [gpu.module_id for gpu in inventory.gpus]
    assert [nics[nic] + 1 for nic in nearest] == modules


def test_the_h100_is_as_large_as_the_scan_is_measured_on():
    inventory = seen("h100").inventory
    assert (len(inventory.gpus), len(inventory.rdma_devices)) == (8, 12)
    assert len(inventory.pci_devices) >= 200


def test_a_bond_of_two_functions_is_one_nic_and_shows_its_interface():
    [bond] = [device for device in seen("h100").inventory.rdma_devices if device.name == "mlx5_bond_0"]
    assert "bond0" in bond.ports[0].links
