"""Tries what a unit forbids: `attempts.py NAME…` prints {name: what came of it} as JSON, and waits for its end.

What came of it is 'done', or the error's name: 'EPERM'. A test has it run twice: under the very unit, with a drop-in
that changes ExecStart= alone, and as root without any sandbox, where each attempt has to end in 'done', or it shows
nothing.

Rule: it is no part of Bedplate, and knows nothing of it; Debian's own Python runs it.
"""

import ctypes
import errno
import json
import mmap
import os
import pwd
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

OUTSIDE = Path("/srv/outside")  # a test makes it: what the host has beside Bedplate
HOME = Path(pwd.getpwuid(0).pw_dir)
LIBC = ctypes.CDLL(None, use_errno=True)
KEYCTL, ADD_KEY, REQUEST_KEY, BPF = 250, 248, 249, 321  # numbers of system calls, x86-64
CLONE_NEWUSER, PER_LINUX32, PR_GET_NO_NEW_PRIVS, PR_CAPBSET_READ, CAP_SYS_ADMIN = 0x10000000, 8, 39, 23, 21


def capability_bounding_set():
    """That there is one left that could be had."""
    _refuse_if(LIBC.prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN, 0, 0, 0) == 0, errno.EPERM)


def file_of_another():
    """Of root's powers, one that the filter of system calls lets through: to read what is another user's alone."""
    (OUTSIDE / "of-another").read_text()


def environment_of_another():
    """Another one: to look into processes."""
    Path(f"/proc/{_process_of_another()}/environ").read_bytes()


def ambient_capabilities():
    """Those of a program without any of its own that this one starts: outside, root's child has them all."""
    status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    _refuse_if("CapEff:\t0000000000000000" in status, errno.EPERM)


def setuid_program():
    """`id` with a setuid bit, of a user that is not ours: whose rights has it?"""
    whose = int(subprocess.run([OUTSIDE / "id-of-another", "-u"], capture_output=True, check=True).stdout)
    _refuse_if(whose == os.getuid(), errno.EPERM)


def write_to_usr():
    _write(Path("/usr/local/written"))


def write_to_etc():
    _write(Path("/etc/bedplate/written"))


def write_to_var():
    _write(Path("/var/lib/bedplate/written"))


def write_to_a_home():
    _write(HOME / "written")


def read_a_home():
    list(HOME.iterdir())
    _refuse_if(not (HOME / "dist").exists(), errno.ENOENT)


def mounts_of_the_host():
    _refuse_if(str(Path("/proc/self/ns/mnt").readlink()) != (OUTSIDE / "mnt").read_text().strip(), errno.EXDEV)


def files_in_tmp():
    Path("/tmp/outside").read_text()


def read_the_disk():
    with (OUTSIDE / "disk").open("rb") as disk:
        disk.read(512)


def node_of_a_disk():
    Path("/dev/vda").stat()


def node_of_nvidia():
    """Driver 195 is not here, and whoever may ask the kernel for it hears so: ENXIO."""
    try:
        os.close(os.open(OUTSIDE / "nvidiactl", os.O_RDWR))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise


def process_of_another():
    Path(f"/proc/{_process_of_another()}").stat()


def proc_beside_processes():
    Path("/proc/meminfo").read_text()


def kernel_setting():
    path = Path("/proc/sys/vm/swappiness")
    path.write_text(path.read_text())


def kernel_settings():
    _refuse_if(os.statvfs("/sys").f_flag & os.ST_RDONLY, errno.EROFS)


def kernel_modules():
    list(Path("/usr/lib/modules").iterdir())


def kernel_log():
    os.close(os.open("/dev/kmsg", os.O_RDONLY))


def kernel_log_by_call():
    _call(LIBC.klogctl(10, None, 0))  # 10: how large it is


def control_groups():
    _refuse_if(os.statvfs("/sys/fs/cgroup").f_flag & os.ST_RDONLY, errno.EROFS)


