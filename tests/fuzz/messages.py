"""Well-formed messages of any kind with hostile values, drawn from the descriptors of the protos.

Absurd times, negative sizes, texts that are none, enums of another version. A new field is met without a line here.
"""

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from tests.fuzz.inputs import spoilt

Draw = Callable[..., Any]
DEPTH = 5
FIELDS = 4  # of a message, at most: all of them would be too large to shrink
TEXTS = ("", "a", "\0", "m-aaaaaaaa", "gpu-01", "ü\u2028\u202e", "/", "=", "%", "x" * 5000, "\U0010ffff", "links/eth0")
_EDGES = (0, 1, 2, 127, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_NUMBERS = st.sampled_from((0.0, -0.0, -1.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"))) | st.floats()
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_STRING: st.sampled_from(TEXTS) | st.text(max_size=12),
    FieldDescriptor.CPPTYPE_DOUBLE: _NUMBERS,
    FieldDescriptor.CPPTYPE_FLOAT: _NUMBERS,
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_ENUM: st.sampled_from((0, 1, 2, 99, -1, 2**31 - 1)),
}
_BYTES = st.sampled_from((b"", b"\xff" * 32, bytes(70_000))) | st.binary(min_size=32, max_size=32) | st.binary()


@st.composite
def filled(draw: Draw, kind: type[Message], depth: int = 0) -> Any:
    """A message with anything in some of its fields."""
    message = kind()
    fields: Sequence[FieldDescriptor] = tuple(kind.DESCRIPTOR.fields)
    if fields and depth < DEPTH:
        for field in draw(st.lists(st.sampled_from(fields), max_size=FIELDS, unique_by=lambda one: one.number)):
            _fill(draw, message, field, depth)
    return message


def serialized(kind: type[Message], *examples: Message) -> st.SearchStrategy[bytes]:
    """Of filled messages; of these, and of filled ones, some with bytes changed."""
    whole = filled(kind).map(lambda message: bytes(message.SerializeToString()))
    corpus = [message.SerializeToString() for message in examples]
    broken = whole.flatmap(lambda body: spoilt([body, *corpus]))
    return whole | broken


def _fill(draw: Draw, message: Message, field: FieldDescriptor, depth: int) -> None:
    value = getattr(message, field.name)
    if not field.is_repeated:
        if field.message_type is None:
            setattr(message, field.name, draw(_scalar(field)))
        else:
            value.CopyFrom(draw(filled(type(value), depth + 1)))
            value.SetInParent()
        return
    for _ in range(draw(st.integers(0, 3))):
        if field.message_type is None:
            value.append(draw(_scalar(field)))
        elif field.message_type.GetOptions().map_entry:
            _fill_entry(draw, value, field.message_type, depth)
        else:
            value.add().CopyFrom(draw(filled(GetMessageClass(field.message_type), depth + 1)))


def _fill_entry(draw: Draw, value: Any, entry: Descriptor, depth: int) -> None:
    key, kind = draw(_scalar(entry.fields_by_name["key"])), entry.fields_by_name["value"]
    if kind.message_type is None:
        value[key] = draw(_scalar(kind))
    else:
        value[key].CopyFrom(draw(filled(GetMessageClass(kind.message_type), depth + 1)))


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _BYTES
    if field.cpp_type not in _RANGES:
        return _SCALARS[field.cpp_type]
    least, most = _RANGES[field.cpp_type]
    return st.sampled_from([one for one in _EDGES if one <= most]) | st.integers(least, most)
