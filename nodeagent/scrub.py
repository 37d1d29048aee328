"""Scrub: what tells one individual machine from another is replaced by stand-ins, everywhere it stands.

Rule 1: two nets. What a snapshot or a file's name says is a serial, an address or a name is looked for everywhere, in
        every form it is written in; and whatever looks like a MAC, a GUID, a UUID or an IP address is replaced unasked.
Rule 2: a value too plain to look for everywhere (a serial "7", a host called "memory") is replaced where it is the
        whole of its file or field, and otherwise left alone: a scrubbed machine must still replay.
Rule 3: nothing but identifiers changes: models, versions, PCI addresses and counters are why a capture is of use.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from bedplate.v1.snapshot_pb2 import Snapshot
from nodeagent.standin import PLACEHOLDER, stand_in

# Message, field -> kind of stand-in.
FIELDS: Mapping[tuple[str, str], str] = {
    ("Identity", "hostname"): "hostname",
    ("Identity", "machine_id"): "uuid",
    ("Identity", "product_serial"): "serial",
    ("Identity", "product_uuid"): "uuid",
    ("Identity", "board_serial"): "serial",
    ("Identity", "chassis_serial"): "serial",
    ("Identity", "bmc_mac"): "mac",
    ("Link", "mac"): "mac",
    ("Link", "permanent_mac"): "mac",
    ("Link", "addresses"): "ip",
    ("RdmaDevice", "node_guid"): "guid",
    ("RdmaDevice", "system_image_guid"): "guid",
    ("Disk", "serial"): "serial",
    ("Disk", "wwn"): "wwn",
    ("Gpu", "uuid"): "uuid",
    ("Gpu", "serial"): "serial",
    ("Gpu", "fabric_cluster_uuid"): "uuid",
    ("HostVitals", "boot_id"): "uuid",
}
# Files whose whole content is one identifier, by the end of their names.
FILES: Mapping[str, str] = {
    "address": "mac",
    "board_asset_tag": "serial",
    "board_serial": "serial",
    "boot_id": "uuid",
    "chassis_asset_tag": "serial",
    "chassis_serial": "serial",
    "hostname": "hostname",
    "machine-id": "uuid",
    "node_guid": "guid",
    "product_serial": "serial",
    "product_uuid": "uuid",
    "serial": "serial",
    "sys_image_guid": "guid",
    "wwid": "wwn",
}
# Keys of answers, tried in this order.
KEYS = (
    (re.compile(r"uuid|boot_?id|machine_?id", re.IGNORECASE), "uuid"),
    (re.compile(r"guid", re.IGNORECASE), "guid"),
    (re.compile(r"serial|asset|pdi$", re.IGNORECASE), "serial"),
    (re.compile(r"mac$", re.IGNORECASE), "mac"),
    (re.compile(r"host_?name$", re.IGNORECASE), "hostname"),
    (re.compile(r"addresses$", re.IGNORECASE), "ip"),
)
_BYTE = "[0-9a-fA-F]{2}"
PATTERNS = (
    ("uuid", r"(?<![0-9a-fA-F])[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![0-9a-fA-F])"),
    ("mac", rf"(?<![0-9a-fA-F:]){_BYTE}(?::{_BYTE}){{19}}(?![0-9a-fA-F:])"),
    ("mac", rf"(?<![0-9a-fA-F:]){_BYTE}(?::{_BYTE}){{5}}(?![0-9a-fA-F:])"),
    ("mac", rf"(?:(?<=[=\s]01-)|(?<![0-9a-fA-F-])){_BYTE}(?:-{_BYTE}){{5}}(?![0-9a-fA-F-])"),
    ("ip", r"(?<![0-9a-fA-F:])[0-9a-fA-F]{4}(?::[0-9a-fA-F]{4}){7}(?![0-9a-fA-F:])"),
    ("guid", r"(?<![0-9a-fA-F:])[0-9a-fA-F]{4}(?::[0-9a-fA-F]{4}){3}(?![0-9a-fA-F:])"),
)
# Only where addresses are at home: elsewhere four numbers with dots are a version.
ADDRESSES = (
    ("ip", r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])"),
    ("ip", r"(?<![0-9a-zA-Z:.])[0-9a-fA-F:]*::?[0-9a-fA-F:]+(?![0-9a-zA-Z:.])"),
    ("hostname", r"(?<=://)[a-zA-Z][\w-]*(?:\.[\w-]+)+|(?<=hostname=)[\w.-]+|(?<=nfsroot=)[a-zA-Z][\w.-]*(?=:)"),
)
_AT_HOME = re.compile(r"proc/cmdline|answers/links\.json|answers/filesystems\.json|etc/hosts|etc/resolv\.conf")

STRONG = 8  # so many signs are no accident, even in the midst of other text
WEAK = 5


class Scrubber:
    """Replaces identifiers in text. `known` holds those that were found, with their kind."""

    def __init__(self, known: Mapping[str, str], salt: str, names: frozenset[str] = frozenset()) -> None:
        """`names` are those of the machine's own files: a host that is called like one, "node0", is left alone."""
        self._salt = salt
        forms = {form.text: form for form in _forms(known, salt) if form.kind != "hostname" or form.text not in names}
        self._known = {text: form.instead for text, form in forms.items()}
        longest_first = [forms[text] for text in sorted(forms, key=len, reverse=True)]
        hosts = [form.pattern() for form in longest_first if form.kind == "hostname"]
        words = [form.pattern() for form in longest_first if form.kind != "hostname"]
        patterns = [f"(?P<p{at}_{kind}>{pattern})" for at, (kind, pattern) in enumerate((*PATTERNS, *ADDRESSES))]
        found = [rf"(?P<p_hostname>(?:{'|'.join(hosts)})(?:\.[a-zA-Z][\w-]*)*)"] if hosts else []
        found += [f"(?P<known>{'|'.join(words)})"] if words else []
        self._everywhere = re.compile("|".join((*found, *patterns[: len(PATTERNS)])))
        self._with_addresses = re.compile("|".join((*found, *patterns)))

    def text(self, text: str, *, addresses: bool = False) -> str:
        """`addresses`: IP addresses and the names of other hosts may stand here."""
        return (self._with_addresses if addresses else self._everywhere).sub(self._instead, text)

    def whole(self, kind: str, value: str) -> str:
        """What is an identifier from end to end; the white space around it stays."""
        core = value.strip()
        if not core:
            return value
        if kind == "wwn":  # it may be text around a serial that is known
            found = self.text(core)
            return value.replace(core, found if found != core else stand_in(kind, core, self._salt))
        return value.replace(core, stand_in(kind, core, self._salt))

    def _instead(self, found: re.Match[str]) -> str:
        group = found.lastgroup or ""
        if group == "known":
            return self._known[found[0]]
        return stand_in(group.partition("_")[2], found[0], self._salt)


