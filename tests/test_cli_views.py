"""What a person reads: texts over made-up messages, at the width of a terminal."""

from bedplate.v1.fleet_pb2 import Event, ExplainMachineResponse, Phase, Token
from bedplate.v1.snapshot_pb2 import Inventory, Snapshot, Vitals
from provisioner.cli.table import Cell, Column, table
from provisioner.cli.terminal import Terminal, cut, flowed, plain, wrapped
from provisioner.cli.views import events, explain, machines, tokens, topology, words
from provisioner.cli.views import machine as machine_view
from tests.cli_machines import NOW, answer, at, gpu_host, machine, plain_host

NARROW = Terminal(width=80)
WHY = "not heard for 12 minutes: its stream ended because the connection was lost"


def _fleet():
    silent = machine(9, Phase.PHASE_SILENT, because=WHY, last_heard_at=at(-720))
    return [*(machine(n) for n in range(1, 9)), silent]


def _fits(lines, width=80):
    return [line for line in lines if len(line) > width] == []


def test_the_list_counts_its_machines_by_phase_on_its_last_line():
    lines = machines.machines(_fleet(), NARROW, NOW)
    assert lines[-1] == "9 machines: 8 present, 1 silent"
    assert lines[1] == "m-00000001  gpu-01    present     8  H100 80GB HBM3    12  now"


def test_the_sentence_of_a_silent_machine_is_readable_at_every_width():
    for width in (60, 80, 100, 130, 200):
        lines = machines.machines(_fleet(), Terminal(width=width), NOW)
        at_it = next(n for n, line in enumerate(lines) if "gpu-09" in line)
        assert _fits(lines, width)
        assert WHY in " ".join(" ".join(lines[at_it:-1]).split())


def test_a_pipe_has_no_width_and_nothing_is_cut():
    long = machine(1, because="x" * 500)
    assert "x" * 500 in "\n".join(machines.machines([long], Terminal(), NOW))


def test_wide_shows_more_columns():
    head, row, _ = machines.machines([machine(1, kernel="6.8.0")], NARROW, NOW, wide=True)
    assert "KERNEL" in head
    assert "6.8.0" in row
    assert "10.0.0.7:40112" in row


def test_a_list_of_nothing_says_so():
    assert machines.machines([], NARROW, NOW) == ["no machine"]


def test_a_machine_that_was_never_heard_says_never():
    fresh = machine(1, Phase.PHASE_PENDING)
    fresh.ClearField("last_heard_at")
    assert "never" in machines.machines([fresh], NARROW, NOW)[1]


def test_a_phase_of_a_younger_provisioner_is_a_number_and_not_an_error():
    assert "phase 77" in machines.machines([machine(1, 77)], NARROW, NOW)[1]


def test_colours_are_only_for_terminals_that_have_them():
    painted = "\n".join(machines.machines(_fleet(), Terminal(width=80, colours=True), NOW))
    assert "\x1b[31msilent" in painted
    assert "\x1b" not in "\n".join(machines.machines(_fleet(), NARROW, NOW))


def test_a_hostname_cannot_command_the_terminal():
    lines = machines.machines([machine(1, hostname="a\x1b[2J\nb", because="\x9b31m")], NARROW, NOW)
    assert len(lines) == 3
    assert "\x1b" not in "".join(lines)
    assert "a\\x1b[2J\\nb" in lines[1]
    assert plain("ünïcode is fine") == "ünïcode is fine"


def test_a_machine_s_page_fits_eighty_columns_and_groups_what_is_alike():
    lines = machine_view.page(answer(gpu_host()), NARROW, NOW)
    text = "\n".join(lines)
    assert _fits(lines)
    assert "GPUs       8 x NVIDIA H100 80GB HBM3, 18 NVLinks each" in lines
    assert "           mlx5_11 (ib11)  400 Gb/s InfiniBand  down    0000:8b:00.0  NUMA 1" in lines
    assert "CPU        2 x Intel Xeon Platinum 8480C, 96 cores, 192 threads" in lines
    assert "Disks      8 x 3.8 TB SAMSUNG MZQL2: nvme0n1" in text
    assert "Problems   none" in lines


def test_a_page_of_a_plain_host_shows_its_nic_and_what_is_lacking():
    text = "\n".join(machine_view.page(answer(plain_host()), NARROW, NOW))
    assert "NICs       eth0  10 Gb/s  up  0000:00:03.0  NUMA 0" in text
    assert "and 1 virtual interface (--all shows them)" in text
    assert "Problems   gpus: absent: this machine has no NVIDIA driver" in text
    assert "GPUs" not in text


