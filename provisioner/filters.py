r"""The filter language of lists: 'phase=silent gpus>=8 hostname~rack7 product="NVIDIA DGX-2H"', and their order.

Rule 1: terms that all hold. `=` and `!=` compare whole values, `~` looks for a part and ignores case, and numbers know
        `>=`, `<=`, `>`, `<` too. A value with blanks stands in double quotes, in which \" and \\ are a quote and a
        backslash.
Rule 2: a mistake names its position, counted from 1, and what would be right.
Rule 3: pure, and fast enough to ask every machine of a large fleet for each page.
"""

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from provisioner.errors import BedplateError
from provisioner.world import Facts

Value = str | int


class Key(NamedTuple):
    """What a list is sorted by. No two machines have the same."""

    value: Value
    id: str


class Row(NamedTuple):
    """One line of a list: a tuple, for ten thousand are made for one page."""

    facts: Facts
    phase: str  # "silent"


FIELDS: Final[dict[str, Callable[[Row], Any]]] = {
    "id": operator.attrgetter("facts.id"),
    "hostname": operator.attrgetter("facts.hostname"),
    "phase": operator.attrgetter("phase"),
    "product": operator.attrgetter("facts.product"),
    "serial": operator.attrgetter("facts.serial"),
    "gpus": operator.attrgetter("facts.gpu_count"),
    "gpu": operator.attrgetter("facts.gpu_model"),
    "rdma": operator.attrgetter("facts.rdma_count"),
    "os": operator.attrgetter("facts.os"),
    "kernel": operator.attrgetter("facts.kernel"),
    "agent": operator.attrgetter("facts.agent_version"),
    "problems": operator.attrgetter("facts.problem_count"),
}
NUMBERS: Final = frozenset({"gpus", "rdma", "problems"})
PHASES: Final = ("pending", "accepted", "present", "silent")
OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
    "~": lambda have, part: part in have.lower(),
}
MOST_CHARACTERS, MOST_TERMS, MOST_DIGITS = 2000, 32, 18

BLANKS = re.compile(r"\s*")
NAME = re.compile(r"\w+")
SIGN = re.compile(r"\s*(>=|<=|!=|=|>|<|~)\s*")
QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"(?=\s|$)')
BARE = re.compile(r'[^\s"]+(?=\s|$)')


class FilterError(BedplateError):
    """The filter or the order says nothing that we understand; `field` is the request's field."""

    def __init__(self, field: str, line: str) -> None:
        super().__init__(line)
        self.field = field


@dataclass(frozen=True, slots=True)
class Term:
    field: str
    sign: str
    value: Value

    def __str__(self) -> str:
        escaped = str(self.value).replace("\\", "\\\\").replace('"', '\\"')
        return f'{self.field}{self.sign}"{escaped}"'


@dataclass(frozen=True, slots=True)
class Filter:
    """What a machine must be; no terms: anything."""

    terms: tuple[Term, ...] = ()

    def through(self, rows: Iterable[Row]) -> list[Row]:
        """Those that it lets through."""
        passed = rows
        for term in self.terms:
            passed = _kept(passed, term)
        return list(passed)

    def __str__(self) -> str:
        return " ".join(map(str, self.terms))


def _kept(rows: Iterable[Row], term: Term) -> Iterable[Row]:
    get, holds = FIELDS[term.field], OPERATORS[term.sign]
    value = str(term.value).lower() if term.sign == "~" else term.value
    return (row for row in rows if holds(get(row), value))


def parse(text: str) -> Filter:
    """FilterError where it cannot be read."""
    if len(text) > MOST_CHARACTERS:
        raise FilterError("filter", f"cannot read filter: it has more than {MOST_CHARACTERS} characters")
    terms: list[Term] = []
    place = _after(BLANKS, text, 0)
    while place < len(text):
        term, place = _term(text, place)
        terms.append(term)
        place = _after(BLANKS, text, place)
    if len(terms) > MOST_TERMS:
        raise FilterError("filter", f"cannot read filter: it has more than {MOST_TERMS} terms")
    return Filter(tuple(terms))


def _term(text: str, place: int) -> tuple[Term, int]:
    name = NAME.match(text, place)
    if not name:
        raise _wrong(place, f"a field is expected, one of {', '.join(FIELDS)}")
    field = name[0]
    if field not in FIELDS:
        raise _wrong(place, f"there is no field {field!r}; the fields are {', '.join(FIELDS)}")
    sign = SIGN.match(text, name.end())
    if not sign:
        raise _wrong(name.end(), f"an operator is expected after {field}, one of {_signs(field)}")
    if sign[1] not in _signs(field).split():
        raise _wrong(sign.start(1), f"{field} knows no {sign[1]}; its operators are {_signs(field)}")
    at = sign.end()
    if quoted := QUOTED.match(text, at):
        return Term(field, sign[1], _value(field, re.sub(r"\\(.)", r"\1", quoted[1]), at)), quoted.end()
    if bare := BARE.match(text, at):
        return Term(field, sign[1], _value(field, bare[0], at)), bare.end()
    if text[at : at + 1] == '"':
        raise _wrong(at, "the quoted value does not end well: close it with a double quote, and a blank behind it")
    raise _wrong(at, 'a value is expected; one with blanks or quotes stands in double quotes, and "" is the empty one')


def _value(field: str, text: str, place: int) -> Value:
    if field in NUMBERS:
        if not re.fullmatch(rf"[0-9]{{1,{MOST_DIGITS}}}", text):
            raise _wrong(place, f"{field} is a number, and {text!r} is none")
        return int(text)
    if field == "phase" and text not in PHASES:
        raise _wrong(place, f"there is no phase {text!r}; the phases are {', '.join(PHASES)}")
    return text


def _signs(field: str) -> str:
    if field == "phase":
        return "= !="
    return "= != >= <= > <" if field in NUMBERS else "= != ~"


def _after(pattern: re.Pattern[str], text: str, place: int) -> int:
    found = pattern.match(text, place)
    return found.end() if found else place


def _wrong(place: int, line: str) -> FilterError:
    return FilterError("filter", f"cannot read filter: at position {place + 1}: {line}")


@dataclass(frozen=True, slots=True)
class Order:
    """By a field, and by id where that is the same."""

    field: str = "hostname"
    descending: bool = False

    def key(self, row: Row) -> Key:
        return Key(FIELDS[self.field](row), row.facts.id)

    def page(self, rows: Sequence[Row], after: Key | None, size: int) -> tuple[list[Row], Key | None]:
        """At most that many rows behind that key, in order; and the key to go on from, None where nothing follows."""
        get = FIELDS[self.field]
        keyed = [(Key(get(row), row.facts.id), row) for row in rows]
        if after is not None:
            keyed = [pair for pair in keyed if (pair[0] < after if self.descending else pair[0] > after)]
        keyed.sort(key=operator.itemgetter(0), reverse=self.descending)
        page = keyed[:size]
        return [row for _, row in page], page[-1][0] if len(keyed) > size else None

    def __str__(self) -> str:
        return f"{self.field} desc" if self.descending else self.field


def parse_order(text: str) -> Order:
    """'gpus desc'; empty: by host name. FilterError where it cannot be read."""
    match text.split():
        case []:
            return Order()
        case [field, *rest] if field in FIELDS and rest in ([], ["asc"], ["desc"]):
            return Order(field, descending=rest == ["desc"])
    known = ", ".join(FIELDS)
    raise FilterError(
        "order_by",
        f"cannot read order_by {text[:80]!r}: write a field, and desc behind it or not; the fields are {known}",
    )
