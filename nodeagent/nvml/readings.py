"""What NVML says of one GPU, as plain data: keys are the fields of Gpu and GpuVitals.

Rule 1: what a GPU does not support is left out, and is not zero.
Rule 2: what it could not tell for another reason is named, with the reason, once for all fields that share it.
Rule 3: a GPU that is gone or hangs is not asked further: each more call to one whose firmware died takes 45 s.

Of pynvml's calls those with arguments made once for all calls (nvmlDeviceGetModuleId) are given fresh ones, for one
thread asks each GPU; and structures of a version that an older driver does not know fall back to the version before.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import pynvml  # type: ignore[import-untyped]

from nodeagent.nvml.library import kind_of, words_for
from nodeagent.nvml.presence import normal

_UNSUPPORTED = frozenset(
    {
        pynvml.NVML_ERROR_INVALID_ARGUMENT,  # a question that this driver does not know
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NOT_FOUND,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_NO_DATA,
        pynvml.NVML_ERROR_VGPU_ECC_NOT_SUPPORTED,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        pynvml.NVML_ERROR_DEPRECATED,
    }
)
_HOPELESS = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_TIMEOUT,
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)
_ARCHITECTURES = {
    2: "Kepler",
    3: "Maxwell",
    4: "Pascal",
    5: "Volta",
    6: "Turing",
    7: "Ampere",
    8: "Ada Lovelace",
    9: "Hopper",
    10: "Blackwell",
    13: "Rubin",
}
_RECOVERY = (
    "none",
    "gpu-reset",
    "node-reboot",
    "drain-p2p",
    "drain-and-reset",
    "recover-imex-domain",
    "bus-reset",
    "system-reboot",
)
_FABRIC_STATES = {1: "not-started", 2: "in-progress", 3: "completed"}
_REMOTES = {0: "gpu", 1: "cpu", 2: "switch"}  # type 1 is the NPU of a POWER processor
_NOT_SHOWN = "fffffff"  # how a guest sees the address of a switch that was not passed through to it
_INSTANT_POWER, _RECOVERY_ACTION, _LINK_COUNT = 186, 230, 91  # NVML_FI_DEV_*
_VALUE_NAMES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by NVML_VALUE_TYPE_*


class _Sheet:
    """The readings of one GPU as they come in."""

    __slots__ = ("_failed", "values")

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._failed: dict[tuple[str, str], list[str]] = {}

    def put(self, name: str, read: Callable[[], Any]) -> None:
        try:
            value = read()
        except pynvml.NVMLError as error:
            if error.value in _HOPELESS:
                raise
            if error.value not in _UNSUPPORTED:
                self._failed.setdefault((kind_of(error), words_for(error)), []).append(name)
        except UnicodeDecodeError:
            self._failed.setdefault(("FAILED", "it is not text"), []).append(name)
        else:
            if value is not None:
                self.values[name] = value

    def done(self) -> dict[str, Any]:
        if not self._failed:
            return self.values
        problems = [
            {"kind": kind, "detail": f"cannot read {', '.join(names)}: {words}"}
            for (kind, words), names in self._failed.items()
        ]
        return {**self.values, "problems": problems}


def handle_of(key: str | int) -> Any:
    """By PCI address, or by position where no address is known: positions shift when a GPU is lost."""
    if isinstance(key, str):
        return pynvml.nvmlDeviceGetHandleByPciBusId(key)
    return pynvml.nvmlDeviceGetHandleByIndex(key)


def address_of(gpu: Any) -> str:
    address = str(pynvml.nvmlDeviceGetPciInfo(gpu).busId)
    return normal(address) or address


def inventory(gpu: Any) -> dict[str, Any]:
    """What one GPU is: the fields of Gpu."""
    sheet = _Sheet()
    sheet.put("uuid", lambda: pynvml.nvmlDeviceGetUUID(gpu))
    sheet.put("name", lambda: pynvml.nvmlDeviceGetName(gpu))
    sheet.put("serial", lambda: pynvml.nvmlDeviceGetSerial(gpu))
    sheet.put("architecture", lambda: _ARCHITECTURES.get(pynvml.nvmlDeviceGetArchitecture(gpu)))
    sheet.put("compute_capability", lambda: "{}.{}".format(*pynvml.nvmlDeviceGetCudaComputeCapability(gpu)))
    sheet.put("memory_bytes", lambda: int(_memory(gpu).total))
    sheet.put("vbios_version", lambda: pynvml.nvmlDeviceGetVbiosVersion(gpu))
    sheet.put("board_part_number", lambda: pynvml.nvmlDeviceGetBoardPartNumber(gpu))
    sheet.put("module_id", lambda: pynvml.nvmlDeviceGetModuleId(gpu, ctypes.c_uint()))
    sheet.put("minor", lambda: pynvml.nvmlDeviceGetMinorNumber(gpu))
    sheet.put("ecc", lambda: bool(pynvml.nvmlDeviceGetEccMode(gpu)[0]))
    sheet.put("mig", lambda: bool(pynvml.nvmlDeviceGetMigMode(gpu)[0]))
    sheet.put("nvlinks", lambda: _nvlinks(gpu) or None)
    sheet.put("fabric_cluster_uuid", lambda: _cluster(gpu))
    if "fabric_cluster_uuid" in sheet.values:
        sheet.put("fabric_clique_id", lambda: int(_fabric(gpu).cliqueId))
    return sheet.done()


def vitals(gpu: Any) -> dict[str, Any]:
    """What one GPU's dials say: its UUID and the fields of GpuVitals."""
    sheet = _Sheet()
    sheet.put("uuid", lambda: pynvml.nvmlDeviceGetUUID(gpu))
    sheet.put("celsius", lambda: float(_temperature(gpu)))
    sheet.put("watts", lambda: _milliwatts(gpu) / 1000)
    sheet.put("memory_used_bytes", lambda: int(_memory(gpu).used))
    sheet.put("utilization_percent", lambda: float(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu))
    sheet.put("ecc_corrected_volatile", lambda: _ecc(gpu, pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED))
    sheet.put("ecc_uncorrected_volatile", lambda: _ecc(gpu, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED))
    sheet.put("row_remap_pending", lambda: bool(pynvml.nvmlDeviceGetRemappedRows(gpu)[2]))
    sheet.put("row_remap_failed", lambda: bool(pynvml.nvmlDeviceGetRemappedRows(gpu)[3]))
    sheet.put("recovery_action", lambda: _recovery(gpu))
    sheet.put("clocks_event_reasons", lambda: _clocks_event_reasons(gpu))
    sheet.put("pcie_replays", lambda: pynvml.nvmlDeviceGetPcieReplayCounter(gpu))
    sheet.put("fabric_state", lambda: _FABRIC_STATES.get(_fabric(gpu).state))
    sheet.put("nvlinks_active", lambda: _nvlinks_active(gpu))
    return sheet.done()


