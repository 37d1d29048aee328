"""What docs/operations.md says of refused calls and of streams that are cut off: each reason that is counted."""

import ast
import re
from collections.abc import Iterator

from tests.vm import guide

PROVISIONER = guide.ROOT / "provisioner"
PAGE = guide.ROOT / "docs/operations.md"
REFUSED = {"RefusedError": 1, "Flaw": 0, "later": 0, "precondition": 0, "invalid": 2, "not_found": 0}
CUT_OFF = {"PeerError": 1}  # what says why -> which of its arguments is the word
WORD = re.compile(r"`([A-Z][A-Z_]+)`")


def _trees() -> Iterator[ast.AST]:
    """Of all files that refuse somebody. The terminal only tells what it was told."""
    for path in sorted(PROVISIONER.rglob("*.py")):
        if not path.is_relative_to(PROVISIONER / "cli"):
            yield from ast.walk(ast.parse(path.read_text()))


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _words(makers: dict[str, int]) -> set[str]:
    """The words that these are called with, and those that they have where they are called with none."""
    words = set()
    for node in _trees():
        match node:
            case ast.Call(func=func, args=args) if len(args) > makers.get(_name(func), len(args)):
                match args[makers[_name(func)]]:
                    case ast.Constant(str(word)):
                        words.add(f"{word.upper()}_NOT_FOUND" if _name(func) == "not_found" else word)
                    case other:  # handed on by one of those
                        assert isinstance(other, ast.Name) or "_NOT_FOUND" in ast.unparse(other), ast.unparse(other)
            case ast.FunctionDef(name=name) if name in makers:
                words |= _default(node)
            case ast.ClassDef(name=name, body=body) if name in makers:
                words |= {word for part in body if isinstance(part, ast.FunctionDef) for word in _default(part)}
    return words


def _default(function: ast.FunctionDef) -> set[str]:
    named = function.args.args[len(function.args.args) - len(function.args.defaults) :]
    pairs = zip(named, function.args.defaults, strict=True)
    return {ast.literal_eval(value) for argument, value in pairs if argument.arg == "reason"}


def test_each_reason_that_status_counts_has_its_row() -> None:
    table = re.findall(r"^\| (`[^|]*) \|", guide.part("Thousands come at once", PAGE), flags=re.MULTILINE)
    found = _words(REFUSED)
    assert {"TOKEN_UNKNOWN", "INVALID_FIELD", "MACHINE_NOT_FOUND", "PLACES"} < found
    assert {word for row in table for word in WORD.findall(row)} == found


def test_each_reason_for_which_a_stream_is_cut_off_is_explained() -> None:
    found = _words(CUT_OFF)
    assert {"ORDER", "NO_HELLO", "RULES"} < found
    assert set(WORD.findall(guide.part("A machine is cut off, or read more slowly", PAGE))) == found