@dataclass(frozen=True, slots=True)
class _Form:
    """One way to write an identifier, and what stands there instead."""

    kind: str
    text: str
    instead: str

    def is_plain(self) -> bool:
        short = len(self.text) < STRONG and (self.text.isalpha() or self.text.isdecimal())
        return short or len(self.text) < WEAK

    def pattern(self) -> str:
        """Long ones are found in the midst of other text, too; a host's name has its domain behind it."""
        text = re.escape(self.text)
        inside = len(self.text) >= STRONG and self.kind not in {"ip", "hostname"}
        return text if inside else f"(?<![0-9A-Za-z]){text}(?![0-9A-Za-z])"


def _forms(known: Mapping[str, str], salt: str) -> Iterator[_Form]:
    """Every value that is fit to be looked for, in all the forms in which it is written."""
    serials = {text for value, kind in known.items() if kind == "serial" for text, _ in _forms_of(value, kind, "")}
    for value, kind in sorted(known.items()):
        built_of_one = kind == "wwn" and any(len(serial) >= STRONG and serial in value for serial in serials)
        if not built_of_one and not PLACEHOLDER.fullmatch(value.strip()):
            for text, instead in _forms_of(value, kind, stand_in(kind, value, salt)):
                form = _Form(kind, text, instead)
                if text != instead and not form.is_plain():
                    yield form


