"""The probes of the host: what each makes of the files and answers of a machine, and of one that lacks them."""

import errno

import pytest
from trees import machine

from bedplate.v1.snapshot_pb2 import Problem
from nodeagent.errors import Unanswered
from nodeagent.host import live
from nodeagent.observe import Observer, scan
from nodeagent.probes import cpu, filesystems, host_vitals, identity, memory, numa, operating_system

CPUINFO = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8480C\nflags\t\t: fpu {more} sse\n\nprocessor\t: 1\n"
DMI = "sys/class/dmi/id"


def test_identity_is_what_firmware_and_disk_say_with_nothing_put_right(tmp_path):
    files = {
        f"{DMI}/sys_vendor": "Supermicro\n",
        f"{DMI}/product_name": "SYS-821GE-TNHR\n",
        f"{DMI}/product_serial": "  To be filled by O.E.M.  \n",
        f"{DMI}/board_serial": "\n",
        "proc/sys/kernel/hostname": "gpu-03\n",
        "etc/machine-id": "b1946ac92492d2347c6235b4d2611184\n",
        "proc/cpuinfo": CPUINFO.format(more="vmx"),
    }
    who = identity.probe(machine(tmp_path, files)).inventory.identity
    assert (who.vendor, who.product, who.hostname) == ("Supermicro", "SYS-821GE-TNHR", "gpu-03")
    assert who.product_serial == "To be filled by O.E.M."
    assert who.machine_id == "b1946ac92492d2347c6235b4d2611184"
    assert not any(who.HasField(name) for name in ("board_serial", "chassis_serial", "hypervisor", "bmc_mac"))


def test_a_machine_without_dmi_is_no_problem(tmp_path):
    host = machine(tmp_path, {"proc/sys/kernel/hostname": "gpu-03"})
    assert identity.probe(host).inventory.identity.hostname == "gpu-03"
    assert host.root.notes == []


def test_serials_that_only_the_superuser_may_read_are_noted(tmp_path):
    files = {f"{DMI}/sys_vendor": "Dell Inc.", f"{DMI}/product_serial": "never shown"}
    snapshot = scan(machine(tmp_path, files, refused={f"{DMI}/product_serial": errno.EACCES}))
    assert snapshot.inventory.identity.vendor == "Dell Inc."
    (problem,) = [problem for problem in snapshot.problems if problem.kind == Problem.KIND_NO_PERMISSION]
    assert problem.detail == "cannot read sys/class/dmi/id/product_serial: Permission denied"


@pytest.mark.parametrize(
    ("vendor", "flags", "kind", "name"),
    [
        ("QEMU", "hypervisor", None, "kvm"),
        ("VMware, Inc.", "hypervisor", None, "vmware"),
        ("Acme", "hypervisor", None, "unknown"),
        ("Amazon EC2", "", None, ""),  # a metal instance
        ("Acme", "", "xen", "xen"),
    ],
)
def test_the_hypervisor_is_named_where_the_machine_is_virtual(tmp_path, vendor, flags, kind, name):
    files = {f"{DMI}/sys_vendor": vendor, "proc/cpuinfo": CPUINFO.format(more=flags)}
    host = machine(tmp_path, {**files, **({"sys/hypervisor/type": kind} if kind else {})})
    assert identity.probe(host).inventory.identity.hypervisor == name


def test_the_operating_system_is_what_os_release_and_the_kernel_say(tmp_path):
    release = '# a comment\nID=flatcar\nVERSION_ID=\'4459.2.1\'\nPRETTY_NAME="Flatcar \\"LTS\\" 4459"\nno equals sign\n'
    files = {
        "usr/lib/os-release": release,
        "proc/cmdline": "root=/dev/vda quiet\n",
        "sys/module/nvidia/version": "580.105.08\n",
        "sys/module/mlx5_core/refcnt": "3\n",
    }
    answers = {"uname": {"kernel": "6.12.51-flatcar", "architecture": "x86_64"}}
    host = machine(tmp_path, files, {"etc/os-release": "../usr/lib/os-release"}, answers)
    system = operating_system.probe(host).inventory.os
    assert (system.id, system.version, system.name) == ("flatcar", "4459.2.1", 'Flatcar "LTS" 4459')
    assert (system.kernel, system.architecture) == ("6.12.51-flatcar", "x86_64")
    assert system.command_line == "root=/dev/vda quiet"
    assert dict(system.module_versions) == {"nvidia": "580.105.08"}
    assert not system.HasField("image_version")


@pytest.mark.parametrize("text", ['PRETTY_NAME="never closed \\', 'PRETTY_NAME="', "=", "PRETTY_NAME"])
def test_a_broken_os_release_breaks_nothing(tmp_path, text):
    host = machine(tmp_path, {"etc/os-release": f"{text}\nID=debian"}, answers={"uname": {}})
    assert operating_system.probe(host).inventory.os.id == "debian"


