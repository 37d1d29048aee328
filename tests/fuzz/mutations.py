"""Inputs that are nearly right: valid ones with some bytes changed, and messages filled with anything.

More is found so than by noise: most of a mutated input is still read.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

NASTY = (
    b"",
    b"\0",
    b"\n",
    b"\r\n\t ",
    b"\xff" * 9,
    b"\xff\xff\xff\xff\x0f",
    b"\x80" * 10 + b"\x01",
    b"-1",
    b"1e999",
    b"nan",
    b"99999999999999999999",
    b"\xed\xa0\x80",
    "ü\u2028\u202e\0".encode(),
    b"%s%n{}",
    b"../../../etc/shadow",
    b'"',
    b"'",
    b"\\",
    b"[" * 5000,
    b'{"a":' * 3000,
    b"(" * 300,
    b"A" * 70_000,
)
INTEGERS = (0, 1, 2, 127, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
NUMBERS = (0.0, -0.0, 1.5, -1.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "a", "\0", "m-aaaaaaaa", "gpu-01", "ü\u2028\u202e", "/", "=", "%", "x" * 5000, "\U0010ffff", "links/eth0")
DEPTH = 5


def mutated(random: Random, corpus: Sequence[bytes]) -> bytes:
    """One of these, changed in one to eight places."""
    body = bytearray(random.choice(corpus))
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        random.choice(CHANGES)(random, body, corpus)
    return bytes(body)


def _flip(random: Random, body: bytearray, _: Sequence[bytes]) -> None:
    if body:
        body[random.randrange(len(body))] ^= 1 << random.randrange(8)


def _put(random: Random, body: bytearray, _: Sequence[bytes]) -> None:
    at = random.randint(0, len(body))
    body[at : at + random.choice((0, 1, 4, 30))] = random.choice(NASTY)


def _noise(random: Random, body: bytearray, _: Sequence[bytes]) -> None:
    at = random.randint(0, len(body))
    body[at : at + random.randrange(9)] = random.randbytes(random.randrange(9))


def _cut(random: Random, body: bytearray, _: Sequence[bytes]) -> None:
    at = random.randint(0, len(body))
    del body[at : random.choice((at + 1, at + 8, len(body)))]


def _again(random: Random, body: bytearray, _: Sequence[bytes]) -> None:
    start, end = sorted((random.randint(0, len(body)), random.randint(0, len(body))))
    body[start:start] = body[start:end] * random.choice((1, 2, 50))
    del body[1 << 20 :]


def _mix(random: Random, body: bytearray, corpus: Sequence[bytes]) -> None:
    other = random.choice(corpus)
    body[random.randint(0, len(body)) :] = other[random.randint(0, len(other)) :]


CHANGES: tuple[Callable[[Random, bytearray, Sequence[bytes]], None], ...] = (_flip, _put, _noise, _cut, _again, _mix)


def filled(random: Random, kind: type[Message], depth: int = 0) -> Any:
    """A message with anything in some of its fields: absurd times, negative sizes, texts that are none."""
    message = kind()
    for field in message.DESCRIPTOR.fields:
        if random.random() < 0.5 and depth < DEPTH:
            _fill(random, message, field, depth)
    return message


def _fill(random: Random, message: Message, field: FieldDescriptor, depth: int) -> None:
    value = getattr(message, field.name)
    if field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry:
        _fill_map(random, value, field, depth)
    elif field.is_repeated:
        for _ in range(random.choice((0, 1, 3))):
            made = _any(random, field, depth, value.add if field.message_type else None)
            if made is not None:
                value.append(made)
    elif field.message_type is not None:
        value.CopyFrom(filled(random, type(value), depth + 1))
        value.SetInParent()
    elif (made := _any(random, field, depth, None)) is not None:
        setattr(message, field.name, made)


def _fill_map(random: Random, value: Any, field: FieldDescriptor, depth: int) -> None:
    kind = field.message_type.fields_by_name["value"]
    for _ in range(random.choice((0, 1, 3))):
        key = _any(random, field.message_type.fields_by_name["key"], depth, None)
        if kind.message_type is not None:
            value[key].CopyFrom(filled(random, type(value[key]), depth + 1))
        else:
            value[key] = _any(random, kind, depth, None)


def _any(  # noqa: PLR0911 - one for each type
    random: Random, field: FieldDescriptor, depth: int, add: Callable[[], Message] | None
) -> Any:
    if add is not None:
        made = add()
        made.CopyFrom(filled(random, type(made), depth + 1))
        return None
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return random.choice((b"", b"\xff" * 32, random.randbytes(16), random.randbytes(32), bytes(70_000)))
        case FieldDescriptor.CPPTYPE_STRING:
            return random.choice(TEXTS)
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return random.choice(NUMBERS)
        case FieldDescriptor.CPPTYPE_BOOL:
            return random.random() < 0.5
        case FieldDescriptor.CPPTYPE_ENUM:
            return random.choice((0, 1, 2, 99, -1, 2**31 - 1))
    return _integer(random, field)


def _integer(random: Random, field: FieldDescriptor) -> int:
    bits = 32 if field.cpp_type in {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32} else 64
    number = random.choice(INTEGERS) & (2**bits - 1)
    signed = field.cpp_type in {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64}
    return number - 2**bits if signed and number >= 2 ** (bits - 1) else number
