"""The worker: the only process that loads NVIDIA's library. `python -m nodeagent.nvml.worker [LIBRARY]`

Rule 1: one line of JSON in, one line out; end of input is the order to leave.

    {"ask": "inventory" | "vitals", "gpus": [PCI address…], "within_s": 4.0}
    {"answer": {…}, "stuck_s": 0.0}   or   {"unanswered": {"kind", "detail"}, "code": 18, "stuck_s": 0.0}

Rule 2: it answers in time, whatever the library does. Every call into the library is made in a thread that nobody has
        to wait for, each GPU in its own: one that hangs is reported, the others answer, and it is not asked again
        until it returned. A driver whose firmware died takes 45 s for a call, and a process killed inside one can take
        the GPU along: so patience comes first. `stuck_s` tells how long the longest such call lasts.
Rule 3: GPUs are asked for by PCI address; by position only where the caller knows no address.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, BinaryIO

import pynvml  # type: ignore[import-untyped]

from nodeagent.errors import Unanswered
from nodeagent.nvml import readings
from nodeagent.nvml.library import Library, kind_of, words_for

_QUESTIONS = {"inventory": readings.inventory, "vitals": readings.vitals}
# Errors of one GPU that are the whole library's.
_OF_ALL = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)


class _Call:
    """A call into the library, in a thread of its own."""

    __slots__ = ("_done", "_error", "_value", "began")

    def __init__(self, work: Callable[[], Any]) -> None:
        self.began = time.monotonic()
        self._done = threading.Event()
        self._value: Any = None
        self._error: Exception | None = None
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self._value = work()
        except Exception as error:  # noqa: BLE001 - it is raised where the answer is taken
            self._error = error
        self._done.set()

    def pending(self) -> bool:
        return not self._done.is_set()

    def take(self, until: float) -> Any:
        """Its value, or its error; TimeoutError where it is not there in time."""
        if not self._done.wait(max(0.0, until - time.monotonic())):
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._value


class Desk:
    """Answers questions; keeps the library open between them."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._opening: _Call | None = None
        self._stuck: dict[str | int, _Call] = {}

    def reply(self, request: dict[str, Any]) -> dict[str, Any]:
        until = time.monotonic() + request["within_s"]
        try:
            reply = {"answer": self._answer(request["ask"], request["gpus"], until)}
        except Unanswered as error:
            reply = {"unanswered": {"kind": error.kind, "detail": error.detail}}
        except TimeoutError:
            reply = _unanswered("TIMEOUT", "its library does not return")
        except pynvml.NVMLError as error:
            reply = {**_unanswered(kind_of(error), words_for(error)), "code": error.value}
        except Exception as error:  # noqa: BLE001 - whatever broke, it is an answer
            reply = _unanswered("FAILED", f"{type(error).__name__}: {error}")
        return {**reply, "stuck_s": self._stuck_s()}

    def leave(self) -> None:
        """Politely: after the calls that are under way, however long they take; our client may lose patience first."""
        for call in self._stuck.values():
            _settle(call)
        if self._opening is not None and _settle(self._opening):
            self._library.close()

    def _answer(self, ask: str, gpus: Sequence[str], until: float) -> dict[str, Any]:
        fresh = self._opening is None
        driver, count = self._ready(until)
        results = self._ask_all(ask, gpus or range(count), until)
        if ask == "inventory" and not fresh and not self._stuck and any("unlisted" in gpu for gpu in results):
            self._close(until)  # the list is from when the library was opened: a GPU may have come since
            driver, count = self._ready(until)
            results = self._ask_all(ask, gpus or range(count), until)
        results = [{key: value for key, value in gpu.items() if key != "unlisted"} for gpu in results]
        answer = {"gpus": sorted(results, key=lambda gpu: gpu["pci_address"])}
        return {"driver": driver, **answer} if ask == "inventory" else answer

    def _ready(self, until: float) -> tuple[dict[str, str], int]:
        """An open library. One that went bad is opened anew, once: its kernel module may have been loaded again."""
        fresh = self._opening is None
        driver = self._open(until)
        try:
            return driver, self._count(until)
        except pynvml.NVMLError:
            if fresh:
                raise
        self._close(until)
        return self._open(until), self._count(until)

    def _open(self, until: float) -> dict[str, str]:
        """Waits for an opening that is still under way: it can wake GPUs, and then takes longer than one question."""
        if self._opening is None:
            self._opening = _Call(self._library.open)
        try:
            versions: dict[str, str] = self._opening.take(until)
        except TimeoutError:
            raise
        except Exception:
            self._opening = None
            raise
        return versions

    def _close(self, until: float) -> None:
        self._opening = None
        try:
            _Call(self._library.close).take(until)
        except pynvml.NVMLError:
            return  # it was closed from underneath

    def _count(self, until: float) -> int:
        call = self._stuck.pop("count", None) or _Call(self._library.count)
        return int(self._keep("count", call, until))

    def _keep(self, key: str | int, call: _Call, until: float) -> Any:
        try:
            return call.take(until)
        except TimeoutError:
            self._stuck[key] = call
            raise

    def _ask_all(self, ask: str, gpus: Sequence[str | int], until: float) -> list[dict[str, Any]]:
        """All at once, each in its own thread."""
        self._stuck = {key: call for key, call in self._stuck.items() if call.pending()}
        read = _QUESTIONS[ask]
        calls = {key: _Call(partial(_read, key, read)) for key in gpus if key not in self._stuck}
        return [self._result(key, calls.get(key), until) for key in gpus]

    def _result(self, key: str | int, call: _Call | None, until: float) -> dict[str, Any]:
        name = key if isinstance(key, str) else f"number {key}"
        hangs = {"pci_address": name, **_lost("TIMEOUT", name, "its driver does not return")}
        if call is None:
            return hangs  # still in an earlier call
        try:
            result: dict[str, Any] = self._keep(key, call, until)
        except TimeoutError:
            return hangs
        except pynvml.NVMLError as error:
            if error.value in _OF_ALL:
                raise
            mark = {"unlisted": True} if error.value == pynvml.NVML_ERROR_NOT_FOUND else {}
            return {"pci_address": name, **_lost(kind_of(error), name, words_for(error)), **mark}
        return result

    def _stuck_s(self) -> float:
        calls = [*self._stuck.values(), *([self._opening] if self._opening else [])]
        return max((time.monotonic() - call.began for call in calls if call.pending()), default=0.0)