def test_processors_are_counted_over_all_sockets(tmp_path):
    packages = {f"sys/devices/system/cpu/cpu{at}/topology/physical_package_id": f"{at // 2}" for at in range(4)}
    files = {**packages, "sys/devices/system/cpu/cpufreq/x": "", "proc/cpuinfo": CPUINFO}
    found = cpu.probe(machine(tmp_path, files, answers={"cpu": {"cores": 2, "threads": 4}})).inventory.cpu
    assert (found.model, found.sockets, found.cores, found.threads) == ("Intel(R) Xeon(R) Platinum 8480C", 2, 2, 4)


def test_a_count_that_nobody_knows_is_absent_and_not_zero(tmp_path):
    found = cpu.probe(machine(tmp_path, answers={"cpu": {"cores": None, "threads": 4}})).inventory.cpu
    assert not found.HasField("model")
    assert not found.HasField("sockets")
    assert not found.HasField("cores")
    assert found.threads == 4


def test_huge_pages_are_summed_over_their_sizes(tmp_path):
    pages = "sys/kernel/mm/hugepages"
    files = {f"{pages}/hugepages-2048kB/nr_hugepages": "512", f"{pages}/hugepages-1048576kB/nr_hugepages": "2"}
    found = memory.probe(machine(tmp_path, files, answers={"memory": {"total_bytes": 2**41}})).inventory.memory
    assert (found.total_bytes, found.huge_page_bytes) == (2**41, 3 * 2**30)


def test_numa_nodes_come_by_number_and_a_node_may_have_no_processors(tmp_path):
    nodes = "sys/devices/system/node"
    files = {
        f"{nodes}/node10/cpulist": "\n",
        f"{nodes}/node10/distance": "20 10\n",
        f"{nodes}/node2/cpulist": "0-47,96-143\n",
        f"{nodes}/node2/meminfo": "Node 2 MemTotal:       1024 kB\nNode 2 MemFree: 1 kB\n",
        f"{nodes}/node2/distance": "10 20\n",
        f"{nodes}/has_cpu": "2\n",
    }
    two, ten = numa.probe(machine(tmp_path, files)).inventory.numa_nodes
    assert (two.number, two.cpus, two.memory_bytes, list(two.distances)) == (2, "0-47,96-143", 2**20, [10, 20])
    assert (ten.number, ten.HasField("cpus"), ten.HasField("memory_bytes")) == (10, False, False)


def test_the_dials_of_the_host(tmp_path):
    files = {
        "proc/sys/kernel/random/boot_id": "339105a7-4475-4b1f-b3f4-ea00bc6e1a3f\n",
        "proc/loadavg": "0.52 0.58 0.59 1/467 12345\n",
        "proc/sys/kernel/tainted": "12289\n",
    }
    answers = {"memory": {"available_bytes": 7}, "boot": {"booted_at_s": 1_700_000_000}}
    now = host_vitals.probe(machine(tmp_path, files, answers=answers)).vitals.host
    assert (now.boot_id, now.load_1m, now.kernel_taint) == ("339105a7-4475-4b1f-b3f4-ea00bc6e1a3f", 0.52, 12289)
    assert (now.memory_available_bytes, now.booted_at_s) == (7, 1_700_000_000)


def test_a_device_that_is_mounted_many_times_is_one_file_system(tmp_path):
    mounts = [("/var/lib/kubelet/pods/1/volume", "/dev/vda"), ("/", "/dev/vda"), ("/snap", "/dev/loop0")]
    answer = [{"mount": at, "device": of, "size_bytes": 10, "free_bytes": 4, "read_only": False} for at, of in mounts]
    found = filesystems.probe(machine(tmp_path, answers={"filesystems": answer})).vitals.filesystems
    assert list(found) == ["/"]
    assert (found["/"].size_bytes, found["/"].free_bytes, found["/"].read_only) == (10, 4, False)


def test_this_host_is_seen_without_a_problem_of_its_own_probes():
    snapshot = scan(live())
    assert snapshot.inventory.identity.hostname
    assert snapshot.inventory.os.kernel
    assert snapshot.inventory.cpu.threads
    assert snapshot.inventory.memory.total_bytes > 2**20
    assert snapshot.vitals.host.boot_id
    assert snapshot.vitals.host.booted_at_s > 0
    assert [p.detail for p in snapshot.problems if p.kind in {Problem.KIND_FAILED, Problem.KIND_TIMEOUT}] == []


def test_a_question_without_a_door_is_unanswered():
    with pytest.raises(Unanswered, match="cannot ask weather: this agent has no such door"):
        live().ask("weather")


def test_a_name_that_the_host_gets_after_the_first_look_is_seen(tmp_path):
    host = machine(tmp_path, {"proc/sys/kernel/hostname": "localhost"})
    observer = Observer(host)
    assert observer.observe(0.0).inventory.identity.hostname == "localhost"
    (tmp_path / "proc/sys/kernel/hostname").write_text("gpu-03\n")
    assert observer.observe(60.0).inventory.identity.hostname == "gpu-03"