def _else(first: Callable[[], Any], second: Callable[[], Any]) -> Any:
    """The second way to ask, where the driver is too old for the first, or has not the answer there."""
    try:
        return first()
    except pynvml.NVMLError as error:
        if error.value not in _UNSUPPORTED:
            raise
        return second()


def _memory(gpu: Any) -> Any:
    """The second version: the first counts what the driver keeps for itself as used."""
    return _else(
        lambda: pynvml.nvmlDeviceGetMemoryInfo(gpu, version=pynvml.nvmlMemory_v2),
        lambda: pynvml.nvmlDeviceGetMemoryInfo(gpu),
    )


def _temperature(gpu: Any) -> int:
    sensor = pynvml.NVML_TEMPERATURE_GPU
    return int(
        _else(
            lambda: pynvml.nvmlDeviceGetTemperatureV(gpu, sensor),
            lambda: pynvml.nvmlDeviceGetTemperature(gpu, sensor),
        )
    )


def _milliwatts(gpu: Any) -> float:
    return float(_else(lambda: _field(gpu, _INSTANT_POWER), lambda: pynvml.nvmlDeviceGetPowerUsage(gpu)))


def _recovery(gpu: Any) -> str:
    action = int(_field(gpu, _RECOVERY_ACTION))
    return _RECOVERY[action] if 0 <= action < len(_RECOVERY) else f"action-{action}"


def _clocks_event_reasons(gpu: Any) -> int:
    return int(
        _else(
            lambda: pynvml.nvmlDeviceGetCurrentClocksEventReasons(gpu),
            lambda: pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu),
        )
    )


def _ecc(gpu: Any, kind: int) -> int:
    return int(pynvml.nvmlDeviceGetTotalEccErrors(gpu, kind, pynvml.NVML_VOLATILE_ECC))


def _field(gpu: Any, number: int) -> Any:
    field = pynvml.nvmlDeviceGetFieldValues(gpu, [number])[0]
    if field.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(field.nvmlReturn)
    if field.valueType >= len(_VALUE_NAMES):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return getattr(field.value, _VALUE_NAMES[field.valueType])


def _fabric(gpu: Any) -> Any:
    def ask(info: Any) -> Any:
        pynvml.nvmlDeviceGetGpuFabricInfoV(gpu, ctypes.byref(info))
        return info

    return _else(lambda: ask(pynvml.c_nvmlGpuFabricInfo_v3_t()), lambda: ask(pynvml.c_nvmlGpuFabricInfo_v2_t()))


def _cluster(gpu: Any) -> str | None:
    """Only a cluster with an identity spans machines: an HGX board says "completed" too, and has none."""
    digits = bytes(_fabric(gpu).clusterUuid).hex()
    if not int(digits, 16):
        return None
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _link_count(gpu: Any) -> int:
    most = int(pynvml.NVML_NVLINK_MAX_LINKS)
    return min(int(_else(lambda: _field(gpu, _LINK_COUNT), lambda: most)), most)


def _states(gpu: Any) -> dict[int, bool]:
    """Which links there are, and whether they are up; a number that is no link is passed over."""
    states = {}
    for number in range(_link_count(gpu)):
        try:
            states[number] = bool(pynvml.nvmlDeviceGetNvLinkState(gpu, number))
        except pynvml.NVMLError as error:
            if error.value == pynvml.NVML_ERROR_INVALID_ARGUMENT:
                break
            if error.value not in _UNSUPPORTED:
                raise
    return states


def _nvlinks_active(gpu: Any) -> int | None:
    states = _states(gpu)
    return sum(states.values()) if states else None


def _nvlinks(gpu: Any) -> list[dict[str, Any]]:
    return [_nvlink(gpu, number, active=active) for number, active in _states(gpu).items()]


def _nvlink(gpu: Any, number: int, *, active: bool) -> dict[str, Any]:
    sheet = _Sheet()
    sheet.put("version", lambda: int(pynvml.nvmlDeviceGetNvLinkVersion(gpu, number)) or None)
    sheet.put("remote", lambda: _REMOTES.get(pynvml.nvmlDeviceGetNvLinkRemoteDeviceType(gpu, number)))
    sheet.put("remote_pci_address", lambda: pynvml.nvmlDeviceGetNvLinkRemotePciInfo(gpu, number).busId)
    far = sheet.values.pop("remote_pci_address", "")
    if far.startswith(_NOT_SHOWN):
        sheet.values.setdefault("remote", "switch")
    address = {"remote_pci_address": normal(far)} if normal(far) else {}
    return {"number": number, "active": active, **sheet.values, **address}