def clock():
    now = (ctypes.c_long * 2)(*divmod(time.time_ns(), 10**9))  # struct timespec
    _call(LIBC.clock_settime(0, ctypes.byref(now)))


def clock_device():
    os.close(os.open("/dev/rtc0", os.O_WRONLY))


def host_name():
    socket.sethostname(socket.gethostname())


def user_of_another():
    """As whom the kernel shows a file of a user who is neither root nor ours."""
    _refuse_if((OUTSIDE / "of-another").stat().st_uid == 65534 != int((OUTSIDE / "uid").read_text()), errno.EOVERFLOW)


def raw_socket():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()


def netlink_socket():
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()


def new_namespace():
    _in_a_child(lambda: _call(LIBC.unshare(CLONE_NEWUSER)))


def real_time():
    _in_a_child(lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)))


def setuid_bit():
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).chmod(0o4755)
        _refuse_if(not Path(file.name).stat().st_mode & stat.S_ISUID, errno.EPERM)


def program_of_32_bits():
    """It says exit(0) in the old ABI; where nobody hears that, it runs on into what is no instruction."""
    code = b"\xb8\x01\x00\x00\x00\x31\xdb\xcd\x80\x0f\x0b"
    head = (
        b"\x7fELF\x01\x01\x01"
        + bytes(9)
        + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, 0x08048054, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    )
    head += struct.pack("<IIIIIIII", 1, 0, 0x08048000, 0x08048000, 84 + len(code), 84 + len(code), 5, 4096)
    with tempfile.TemporaryDirectory(dir=_ours()) as folder:
        program = Path(folder, "program")
        program.write_bytes(head + code)
        program.chmod(0o700)
        ended = subprocess.run([program], check=False)
    _refuse_if(ended.returncode in (-signal.SIGSYS, -signal.SIGILL), errno.ENOSYS)
    assert ended.returncode == 0, ended


def personality():
    _in_a_child(lambda: _call(LIBC.personality(PER_LINUX32)))


def memory_to_write_and_run():
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def call_of_no_service():
    """bpf(2), with nothing: whoever may make the call at all hears that this makes no sense."""
    try:
        _call(LIBC.syscall(BPF, 0, None, 0))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EFAULT):
            raise


def call_of_the_privileged():
    """One that needs no capability: to become who one is."""
    os.setuid(os.getuid())


def call_about_resources():
    """One that needs no capability: to step back behind others."""
    _in_a_child(lambda: os.setpriority(os.PRIO_PROCESS, 0, 19))


def key_of_the_user():
    """A key that root left in its own keyring, found by name from our session's."""
    _call(LIBC.syscall(REQUEST_KEY, b"user", b"bedplate-outside", None, 0))


def memory_left_behind():
    """System V memory, which the host keeps until somebody removes it."""
    _call(LIBC.shmget(0xBED, 4096, 0o1600))


def file_for_all():
    """The mode of a file that nobody thought about."""
    path = _ours() / "thoughtless"
    path.unlink(missing_ok=True)
    path.touch()
    _refuse_if(not path.stat().st_mode & stat.S_IROTH, errno.EACCES)


def _in_a_child(attempt):
    """What would stay with us is tried by somebody else."""
    child = os.fork()
    if not child:
        try:
            attempt()
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _refuse_if(code != 0, code)


def _call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _refuse_if(refused, code):
    if refused:
        raise OSError(code, "refused")


def _write(path):
    path.write_text("written")
    path.unlink()


def _process_of_another():
    return int((OUTSIDE / "pid").read_text())


def _ours():
    return Path(os.environ.get("STATE_DIRECTORY", "/srv"))


def outcome(name):
    try:
        globals()[name]()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "done"


def main():
    sys.stdout.write(json.dumps({name: outcome(name) for name in sys.argv[1:]}) + "\n")
    sys.stdout.flush()
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", path)
        threading.Event().wait()


if __name__ == "__main__":
    main()
