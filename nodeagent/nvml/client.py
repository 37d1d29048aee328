"""The worker's client: starts the worker where there is reason to, asks it, and outlives whatever becomes of it.

Rule 1: this process never loads NVIDIA's library.
Rule 2: no worker without reason: a configured library, a loaded driver, or an NVIDIA GPU on the PCI bus. A machine
        without a GPU is an ordinary machine, and has no problem.
Rule 3: a question has a deadline. A worker that misses it is dismissed: its input is closed, then time passes, then
        SIGTERM, and SIGKILL at the very last, for that can freeze a GPU. All this in a thread of its own; the next
        question goes to a new worker. At most two are on their way out at a time.
Rule 4: a worker that crashes is a fact, and the next one starts at once; one that crashes too waits, ever longer.
Rule 5: what comes back has its shape, or it is no answer: a library that writes where it should not can make the worker
        say anything. Such a worker is dismissed like one that hangs, for it may be inside a driver.
Rule 6: a library that was replaced on disk stays as it was in the worker that mapped it: where library and kernel
        module differ, one new worker looks again, before a person hears that the machine wants a reboot.
"""

import json
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from nodeagent.errors import Unanswered
from nodeagent.nvml import presence
from nodeagent.root import Root

DEADLINE_S = 5.0
PATIENCE_S = 60.0  # a driver whose firmware died takes 45 s for one call
_WORKERS_SHARE = 0.8  # of the deadline: the worker then says itself which GPU does not answer
_START_S = 5.0  # an interpreter's start on a machine that is starting too
_LONGEST_PAUSE_S = 60.0
_MOST_BYTES = 4 * 1024 * 1024
_MOST_LEAVING = 2
_MISMATCH = 18  # NVML_ERROR_LIB_RM_VERSION_MISMATCH

WORKER = (sys.executable, "-P", "-m", "nodeagent.nvml.worker")

Process = subprocess.Popen[bytes]


class _Gpu(msgspec.Struct):
    pci_address: str


class _Answer(msgspec.Struct):
    gpus: list[_Gpu]


class _Silence(msgspec.Struct):
    kind: str
    detail: str


class _Reply(msgspec.Struct):
    """What every reply has; its readings are looked at by whoever puts them into a snapshot."""

    stuck_s: float
    answer: _Answer | None = None
    unanswered: _Silence | None = None
    code: int = 0


