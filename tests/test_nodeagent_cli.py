"""The program `nodeagent` as a person calls it: what it prints, and how it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.json_format import Parse

from bedplate.v1.snapshot_pb2 import (
    GpuVitals,
    Inventory,
    Link,
    PciDevice,
    PciLinkVitals,
    Problem,
    Snapshot,
    Topology,
    Vitals,
)
from nodeagent.__main__ import main
from nodeagent.host import replayed
from nodeagent.observe import scan
from nodeagent.page import WIDTH, page
from provisioner.cli.frame import data

MACHINES = Path(__file__).parent / "machines"
H100 = str(MACHINES / "h100")
VM = str(MACHINES / "vm")


def said(capsys, *words):
    status = main(words)
    out, err = capsys.readouterr()
    return status, out, err


def test_a_snapshot_as_json_is_the_snapshot(capsys):
    status, out, err = said(capsys, "snapshot", "--root", H100, "-o", "json")
    assert (status, err) == (0, "")
    assert Parse(out, Snapshot()) == scan(replayed(Path(H100)))
    assert "pci_devices" in json.loads(out)["inventory"]


def test_a_snapshot_as_json_is_what_bedplate_prints_of_it_zeros_and_all(capsys):
    _, out, _ = said(capsys, "snapshot", "--root", VM, "-o", "json")
    assert json.loads(out) == data(scan(replayed(Path(VM))))
    assert json.loads(out)["inventory"]["numa_nodes"][0]["number"] == 0
    assert json.loads(out)["inventory"]["gpus"] == []
    assert "numa_node" not in json.loads(out)["inventory"]["links"][0], "what was not measured is absent"


def test_a_snapshot_as_text_is_a_page_of_80_columns(capsys):
    status, out, _ = said(capsys, "snapshot", "--root", H100)
    assert status == 0
    assert "gpus       8 x NVIDIA H100 80GB HBM3\n" in out
    assert "  mlx5_0/1       ACTIVE 400 Gb/s  0000:4d:00.0  MT4129" in out
    assert out.index("mlx5_9/1") < out.index("mlx5_10/1")
    assert max(map(len, out.splitlines())) <= WIDTH


def test_a_page_ends_with_what_is_amiss():
    long = "cannot read sys/class/dmi/id/product_serial: Permission denied; run the agent as the superuser, then look"
    snapshot = Snapshot(
        inventory=Inventory(
            pci_devices=[PciDevice(address="0000:53:00.0", driver="nvidia", max_width=16)], links=[Link(name="eth0")]
        ),
        vitals=Vitals(pci_links={"0000:53:00.0": PciLinkVitals(width=8)}, gpus={"GPU-1": GpuVitals()}),
        problems=[
            Problem(probe="gpus", kind=Problem.KIND_LOST, part="0000:64:00.0", detail="cannot read GPU: it is lost"),
            Problem(probe="identity", kind=Problem.KIND_NO_PERMISSION, detail=long),
        ],
    )
    lines = page(snapshot).splitlines()
    assert lines[0].startswith("a machine without a name  1970-01-01")
    assert "  0000:53:00.0  nvidia  x8 of x16" in lines
    assert lines[-4:] == [
        "Problems",
        "  lost     gpus: cannot read GPU: it is lost",
        "  denied   identity: cannot read sys/class/dmi/id/product_serial: Permission",
        "           denied; run the agent as the superuser, then look",
    ]


def test_a_page_of_an_empty_snapshot_is_short():
    assert page(Snapshot()).splitlines()[1:] == ["", "pci        0 devices", "", "Every probe answered."]


@pytest.mark.parametrize("name", ["dgx2", "h100", "vm"])
def test_the_topology_is_the_golden_matrix(capsys, name):
    status, out, _ = said(capsys, "topology", "--root", str(MACHINES / name))
    assert (status, out) == (0, (MACHINES / name / "golden/matrix.txt").read_text())


def test_the_topology_as_json_is_the_topology(capsys):
    _, out, _ = said(capsys, "topology", "--root", H100, "-o", "json")
    assert Parse(out, Topology()) == scan(replayed(Path(H100))).inventory.topology


def test_this_host_is_captured_and_replayed(capsys, tmp_path):
    folder = str(tmp_path / "machine")
    status, out, _ = said(capsys, "capture", "--scrub", folder)
    assert status == 0
    assert out.endswith(f"files in {folder}; nodeagent snapshot --root {folder}\n")
    assert json.loads((tmp_path / "machine/capture.json").read_text())["scrubbed"]
    assert said(capsys, "snapshot", "--root", folder)[0] == 0


def test_a_folder_that_is_no_capture_is_one_line_that_says_what_to_do(capsys, tmp_path):
    cause = "it has no capture.json; make one with nodeagent capture DIR"
    for command in ("snapshot", "topology"):
        status, out, err = said(capsys, command, "--root", str(tmp_path))
        assert (status, out, err) == (1, "", f"nodeagent: cannot read capture {tmp_path}: {cause}\n")


def test_a_file_is_no_capture(capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    _, _, err = said(capsys, "snapshot", "--root", str(tmp_path / "file"))
    assert err == f"nodeagent: cannot read capture {tmp_path}/file: it is not a folder\n"


def test_a_full_folder_is_refused_before_anything_is_scanned(capsys, tmp_path):
    (tmp_path / "mine").write_text("x")
    status, _, err = said(capsys, "capture", str(tmp_path))
    assert (status, err) == (1, f"nodeagent: cannot write capture {tmp_path}: it is not empty; name a new folder\n")


@pytest.mark.parametrize(
    "words", [[], ["fly"], ["snapshot", "-o", "xml"], ["run"], ["capture"], ["topology", "--rot", "x"]]
)
def test_wrong_usage_ends_with_status_2(capsys, words):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("usage: nodeagent")


def test_the_version_is_said_without_loading_what_it_does_not_need():
    code = "import sys; from nodeagent.__main__ import main; main(['version']); print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30).stdout
    version, modules = out.split("\n", 1)
    assert version.startswith("nodeagent 0.")
    assert not {"'grpc'", "'pyroute2'", "'nodeagent.probes'", "'cryptography'"} & set(modules.strip("[]\n").split(", "))


def test_a_reader_that_goes_away_is_no_error():
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "-m", "nodeagent", "snapshot", "--root", H100, "-o", "json"]
    ended = subprocess.run(words, stdout=write, stderr=subprocess.PIPE, check=False, timeout=30)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, b"")