def _forms_of(value: str, kind: str, instead: str) -> Iterator[tuple[str, str]]:
    yield value, instead
    match kind:
        case "mac" | "guid" | "uuid":
            bare, other = (re.sub("^(?:GPU|MIG)-", "", text) for text in (value, instead))
            for change in (str.lower, str.upper):
                yield change(bare), change(other)
                yield change(re.sub("[:-]", "", bare)), change(re.sub("[:-]", "", other))
        case "serial":  # NVMe's world-wide names have it in hexadecimal
            yield value.encode().hex(), instead.encode().hex()
        case "hostname":
            yield value.partition(".")[0], instead.partition(".")[0]
        case "ip":
            yield value.partition("/")[0], instead.partition("/")[0]
        case _:
            return


def known_in_snapshot(snapshot: Snapshot) -> dict[str, str]:
    """All identifiers of a snapshot, with their kinds."""
    found: dict[str, str] = {}

    def take(kind: str, value: str) -> str:
        found.setdefault(value, kind)
        return value

    _each_identifier(snapshot.inventory, take, change=False)
    _each_identifier(snapshot.vitals, take, change=False)
    found.update(dict.fromkeys(snapshot.vitals.gpus, "uuid"))
    return {value: kind for value, kind in found.items() if value}


def known_in_files(files: Mapping[str, bytes]) -> dict[str, str]:
    """What files say whose whole content is an identifier."""
    told = ((file_kind(path), data) for path, data in files.items())
    known = {data.decode("utf-8", "replace").strip(): kind for kind, data in told if kind}
    return {value: kind for value, kind in known.items() if value}


def known_in_answer(answer: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """What an answer has under keys that say so."""
    match answer:
        case dict():
            for name, value in answer.items():
                yield from known_in_answer(value, name)
        case list():
            for value in answer:
                yield from known_in_answer(value, key)
        case str() if answer and (kind := key_kind(key)):
            yield answer, kind
        case _:
            return


def file_kind(path: str) -> str | None:
    name = path.rpartition("/")[2]
    return None if name == "address" and "/net/" not in path else FILES.get(name)


def at_home(path: str) -> bool:
    """Whether IP addresses and names of other hosts may stand in this file."""
    return _AT_HOME.fullmatch(path) is not None


def key_kind(key: str) -> str | None:
    return next((kind for pattern, kind in KEYS if pattern.search(key)), None)


def scrubbed_answer(answer: Any, scrubber: Scrubber, *, addresses: bool, key: str = "") -> Any:
    match answer:
        case dict():
            return {
                scrubber.text(name): scrubbed_answer(value, scrubber, addresses=addresses, key=name)
                for name, value in answer.items()
            }
        case list():
            return [scrubbed_answer(value, scrubber, addresses=addresses, key=key) for value in answer]
        case str():
            kind = key_kind(key)
            return scrubber.whole(kind, answer) if kind else scrubber.text(answer, addresses=addresses)
        case _:
            return answer


def disguise(snapshot: Snapshot, salt: str) -> Snapshot:
    """Another individual of the same model: all that is built in stays, all that tells who it is does not."""
    scrubber = Scrubber(known_in_snapshot(snapshot), salt)
    other = Snapshot()
    other.CopyFrom(snapshot)
    _each_identifier(other.inventory, scrubber.whole, change=True)
    _each_identifier(other.vitals, scrubber.whole, change=True)
    other.vitals.ClearField("gpus")
    for uuid, gpu in snapshot.vitals.gpus.items():
        other.vitals.gpus[scrubber.whole("uuid", uuid)].CopyFrom(gpu)
    if other.inventory.os.HasField("command_line"):
        other.inventory.os.command_line = scrubber.text(other.inventory.os.command_line, addresses=True)
    for problem in other.problems:
        problem.part = scrubber.text(problem.part)
        problem.detail = scrubber.text(problem.detail)
    return other


def _each_identifier(message: Message, take: Callable[[str, str], str], *, change: bool) -> None:
    """Every identifier of a message and the messages in it; what `take` gives for it is put in its place."""
    for field, value in message.ListFields():
        kind = FIELDS.get((message.DESCRIPTOR.name, field.name))
        if kind and isinstance(value, str):
            other = take(kind, value)
            if change:
                setattr(message, field.name, other)
        elif kind:
            others = [take(kind, one) for one in value]
            if change:
                value[:] = others
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for part in _messages(value):
                _each_identifier(part, take, change=change)


def _messages(value: Any) -> Iterable[Message]:
    return (value,) if isinstance(value, Message) else value
