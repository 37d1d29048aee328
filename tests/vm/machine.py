"""A virtual machine in software: QEMU on a copy of the disk, with a door through which commands are run as root inside.

Rule 1: nothing of it reaches a network: what it talks to, it talks to itself.
Rule 2: it is ended by its process number, and its folder goes with it, whatever happened.
Rule 3: limits are long, for a busy host is not a fault: what is waited for is the thing itself.
"""

import contextlib
import ctypes
import json
import os
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.running import PAUSE

BOOT_S = 240.0
SCHED_SETATTR, SLICE_NS = 314, 100_000_000  # the number is that of x86-64
NO_PRIORITY = os.sched_param(0)
COMMAND_S = 120.0
UUID = "b0000000-0000-4000-8000-00000000b001"
# In software, what works on many bytes at once is slower than what does not, and so is each protection that has an
# address looked up once more. One processor needs no locks, and its clock is read without a call.
PROCESSOR = "max,-avx,-avx2,-xsave,-smap,-smep,-pku,-umip,-la57"
HARDWARE = (  # two NUMA nodes, and on the second one a NIC, and an empty slot
    f"-machine q35,smm=off -cpu {PROCESSOR} -smp 1 -m 768 -nodefaults -display none -vga none -no-user-config"
    " -object memory-backend-ram,id=m0,size=512M -numa node,memdev=m0,cpus=0"
    " -object memory-backend-ram,id=m1,size=256M -numa node,memdev=m1"
    " -device pxb-pcie,id=far,bus_nr=64,numa_node=1"
    " -device pcie-root-port,id=port1,bus=far,chassis=1 -device pcie-root-port,id=port2,bus=far,chassis=2"
    " -device e1000e,netdev=n0,bus=port1,mac=52:54:00:be:d0:01 -netdev user,id=n0,restrict=on"
    f" -uuid {UUID} -smbios type=1,manufacturer=Bedplate,product=Bench,serial=BENCH-0001"
    " -device virtio-serial-pci,bus=pcie.0 -rtc base=utc"
).split()
UNTIL = (
    'until said=$(bash -ec "$1" 2>&1); do ((SECONDS < $2)) || { echo "$said"; exit 1; }; sleep 1; done; echo "$said"'
)
# Without the kernel's tests of its own ciphers, and without what there is against spying between processes. Where each
# process has its libraries at the same address, what the emulator has translated for one serves the next as well.
KERNEL = (
    "console=ttyS0 panic=10 net.ifnames=0 random.trust_cpu=on cryptomgr.notests mitigations=off norandmaps"
    " init_on_alloc=0 numa_balancing=disable quiet systemd.show_status=no"
)


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    error: str


