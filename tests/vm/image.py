"""The disk of the tests' machine: Debian 12 with systemd, and Bedplate as docs/install.md has it installed.

Three layers, each kept under the digest of all that goes into it, in BEDPLATE_VM_CACHE or build/vm:

    debian-*.tar   Debian's packages, by mmdebstrap                              a minute, once
    wheels-*/      what the lock file says, by pip                               seconds, once for each lock file
    image-*/       disk, kernel and initrd: the two above and this checkout      seconds, for each change of the code

Rule 1: no mounts, no loop devices: a tree in a folder, `chroot`, and `mke2fs -d`. It needs root, for files have owners.
Rule 2: a layer is made beside its place and moved there when it is whole; of those who want it, one makes it.
Rule 3: what is installed, and how, stands in docs/install.md and nowhere here.
"""

import fcntl
import hashlib
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.vm import guide
from tests.vm.guide import ROOT

HERE = Path(__file__).resolve().parent
SUITE = "bookworm"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES = (
    "busybox-static",  # the initrd
    "dbus",
    "iproute2",
    "kmod",
    "libstdc++6",  # grpcio links to it; a Debian with apt has it
    "linux-image-amd64",  # not the cloud kernel: it has no rdma_rxe
    "python3-venv",
    "systemd",
    "systemd-sysv",
    "tiny-initramfs",  # the smallest of those that the kernel insists on; ours is another
    "udev",
)
LEFT_OUT = (
    *("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/boot/System.map*"),
    *(
        f"*/kernel/{kind}/*"
        for kind in ("sound", "drivers/gpu", "drivers/media", "drivers/scsi", "drivers/net/wireless")
    ),
)
FIRST = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")  # what the initrd loads to find the disk
MODULES = (*FIRST, "virtio_console", "nvme", "e1000e", "rdma_rxe", "crc32_generic", "dummy", "autofs4", "configfs")
ASLEEP = (  # what a machine that nobody logs in to can do without
    "getty.target getty@tty1.service systemd-logind.service systemd-user-sessions.service modprobe@.service"
    " systemd-update-utmp.service systemd-update-utmp-runlevel.service e2scrub_reap.service e2scrub_all.timer"
    " systemd-binfmt.service proc-sys-fs-binfmt_misc.automount sys-kernel-debug.mount sys-kernel-tracing.mount"
    " dev-hugepages.mount dev-mqueue.mount systemd-initctl.socket systemd-ask-password-console.path"
    " systemd-ask-password-wall.path dpkg-db-backup.timer fstrim.timer systemd-tmpfiles-clean.timer"
)
FEW = """\
[Service]
ExecStart=
ExecStart=udevadm trigger --action=add -s virtio -s virtio-ports -s pci -s net
"""  # of a machine's devices, those that somebody here waits for
GENERATORS = "/usr/lib/systemd/system-generators"  # a dozen programs at each daemon-reload, and nothing here for them
SHOWN = "[Journal]\nForwardToConsole=yes\nMaxLevelConsole=info\n"  # where the tests listen
DISK_MB = 1024
KEPT = 3
SOURCES = (
    *("nodeagent", "provisioner", "protos/bedplate", "systemd"),
    *("pyproject.toml", "requirements.lock", ".ci/hatch_build.py"),
)
PLATFORMS = ("manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")
INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do /bin/busybox insmod $module; done
/bin/busybox mount -t ext4 /dev/vda /disk
/bin/busybox mount --move /dev /disk/dev
exec /bin/busybox switch_root /disk /lib/systemd/systemd
"""
BOOT_FILES = r"""
paths() {
  for name; do modprobe -S $version --show-depends $name; done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}