def _settle(call: _Call) -> bool:
    """Waits for a call to end, for as long as it takes; whether it succeeded."""
    try:
        call.take(float(threading.TIMEOUT_MAX) / 2)
    except Exception:  # noqa: BLE001 - it has ended, that is all we wait for
        return False
    return True


def _read(key: str | int, read: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    gpu = readings.handle_of(key)
    return {"pci_address": readings.address_of(gpu), **read(gpu)}


def _unanswered(kind: str, why: str) -> dict[str, Any]:
    return {"unanswered": {"kind": kind, "detail": f"cannot ask the NVIDIA driver: {why}"}}


def _lost(kind: str, name: str, why: str) -> dict[str, Any]:
    return {"unanswered": {"kind": kind, "detail": f"cannot read GPU {name}: {why}"}}


def _private_output() -> BinaryIO:
    """Our end of the conversation, and nobody else's: what a library prints goes to standard error."""
    mine = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(mine, "wb")


def main() -> None:
    desk = Desk(Library(sys.argv[1] if len(sys.argv) > 1 else None))
    with _private_output() as output:
        for line in sys.stdin.buffer:
            output.write(json.dumps(desk.reply(json.loads(line))).encode() + b"\n")
            output.flush()
    desk.leave()


if __name__ == "__main__":
    main()