def test_long_lists_are_folded_and_say_so_unless_all_is_asked_for():
    snapshot = gpu_host(8, 40)
    folded = machine_view.page(answer(snapshot), NARROW, NOW)
    whole = machine_view.page(answer(snapshot), NARROW, NOW, everything=True)
    assert any("and 24 more (--all shows them)" in line for line in folded)
    assert not any("mlx5_39" in line for line in folded)
    assert any("mlx5_39" in line for line in whole)


def test_virtual_functions_are_counted_and_not_listed():
    snapshot = plain_host()
    for n in range(64):
        address = f"0000:01:00.{n}"
        snapshot.inventory.pci_devices.add(address=address, physical_function="0000:00:03.0")
        snapshot.inventory.links.add(name=f"vf{n}", pci_address=address, driver="mlx5_core")
    text = "\n".join(machine_view.page(answer(snapshot), NARROW, NOW))
    assert "and 64 virtual functions, 1 virtual interface" in text
    assert "vf3" not in text


def test_a_machine_without_a_snapshot_says_so():
    for nothing in (None, Snapshot()):
        assert "It has sent no snapshot yet." in machine_view.page(answer(nothing), NARROW, NOW)


def test_a_snapshot_of_which_nothing_was_found_makes_a_page_all_the_same():
    assert "Problems   none" in machine_view.page(answer(Snapshot(inventory=Inventory())), NARROW, NOW)


def test_a_topology_shows_each_gpu_with_its_nearest_nics_by_numa_node():
    snapshot = gpu_host(16, 8, switched=False)
    lines = topology.topology("gpu-01", snapshot.inventory, Vitals(), NARROW)
    assert _fits(lines)
    assert lines[:4] == [
        "gpu-01: 16 GPUs, 8 NICs",
        "",
        "NUMA 0  cpus 0-47,96-143",
        "  GPU0   0000:20:00.0  PIX   rail 0  mlx5_0",
    ]
    assert "NUMA 1  cpus 48-95,144-191" in lines


def test_the_matrix_fits_eighty_columns_for_the_machines_that_are_sold():
    for gpus, nics in ((8, 12), (16, 10), (4, 4), (8, 40)):
        snapshot = gpu_host(gpus, nics)
        lines = topology.matrices(snapshot.inventory.topology, NARROW)
        assert _fits(lines)
        assert "GPUs to GPUs  18 NVLinks between any two" in lines
        assert any(line.startswith("  GPU0") and "PIX*" in line for line in lines)
        assert "  N is mlx5_N" in lines


def test_nics_whose_names_have_no_pattern_get_letters_and_a_key():
    snapshot = gpu_host(4, 4)
    for part, name in zip(
        snapshot.inventory.topology.parts[4:], ("mlx5_0", "mlx5_7", "mlx5_bond_0", "ens"), strict=True
    ):
        part.name = name
    text = "\n".join(topology.matrices(snapshot.inventory.topology, NARROW))
    assert "  N is mlx5_N, a is mlx5_bond_0, b is ens" in text
    assert "0    7    a    b" in text


def test_gpus_that_reach_each_other_differently_get_a_matrix_of_their_own():
    lines = topology.matrices(gpu_host(8, 4, switched=False).inventory.topology, NARROW)
    at_it = lines.index("GPUs to GPUs")
    assert lines[at_it + 2].split() == ["GPU0", "X", "PIX", "PXB", "PXB", "SYS", "SYS", "SYS", "SYS"]


def test_a_host_without_gpus_says_where_its_nic_sits():
    snapshot = plain_host()
    assert topology.topology("box", snapshot.inventory, snapshot.vitals, NARROW) == [
        "box: no GPU, 1 NIC",
        "",
        "eth0  up, 10 Gb/s  driver virtio_net",
        "  sits at 0000:00:03.0, on NUMA node 0 (cpus 0-1)",
        "  way: pci0000:00 > 0000:00:03.0",
        "",
        "virtual, on no bus: lo",
    ]


def test_a_nic_whose_numa_node_is_unknown_says_why():
    snapshot = plain_host()
    del snapshot.inventory.numa_nodes[:]
    snapshot.inventory.ClearField("topology")
    text = "\n".join(topology.topology("box", snapshot.inventory, snapshot.vitals, NARROW))
    assert "on NUMA node not known (its firmware does not say)" in text