cd /initrd; chmod 755 init; mkdir bin dev disk modules; cp /bin/busybox bin/
paths $first | nl -n rz -w 2 | while read number path; do cp $path modules/$number; done
find . | busybox cpio -o -H newc > /boot/initrd 2>/dev/null
rm -rf /initrd
paths $all > /wanted
find /lib/modules/$version/kernel -name '*.ko' | grep -vxFf /wanted | xargs rm
depmod $version; rm /wanted
"""
DOOR = """\
[Unit]
Description=Where the tests come in
DefaultDependencies=no
[Service]
ExecStart=/usr/bin/python3 /usr/local/lib/inside.py
Restart=always
OOMScoreAdjust=-900
"""
DOORBELL = 'SUBSYSTEM=="virtio-ports", ATTR{name}=="door", TAG+="systemd", ENV{SYSTEMD_WANTS}+="door.service"\n'


def missing() -> str:
    """What this host lacks for the machine, as one line that says how to get it; empty where it lacks nothing."""
    needed = {"qemu-system-x86_64": "qemu-system-x86", "mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"}
    lacking = [package for program, package in needed.items() if not shutil.which(program, path=_path())]
    if not KEYRING.exists():
        lacking.append("debian-archive-keyring")
    if lacking:
        return f"cannot start the virtual machine: install these packages first: apt-get install {' '.join(lacking)}"
    if os.geteuid() != 0 and not place("image", *_contents()).exists():
        return "cannot build the virtual machine's disk: it takes root, once for each change: sudo make vm"
    return ""


def saved(name: str, make: Callable[[Path], None], *contents: bytes) -> Path:
    """A folder beside the image with what `make` wrote, made once for the same image and contents."""
    return kept(place(name, *_contents(), *contents), make)


def image() -> Path:
    """The folder with `disk`, `kernel` and `initrd` for this checkout."""
    return kept(place("image", *_contents()), _build)


def _build(folder: Path) -> None:
    folder.mkdir()
    with tempfile.TemporaryDirectory(prefix="tree-", dir=cache()) as scratch:
        tree, (debian, wheels) = Path(scratch, "tree"), _bought()
        tree.mkdir()
        _run("tar", "-xpf", debian, "-C", tree)
        _settle(tree)
        _install(tree, wheels)
        _boot_files(tree, folder)
        _run("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, folder / "disk", f"{DISK_MB}M")


def _bought() -> tuple[Path, Path]:
    """What comes from elsewhere, fetched at the same time: Debian's packages and the lock file's wheels."""
    with ThreadPoolExecutor() as pool:
        debian, wheels = pool.submit(kept, _debian_place(), _debian), pool.submit(kept, _wheels_place(), _wheels)
        return debian.result(), wheels.result()


def _settle(tree: Path) -> None:
    """What any installer of Debian leaves behind."""
    written = {
        "etc/hostname": "gpu-01\n",
        "etc/hosts": "127.0.0.1 localhost gpu-01 provisioner.example\n",
        "etc/machine-id": "",
        "usr/local/lib/inside.py": (HERE / "inside.py").read_text(),
        "etc/systemd/system/door.service": DOOR,
        "etc/systemd/journald.conf.d/shown.conf": SHOWN,
        "etc/udev/rules.d/90-door.rules": DOORBELL,
    }
    for name, text in written.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    _within(tree, f"systemctl mask --quiet {ASLEEP}")
    (tree / "etc/systemd/system/systemd-udev-trigger.service.d").mkdir()
    (tree / "etc/systemd/system/systemd-udev-trigger.service.d/few.conf").write_text(FEW)
    _within(tree, f"for one in {GENERATORS}/*; do ln -sf /dev/null $one; done")


def _install(tree: Path, wheels: Path) -> None:
    """As far as it goes without a systemd that runs; tests.vm.site does the rest."""
    dist = tree / "root" / "dist"
    _make_wheel(dist)
    shutil.copytree(wheels, tree / "srv/wheels")
    known = guide.packages() - set(PACKAGES)
    assert not known, f"docs/install.md installs {known}, and the disk has them not"
    (tree / "etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /srv/wheels\n")
    _within(tree, guide.without(guide.blocks("The provisioner")[0], "apt-get "))
    _within(tree, guide.only(guide.blocks("The agents")[1], "python3 -m venv", "/opt/bedplate/bin/pip"))
    _within(tree, "".join(guide.only(block, "/opt/bedplate/bin/pip") for block in guide.blocks("Upgrading")))
    (tree / "etc/bedplate/provisioner.toml").write_text(guide.blocks("The provisioner", "toml")[0])
    shutil.rmtree(tree / "srv/wheels")


def _make_wheel(dist: Path) -> None:
    """The page's own block, with another folder."""
    script = guide.without(guide.blocks("The wheel")[0], "make ").replace("dist", str(dist))
    dist.mkdir()
    _run("sh", "-ec", script.replace(".venv/bin/pip", f"{sys.executable} -m pip --quiet"), cwd=ROOT)


