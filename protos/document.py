"""Writes docs/api.md: the words of protos/api.md, then each service, message and enum as its comments describe it.

Rule 1: the reference says what the protos' comments say, and nothing else: whoever misses a word adds a comment there.
Rule 2: a line `<!-- include PATH -->` in protos/api.md stands for that file's text, for examples are files that run.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

Comments = dict[tuple[int, ...], str]

# Where a kind of thing stands in its parent's descriptor: field numbers of descriptor.proto.
FILE_MESSAGE, FILE_ENUM, FILE_SERVICE = 4, 5, 6
MESSAGE_FIELD, MESSAGE_NESTED, MESSAGE_ENUM = 2, 3, 4
ENUM_VALUE, SERVICE_METHOD = 2, 2
SYNTAX = 12
LABEL_REPEATED = FieldDescriptorProto.LABEL_REPEATED


def api(described: FileDescriptorSet, root: Path) -> str:
    words = re.sub(
        r"<!-- include (\S+) -->",
        lambda found: (root / found[1]).read_text().rstrip(),
        (root / "protos/api.md").read_text(),
    )
    files = sorted(described.file, key=lambda file: (not file.service, file.name))
    return "\n".join([words.rstrip(), "", *(line for file in files for line in _file(file))]).rstrip() + "\n"


def _file(file: FileDescriptorProto) -> Iterator[str]:
    comments: Comments = {
        tuple(place.path): " ".join(place.leading_comments.split()) for place in file.source_code_info.location
    }
    yield from (f"## {file.name}", "")
    yield from _paragraph(comments.get((SYNTAX,), ""))
    for position, service in enumerate(file.service):
        yield from _service(service, comments, (FILE_SERVICE, position))
    for position, enum in enumerate(file.enum_type):
        yield from _enum(enum, enum.name, comments, (FILE_ENUM, position))
    for position, message in enumerate(file.message_type):
        yield from _message(message, message.name, comments, (FILE_MESSAGE, position))


def _service(service: ServiceDescriptorProto, comments: Comments, path: tuple[int, ...]) -> Iterator[str]:
    yield from (f"### service {service.name}", "")
    yield from _paragraph(comments.get(path, ""))
    rows = []
    for position, method in enumerate(service.method):
        takes = ("stream " if method.client_streaming else "") + _named(method.input_type)
        gives = ("stream " if method.server_streaming else "") + _named(method.output_type)
        rows.append((f"`{method.name}`", takes, gives, comments.get((*path, SERVICE_METHOD, position), "")))
    yield from _table(("method", "takes", "gives", ""), rows)


def _message(message: DescriptorProto, name: str, comments: Comments, path: tuple[int, ...]) -> Iterator[str]:
    yield from (f"### {name}", "")
    yield from _paragraph(comments.get(path, ""))
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    rows = [
        (f"`{field.name}`", str(field.number), _type(field, maps), comments.get((*path, MESSAGE_FIELD, position), ""))
        for position, field in enumerate(message.field)
    ]
    yield from _table(("field", "", "type", ""), rows)
    for position, enum in enumerate(message.enum_type):
        yield from _enum(enum, f"{name}.{enum.name}", comments, (*path, MESSAGE_ENUM, position))
    for position, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from _message(nested, f"{name}.{nested.name}", comments, (*path, MESSAGE_NESTED, position))


def _enum(enum: EnumDescriptorProto, name: str, comments: Comments, path: tuple[int, ...]) -> Iterator[str]:
    yield from (f"### enum {name}", "")
    yield from _paragraph(comments.get(path, ""))
    rows = [
        (f"`{value.name}`", str(value.number), comments.get((*path, ENUM_VALUE, position), ""))
        for position, value in enumerate(enum.value)
    ]
    yield from _table(("value", "", ""), rows)


def _type(field: FieldDescriptorProto, maps: dict[str, DescriptorProto]) -> str:
    entry = maps.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        return f"map of {_scalar(entry.field[0])} to {_scalar(entry.field[1])}"
    prefix = "optional " if field.proto3_optional else "repeated " if field.label == LABEL_REPEATED else ""
    choice = ", one of several" if field.HasField("oneof_index") and not field.proto3_optional else ""
    return prefix + _scalar(field) + choice


def _scalar(field: FieldDescriptorProto) -> str:
    if field.type_name:
        return _named(field.type_name)
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _named(type_name: str) -> str:
    """'.bedplate.v1.Problem.Kind' -> '`Problem.Kind`'"""
    return f"`{type_name.removeprefix('.bedplate.v1.').removeprefix('.')}`"


def _paragraph(text: str) -> Iterator[str]:
    if text:
        yield from (text, "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if not rows:
        yield from ("No fields.", "")
        return
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield " | ".join(("", *(cell.replace("|", "\\|") for cell in row), "")).strip().replace("|  |", "| |")
    yield ""