@dataclass
class Machine:
    """One that runs, or ran."""

    image: Path
    folder: Path  # its own: disk, console, and a short name for sockets
    short: Path
    process: subprocess.Popen[bytes] | None = None
    _door: socket.socket | None = None
    _heard: bytes = b""
    _qmp: socket.socket | None = None
    _said_before: int = 0  # how long the console was when the last command began
    boots: int = 0  # since it was saved, or made

    def power_on(self, state: Path | None = None) -> None:
        """From cold, or as it was when it was saved."""
        for name in ("door", "qmp"):
            (self.short / name).unlink(missing_ok=True)
        command = ["qemu-system-x86_64", "-accel", os.environ.get("BEDPLATE_VM_ACCEL", "tcg,tb-size=256"), *HARDWARE]
        command += ["-kernel", str(self.image / "kernel"), "-initrd", str(self.image / "initrd"), "-append", KERNEL]
        disk = f"if=none,id=d0,format=raw,file={self.folder / 'disk'},cache=unsafe"
        command += ["-drive", disk, "-device", "virtio-blk-pci,bus=pcie.0,drive=d0,serial=BENCH-DISK"]
        console = f"file,id=console,append=on,path={self.folder / 'console'}"
        command += ["-chardev", console, "-serial", "chardev:console"]
        command += ["-chardev", f"socket,id=door,path={self.short / 'door'},server=on,wait=off"]
        command += ["-device", "virtserialport,chardev=door,name=door"]
        command += ["-qmp", f"unix:{self.short / 'qmp'},server=on,wait=off"]
        command += ["-incoming", f"exec:cat {state}"] if state else []
        with (self.folder / "qemu").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._qmp = self._connected("qmp")
        self.ask("qmp_capabilities")
        self._door = self._connected("door")
        for processor in self.ask("query-cpus-fast"):
            _let_work_at_length(processor["thread-id"])
        if state:
            self._until_running()
        else:
            self.boots += 1
        self._until_it_answers()

    def run(self, *argv: str, given: str = "", limit_s: float = COMMAND_S) -> Done:
        """What a command inside said; AssertionError with the console where nobody answers."""
        order = {"argv": argv, "input": given, "limit_s": limit_s}
        self._said_before = len(self.console())
        self._say(order)
        return Done(**self._answer(limit_s + 60))

    def sh(self, script: str, limit_s: float = COMMAND_S) -> str:
        """What a script said that ended well; AssertionError with all that it said otherwise."""
        done = self.run("bash", "-ec", script, limit_s=limit_s)
        assert done.code == 0, f"{script}: exit status {done.code}\n{done.out}{done.error}\n{self.console()[-2000:]}"
        return done.out

    def until(self, script: str, limit_s: float = COMMAND_S) -> str:
        """What the script said when it ended well at last; AssertionError with its last words otherwise."""
        done = self.run("bash", "-c", UNTIL, "until", script, str(int(limit_s)), limit_s=limit_s + COMMAND_S)
        assert done.code == 0, f"{script}: not within {limit_s} s\n{done.out}{done.error}"
        return done.out

    def hears(self, *sentences: str, limit_s: float = 2 * COMMAND_S) -> None:
        """Returns when the journal has had all of them since the last command began; AssertionError otherwise.

        The journal is shown on the console, so that nobody inside is kept from work by being asked.
        """
        deadline = time.monotonic() + limit_s
        while not_yet := [one for one in sentences if one not in self.console()[self._said_before :]]:
            assert time.monotonic() < deadline, f"{not_yet} not within {limit_s} s\n{self._last_words()}"
            PAUSE.wait(0.1)

    def save(self, folder: Path) -> None:
        """Memory and disk as they are now; the machine goes on."""
        self.ask("stop")
        self.ask("migrate", uri=f"exec:cat > {folder / 'memory'}")
        while (state := self.ask("query-migrate")["status"]) != "completed":
            assert state not in ("failed", "cancelled"), f"cannot save: {state}"
            PAUSE.wait(0.05)
        _copied(self.folder / "disk", folder / "disk")
        self.ask("cont")

    def plug_in_nvme(self) -> None:
        """While it runs; from then on it can no longer be saved."""
        file = self.folder / "nvme"
        with file.open("wb") as new:
            new.truncate(64 << 20)
        self.ask("blockdev-add", **{"driver": "file", "filename": str(file), "node-name": "d1"})
        self.ask("device_add", driver="nvme", drive="d1", serial="BENCH-NVME", bus="port2")

    def ask(self, what: str, **arguments: object) -> Any:
        """QMP: a question to the machine's maker."""
        assert self._qmp
        self._qmp.sendall(json.dumps({"execute": what, "arguments": arguments}).encode() + b"\n")
        for line in self._qmp.makefile("rb"):
            answer = json.loads(line)
            assert "error" not in answer, f"{what}: {answer['error']}"
            if "return" in answer:
                return answer["return"]
        raise AssertionError(f"the machine ended while it was asked {what}: {self._last_words()}")

    def reboot(self) -> None:
        """As an operator does it; returns when it answers again."""
        boot = self.sh("cat /proc/sys/kernel/random/boot_id")
        assert self.process
        os.sched_setscheduler(self.process.pid, os.SCHED_OTHER, NO_PRIORITY)
        self.run("systemctl", "reboot", "--no-block")
        self._until_it_answers(other_than=boot)
        self.boots += 1

    def cut_power(self) -> None:
        """At once: what was in memory alone is gone."""
        for one in (self._door, self._qmp):
            if one:
                one.close()
        if self.process:
            self.process.kill()
            self.process.wait()

    def console(self) -> str:
        path = self.folder / "console"
        return path.read_text(errors="replace") if path.exists() else ""

    def _until_running(self) -> None:
        while self.ask("query-status")["status"] == "inmigrate":
            PAUSE.wait(0.02)
        self.ask("cont")

    def _until_it_answers(self, other_than: str = "") -> None:
        """The door's first word may be lost while the machine begins: it is said again until there is an answer."""
        deadline = time.monotonic() + BOOT_S
        while time.monotonic() < deadline:
            self._say({"argv": ["cat", "/proc/sys/kernel/random/boot_id"], "input": "", "limit_s": 30})
            with contextlib.suppress(TimeoutError):
                if self._answer(2.0)["out"] != other_than:
                    self._drain()
                    assert self.process
                    os.sched_setscheduler(self.process.pid, os.SCHED_BATCH, NO_PRIORITY)
                    return
        raise AssertionError(f"no answer within {BOOT_S} s: {self._last_words()}")

    def _drain(self) -> None:
        """Answers to what was said more than once."""
        self._say({"argv": ["echo", "in step"], "input": "", "limit_s": 30})
        while self._answer(60.0)["out"] != "in step\n":
            pass

    def _say(self, order: dict[str, object]) -> None:
        assert self._door
        self._door.settimeout(COMMAND_S)
        self._door.sendall(json.dumps(order).encode() + b"\n")

    def _answer(self, limit_s: float) -> dict[str, Any]:
        """TimeoutError where there is none."""
        assert self._door
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._heard:
            self._door.settimeout(max(0.01, deadline - time.monotonic()))
            chunk = self._door.recv(1 << 20)
            assert chunk, f"the machine ended: {self._last_words()}"
            self._heard += chunk
        line, _, self._heard = self._heard.partition(b"\n")
        return dict(json.loads(line))

    def _connected(self, name: str) -> socket.socket:
        deadline = time.monotonic() + 60
        while True:
            one = socket.socket(socket.AF_UNIX)
            try:
                one.connect(str(self.short / name))
            except OSError:
                one.close()
                assert self.process
                assert self.process.poll() is None, f"QEMU ended: {self._last_words()}"
                assert time.monotonic() < deadline, f"QEMU does not listen: {self._last_words()}"
                PAUSE.wait(0.05)
            else:
                return one

    def _last_words(self) -> str:
        return (self.folder / "qemu").read_text(errors="replace")[-2000:] + self.console()[-4000:]