def _boot_files(tree: Path, folder: Path) -> None:
    """The kernel, the modules that are wanted, and those few that stand between the kernel and the disk."""
    kernel = next(tree.glob("boot/vmlinuz-*"))
    (folder / "kernel").write_bytes(_unpacked(kernel.read_bytes()))
    (tree / "initrd").mkdir()
    (tree / "initrd/init").write_text(INIT)
    version = kernel.name.removeprefix("vmlinuz-")
    _within(tree, f"version={version} first='{' '.join(FIRST)}' all='{' '.join(MODULES)}'\n{BOOT_FILES}")
    shutil.move(tree / "boot/initrd", folder / "initrd")
    shutil.rmtree(tree / "boot")


def _unpacked(kernel: bytes) -> bytes:
    """The kernel as the loader's own part of it would unpack it: there that takes three seconds at each boot."""
    return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(kernel[kernel.index(b"\xfd7zXZ\0") :])


def _debian(place: Path) -> None:
    options = ["--dpkgopt=force-unsafe-io", *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT)]
    include = f"--include={','.join(PACKAGES)}"
    recommends = '--aptopt=Apt::Install-Recommends "false"'
    _run("mmdebstrap", "--quiet", "--variant=essential", "--mode=root", recommends, *options, include, SUITE, place)


def _wheels(place: Path) -> None:
    """For the machine's Python, which may be another than ours."""
    with tempfile.TemporaryDirectory(prefix="dist-", dir=cache()) as scratch:
        dist = Path(scratch, "dist")
        _make_wheel(dist)
        wheel = next(dist.glob("bedplate-*.whl"))
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version=3.11"]
        platforms = [f"--platform={name}" for name in PLATFORMS]
        _run(*pip, *platforms, "--dest", place, "--constraint", dist / "constraints.txt", f"{wheel}[provisioner]")
        next(place.glob("bedplate-*.whl")).unlink()


def cache() -> Path:
    """Where layers are kept."""
    folder = Path(os.environ.get("BEDPLATE_VM_CACHE") or ROOT / "build/vm").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def kept(there: Path, make: Callable[[Path], None]) -> Path:
    """What stands there, made where it does not, by whoever comes first. Of each kind the few made last stay."""
    kind = there.name.partition("-")[0]
    with (cache() / f"{kind}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if there.exists():
            return there
        with tempfile.TemporaryDirectory(prefix="new-", dir=cache()) as scratch:
            new = Path(scratch, there.name)
            make(new)
            new.rename(there)
        alike = sorted(cache().glob(f"{kind}-*"), key=lambda path: -path.stat().st_mtime)
        for old in alike[KEPT:]:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    return there


def _contents() -> list[bytes]:
    parts = [
        path for name in SOURCES for path in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"))
    ]
    files = sorted(
        path
        for path in parts
        if path.is_file() and "__pycache__" not in path.parts and "nodeagent/machines" not in str(path)
    )
    ours = [guide.PAGE, HERE / "image.py", HERE / "inside.py", HERE / "guide.py"]
    return [str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() for path in (*files, *ours)]


def _debian_place() -> Path:
    return place("debian", repr((SUITE, PACKAGES, LEFT_OUT)).encode(), suffix=".tar")


def _wheels_place() -> Path:
    return place("wheels", (ROOT / "requirements.lock").read_bytes(), (ROOT / "pyproject.toml").read_bytes())


def place(name: str, *contents: bytes, suffix: str = "") -> Path:
    digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in contents)).hexdigest()
    return cache() / f"{name}-{digest[:16]}{suffix}"


def _within(tree: Path, script: str) -> None:
    _run("chroot", tree, "/usr/bin/env", "-i", f"PATH={_path()}", "HOME=/root", "sh", "-ec", f"cd /root\n{script}")


def _run(*command: str | Path, cwd: Path | None = None) -> None:
    """AssertionError with what it said where it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": _path()},
    )
    assert done.returncode == 0, f"{command[0]} failed: {done.stdout[-2000:]}{done.stderr[-4000:]}"


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