def test_an_explanation_is_a_sentence_with_its_evidence_under_it():
    told = ExplainMachineResponse(
        machine=machine(9, Phase.PHASE_SILENT), because=WHY, evidence=["last heard 05:00:00Z"], advice="see its power"
    )
    assert explain.explain(told, NARROW) == [
        "gpu-09 (m-00000009) is silent: not heard for 12 minutes: its stream ended",
        "  because the connection was lost",
        "  - last heard 05:00:00Z",
        "What to do: see its power",
    ]


def test_events_are_lines_with_a_time_and_a_sentence():
    event = Event(revision=7, at=at(0), kind="machine.silent", machine_id="m-1", hostname="gpu-01", because=WHY)
    assert events.events([event], Terminal())[1] == f"       7  2026-11-18 11:06:40Z  machine.silent  gpu-01   {WHY}"
    narrow = events.events([event], NARROW)
    assert narrow[1].startswith("11-18 11:06:40Z  machine.silent  gpu-01   not heard for")
    assert " ".join(" ".join(narrow[1:]).split()).endswith(WHY)
    assert _fits(narrow)
    assert events.event_line(event, Terminal()) == f"11:06:40Z  machine.silent      gpu-01: {WHY}"
    assert events.events([], NARROW) == ["no event"]


def test_a_token_says_whether_it_still_lets_anybody_in():
    def state(**fields):
        return tokens.state(Token(**{"expires_at": at(60), **fields}), NOW)[0]

    assert state() == "open"
    assert state(uses_allowed=1, uses=1) == "used up"
    assert state(expires_at=at(-1)) == "expired"
    assert state(revoked_at=at(-1), expires_at=at(-1)) == "revoked"
    assert "0 of any" in tokens.tokens([Token(token_id="t-1", expires_at=at(60))], NARROW, NOW)[1]


def test_sizes_and_ages_are_short_words():
    assert [words.binary(size) for size in (512, 16 << 30, 2_164_663_517_184)] == ["512 B", "16 GiB", "2.0 TiB"]
    assert words.decimal(1_920_383_410_176) == "1.9 TB"
    assert [words.span(s) for s in (3, 119, 121, 8100, 500_000)] == ["3s", "119s", "2m", "2h", "5d"]
    assert [words.speed(g) for g in (400, 2.5, 0.1)] == ["400 Gb/s", "2.5 Gb/s", "100 Mb/s"]
    assert words.ago(at(30), NOW) == "now"


def test_a_table_bounds_its_columns_and_ends_at_the_edge():
    lines = table(
        (Column("A", at_most=5), Column("N", right=True), Column("B", at_most=0)),
        [["abcdefgh", "1", "z" * 99]],
        Terminal(width=20),
    )
    assert lines == ["A      N  B", "abcd…  1  zzzzzzzzz…"]
    assert table((Column("A"),), [[Cell("x", "red")]], Terminal(colours=True))[1] == "\x1b[31mx\x1b[0m"


def test_text_is_wrapped_and_flowed_within_the_width():
    assert wrapped("one two three", 9, first="- ") == ["- one two", "  three"]
    assert flowed(["mlx5_0", "mlx5_1", "mlx5_2"], 20, first="  ") == ["  mlx5_0, mlx5_1,", "  mlx5_2"]
    assert cut("bedplate", 5) == "bedp…"
    assert cut("abc", 3) == "abc"


def test_agents_of_two_versions_are_told_apart_in_the_wide_list():
    fleet = [machine(1, agent_version="0.1.0"), machine(2, agent_version="0.2.0")]
    heading, one, two, _ = machines.machines(fleet, Terminal(), NOW, wide=True)
    assert "AGENT" in heading
    assert ("0.1.0" in one, "0.2.0" in two) == (True, True)


def test_a_clock_that_is_far_off_is_a_sentence_on_the_machine_s_page():
    def said(skew_s: float) -> list[str]:
        shown = answer(plain_host())
        shown.machine.clock_skew_s = skew_s
        return [line for line in machine_view.page(shown, NARROW, NOW) if "clock" in line]

    assert said(7200.0) == ["Its clock is 2h ahead: set it right (timedatectl)."]
    assert said(-45.0) == ["Its clock is 45s behind: set it right (timedatectl)."]
    assert said(29.0) == []