class Client:
    """Asks NVIDIA's driver through a worker process. Any thread may ask; one question is answered at a time."""

    def __init__(
        self,
        root: Root,
        library: Path | None = None,
        *,
        deadline_s: float = DEADLINE_S,
        patience_s: float = PATIENCE_S,
        worker: Sequence[str] = WORKER,
    ) -> None:
        """`library` is a path to libnvidia-ml.so.1, for where the dynamic linker does not find it by itself."""
        self._root = root
        self._library = library
        self._program = worker
        self._deadline_s = deadline_s
        self._patience_s = patience_s
        self._turn = threading.Lock()
        self._worker: Process | None = None
        self._leaving: list[tuple[Process, threading.Thread]] = []
        self._closed = False
        self._gpus: Sequence[str] = ()
        self._crashes = 0
        self._not_before = 0.0
        self._why_not = Unanswered("FAILED", "")
        self._looked_again = float("-inf")

    def doors(self) -> dict[str, Callable[[], Any]]:
        """What a Host is given: the questions by the names that probes use."""
        return {"nvml": self.inventory, "nvml-vitals": self.vitals}

    def inventory(self) -> dict[str, Any]:
        """{"driver": {"library_version", "cuda_version"}, "gpus": [fields of Gpu…]}, by PCI address.

        A GPU that cannot answer has "unanswered": {"kind", "detail"}; fields that could not be read are in "problems".
        A machine without reason to ask has {"gpus": []}.
        """
        gpus = presence.for_the_driver(self._root)
        if not gpus and not self._library and not presence.driver_loaded(self._root):
            return {"gpus": []}
        answer = self._ask("inventory", gpus)
        self._gpus = [gpu["pci_address"] for gpu in answer["gpus"] if "uuid" in gpu] if gpus else ()
        return answer

    def vitals(self) -> dict[str, Any]:
        """{"gpus": [{"pci_address", "uuid", fields of GpuVitals…}]}, for the GPUs that the last inventory found."""
        if not self._library and not presence.driver_loaded(self._root):
            return {"gpus": []}
        return self._ask("vitals", self._gpus or presence.held_by_the_driver(self._root))

    def pid(self) -> int | None:
        """The worker's process, while there is one."""
        worker = self._worker
        return worker.pid if worker is not None and worker.poll() is None else None

    def close(self) -> None:
        """Ends the workers within a second: politely, but a machine that shuts down does not wait for its driver."""
        self._closed = True
        for leaving, _ in self._leaving:
            leaving.terminate()
        mine = self._turn.acquire(timeout=0.1)  # whoever still waits for an answer gets none
        worker, self._worker = self._worker, None
        if worker is not None:
            _end(worker, patience_s=0.4, grace_s=0.2)
        for leaving, ending in self._leaving:
            leaving.kill()
            ending.join(0.1)
        if mine:
            self._turn.release()

    def _ask(self, question: str, gpus: Sequence[str]) -> dict[str, Any]:
        if not self._turn.acquire(timeout=self._deadline_s):
            raise _unanswered("TIMEOUT", "an earlier question is not answered yet")
        try:
            reply = self._exchange(question, gpus)
            if reply.get("code") == _MISMATCH and time.monotonic() - self._looked_again > _LONGEST_PAUSE_S:
                self._looked_again = time.monotonic()
                self._dismiss()
                reply = self._exchange(question, gpus)
        finally:
            self._turn.release()
        if "unanswered" in reply:
            raise Unanswered(reply["unanswered"]["kind"], reply["unanswered"]["detail"])
        answer: dict[str, Any] = reply["answer"]
        return answer

    def _exchange(self, question: str, gpus: Sequence[str]) -> dict[str, Any]:
        """One question and its reply. A worker that stays in one call beyond all patience is replaced."""
        limit_s = self._deadline_s
        if self._worker is None:
            self._worker = self._start()
            limit_s += _START_S
        request = {"ask": question, "gpus": list(gpus), "within_s": self._deadline_s * _WORKERS_SHARE}
        try:
            reply = _read(_talk(self._worker, json.dumps(request).encode() + b"\n", limit_s))
        except TimeoutError:
            self._dismiss()
            raise _unanswered("TIMEOUT", f"no answer within {limit_s:g} s") from None
        except (EOFError, OSError):
            raise self._crashed() from None
        except ValueError:
            self._dismiss()
            raise self._put_off("its worker said what is no answer") from None
        self._crashes = 0
        if reply["stuck_s"] > self._patience_s:
            self._dismiss()
        return reply

    def _start(self) -> Process:
        if time.monotonic() < self._not_before:
            raise self._why_not
        if self._closed:
            raise _unanswered("ABSENT", "the agent is ending")
        self._leaving = [(worker, ending) for worker, ending in self._leaving if ending.is_alive()]
        if len(self._leaving) >= _MOST_LEAVING:
            raise _unanswered("TIMEOUT", "earlier workers are still inside its library")
        arguments = [str(self._library)] if self._library else []
        return subprocess.Popen(
            [*self._program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            process_group=0,  # Ctrl-C in a terminal is for us; we tell the worker
        )

    def _crashed(self) -> Unanswered:
        worker, self._worker = self._worker, None
        if worker is None:
            return _unanswered("FAILED", "the worker is gone")
        _end(worker, patience_s=1.0, grace_s=0.2)
        return self._put_off(f"its library ended the worker ({_ending(worker.returncode)})")

    def _put_off(self, why: str) -> Unanswered:
        """The next worker starts at once, those after it ever later."""
        self._crashes += 1
        pause_s = min(2.0 ** (self._crashes - 1), _LONGEST_PAUSE_S) if self._crashes > 1 else 0.0
        self._not_before = time.monotonic() + pause_s
        self._why_not = _unanswered("FAILED", why)
        return self._why_not

    def _dismiss(self) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        ending = threading.Thread(
            target=_end,
            args=(worker,),
            kwargs={"patience_s": self._patience_s, "grace_s": 5.0},
            name=f"nvml-worker-{worker.pid}-ends",
            daemon=True,
        )
        ending.start()
        self._leaving.append((worker, ending))


def _unanswered(kind: str, why: str) -> Unanswered:
    return Unanswered(kind, f"cannot ask the NVIDIA driver: {why}")


def _talk(worker: Process, line: bytes, limit_s: float) -> bytes:
    """One line there and one back. EOFError where the worker is gone, TimeoutError where it does not answer, ValueError
    where it says more than that.
    """
    if worker.stdin is None or worker.stdout is None:
        raise EOFError
    until = time.monotonic() + limit_s
    poll = select.poll()
    poll.register(worker.stdout, select.POLLIN)
    if any(event & select.POLLIN for _, event in poll.poll(0)):
        raise ValueError("it says something that it was not asked")  # or it would pass for the answer to this
    worker.stdin.write(line)  # a few hundred bytes into an empty pipe
    reply = b""
    while not reply.endswith(b"\n"):
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            raise TimeoutError
        part = worker.stdout.read(65536)
        if not part:
            raise EOFError
        reply += part
        if len(reply) > _MOST_BYTES:
            raise ValueError("it does not end")
    return reply


def _read(line: bytes) -> dict[str, Any]:
    """ValueError where it is no reply of a worker's."""
    try:
        reply: dict[str, Any] = json.loads(line)
        shape = msgspec.convert(reply, _Reply)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if shape.answer is None and shape.unanswered is None:
        raise ValueError("it says neither what it found nor why it did not")
    return reply


def _end(worker: Process, *, patience_s: float, grace_s: float) -> None:
    """Closes the worker's input, waits, and only then insists. Leaves no zombie, unless the kernel holds it."""
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            pipe.close()
    for wait_s, insist in ((patience_s, worker.terminate), (grace_s, worker.kill), (grace_s, None)):
        try:
            worker.wait(wait_s)
        except subprocess.TimeoutExpired:
            if insist is not None:
                insist()
        else:
            return


def _ending(status: int | None) -> str:
    """-11 -> 'signal 11'"""
    if status is None:
        return "it does not go"
    return f"signal {-status}" if status < 0 else f"exit status {status}"
