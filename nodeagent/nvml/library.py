"""NVIDIA's management library: how it is found, opened and closed, and what its error codes mean to a person.

Rule 1: only the worker process imports this. A library that crashes takes its process along, and one that was replaced
        on disk stays as it was in the processes that mapped it.
Rule 2: pynvml is used as released.

pynvml opens `libnvidia-ml.so.1` by that name. A library at a configured path is therefore opened before, by its path:
the dynamic linker answers a later request for the name with a library that is already there and calls itself so (its
SONAME). That needs neither a changed search path, which would reach other libraries too, nor a changed pynvml; and we
check that pynvml was given that one.
"""

import ctypes
from typing import Any

import pynvml  # type: ignore[import-untyped]

from nodeagent.errors import Unanswered

NAME = "libnvidia-ml.so.1"
# Init attaches no GPU, so a bad one cannot stop it, and a machine whose GPUs are all gone still tells its versions.
_FLAGS = 1  # NVML_INIT_FLAG_NO_GPUS

_KINDS = {
    pynvml.NVML_ERROR_NO_PERMISSION: "NO_PERMISSION",
    pynvml.NVML_ERROR_OPERATING_SYSTEM: "NO_PERMISSION",  # a cgroup that forbids /dev/nvidia*
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "ABSENT",
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "ABSENT",
    pynvml.NVML_ERROR_TIMEOUT: "TIMEOUT",
    pynvml.NVML_ERROR_GPU_IS_LOST: "LOST",
    pynvml.NVML_ERROR_NOT_FOUND: "LOST",
    pynvml.NVML_ERROR_GPU_NOT_FOUND: "LOST",
}
_WORDS = {
    pynvml.NVML_ERROR_NO_PERMISSION: "the driver does not permit it",
    pynvml.NVML_ERROR_OPERATING_SYSTEM: "the operating system forbids it",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "its kernel module is not loaded",
    pynvml.NVML_ERROR_TIMEOUT: "the GPU does not answer its driver",
    pynvml.NVML_ERROR_GPU_IS_LOST: "it fell off the bus",
    pynvml.NVML_ERROR_NOT_FOUND: "the driver does not list it",
    pynvml.NVML_ERROR_GPU_NOT_FOUND: "the driver does not list it",
    pynvml.NVML_ERROR_RESET_REQUIRED: "it wants a reset",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the driver library and the kernel module differ; reboot",
}


def kind_of(error: Any) -> str:
    return _KINDS.get(error.value, "FAILED")


def words_for(error: Any) -> str:
    return _WORDS.get(error.value) or f"{error} (NVML error {error.value})"


class Library:
    """The library of one worker: it stays open, for opening can wake GPUs and take them seconds."""

    __slots__ = ("_loaded", "_path")

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._loaded: ctypes.CDLL | None = None

    def open(self) -> dict[str, str]:
        """Open it, and say which versions answer."""
        if self._loaded is None:
            self._loaded = _load(self._path)
        pynvml.nvmlInitWithFlags(_FLAGS)
        cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        return {
            "library_version": pynvml.nvmlSystemGetNVMLVersion(),
            "cuda_version": f"{cuda // 1000}.{cuda % 1000 // 10}",
        }

    def close(self) -> None:
        pynvml.nvmlShutdown()

    def count(self) -> int:
        return int(pynvml.nvmlDeviceGetCount())


def _load(path: str | None) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(path or NAME)
    except OSError as error:
        kind = "ABSENT" if "No such file" in str(error) else "FAILED"
        raise Unanswered(kind, f"cannot load the NVIDIA driver's library: {error}") from error
    if path and ctypes.CDLL(NAME)._handle != library._handle:  # noqa: SLF001 - ctypes shows it nowhere else
        raise Unanswered("FAILED", f"cannot load the NVIDIA driver's library: {path} does not call itself {NAME}")
    return library