@contextlib.contextmanager
def machine(image: Path, saved: Path | None = None) -> Iterator[Machine]:
    """One that runs for as long as the block does; `saved` is a folder that `Machine.save` wrote."""
    with (
        tempfile.TemporaryDirectory(prefix="bpvm", ignore_cleanup_errors=True) as short,
        tempfile.TemporaryDirectory(prefix="machine-", dir=image.parent) as folder,
    ):
        made = Machine(image, Path(folder), Path(short))
        _copied((saved or image) / "disk", made.folder / "disk")
        try:
            made.power_on(saved / "memory" if saved else None)
            yield made
        finally:
            made.cut_power()


def _let_work_at_length(thread: int) -> None:
    """A tenth of a second at a time, where it does not wait: sched_setattr(2), as of Linux 6.12.

    What an emulated processor works with fills a real one's caches. Four that take turns each 3 ms, as is usual, take
    twice the time for the same work. An older kernel has no word for how long, and the policy alone does half. So that
    nobody else's devices interrupt it either, QEMU's main thread has the policy too, but while a machine boots: what
    comes before Linux asks its devices over and over, and would do so for all of its time.
    """
    attributes = struct.pack("IIQiIQQQ", 48, os.SCHED_BATCH, 0, 0, 0, SLICE_NS, 0, 0)
    ctypes.CDLL(None).syscall(SCHED_SETATTR, thread, attributes, 0)


def _copied(source: Path, target: Path) -> None:
    """With its holes."""
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(source), str(target)], check=True)
