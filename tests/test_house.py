"""The laws of the house, for all that a linter does not see."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("nodeagent", "provisioner")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MACHINES = ROOT / "tests/machines"  # recorded files, of any size and any bytes

FILE_LINES = 300
FUNCTION_LINES = 40
PAGE_LINES = {"README.md": 120, "ARCHITECTURE.md": 120}
VAGUE = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}
DECISION_PARTS = ("## What hurt", "## What we chose", "## What we gave up", "## When to look again")


def _written() -> Iterator[Path]:
    """Python that people wrote."""
    for folder in (*PROGRAMS, "tests", "protos", "docs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "_pb2" not in path.name and not path.is_relative_to(MACHINES):
                yield path


def _named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _lines_with(pattern: str) -> list[str]:
    """Where a line of Python has it; this file names what it forbids, and is left out."""
    return [
        f"{_named(path)}:{number}: {line.strip()}"
        for path in _written()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(pattern, line)
    ]


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_no_file_is_longer_than_a_reader_s_patience() -> None:
    assert not [_named(path) for path in _written() if len(path.read_text().splitlines()) > FILE_LINES]


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{_named(path)}: {function.name}"
        for path in _written()
        for function in _functions(path)
        if (function.end_lineno or 0) - function.lineno >= FUNCTION_LINES
    ]
    assert not long


def test_every_module_says_its_rules_first() -> None:
    silent = [
        path for path in _written() if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not [_named(path) for path in silent]


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert not [_named(path) for path in _written() if path.stem in VAGUE or path.parent.name in VAGUE]


def test_nothing_is_mocked_patched_or_skipped_and_nobody_sleeps() -> None:
    assert not _lines_with(r"unittest\.mock|from unittest import|monkeypatch\.(setattr|delattr)|mocker|\btime\.sleep\b")
    assert not _lines_with(r"pytest\.(skip|importorskip|xfail)|mark\.(skip|skipif|xfail)")


def test_no_import_is_for_the_type_checker_alone() -> None:
    assert not _lines_with(r"TYPE_CHECKING")


def test_the_name_of_a_test_is_a_sentence() -> None:
    short = [
        f"{_named(path)}: {function.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for function in _functions(path)
        if function.name.startswith("test_") and function.name.count("_") < 3
    ]
    assert not short


def test_every_probe_is_a_function_that_says_when_its_answer_is_stale() -> None:
    for path in sorted((ROOT / "nodeagent/probes").glob("[!_]*.py")):
        tree = ast.parse(path.read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert "probe" in functions, f"{path.name} has no probe"
        constants = set(re.findall(r"^(ON|EVERY_S)\b", path.read_text(), re.MULTILINE))
        assert constants, f"{path.name} says neither ON nor EVERY_S"
        handlers = [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.ClassDef)]
        assert not handlers, f"{path.name}: a probe is a function: no class, no async"


def test_the_contract_on_thinking_covers_the_whole_floor_of_thinking() -> None:
    contracts = {contract["id"]: contract for contract in PROJECT["tool"]["importlinter"]["contracts"]}
    floors = {
        f"{program}.session": layer
        for program in PROGRAMS
        for layer in contracts[program]["layers"]
        if "session" in layer
    }
    rooms = {f"{name.split('.')[0]}.{room}" for name, layer in floors.items() for room in re.findall(r"\w+", layer)}
    assert rooms == set(contracts["thinking"]["source_modules"])


def test_decisions_are_numbered_and_say_what_hurt_and_what_was_given_up() -> None:
    decisions = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        parts = [line for line in path.read_text().splitlines() if line.startswith("## ")]
        assert tuple(parts) == DECISION_PARTS, path.name


def test_pages_stay_pages() -> None:
    long = {name: len((ROOT / name).read_text().splitlines()) for name in PAGE_LINES}
    assert {name: lines for name, lines in long.items() if lines > PAGE_LINES[name]} == {}


def test_links_between_the_documents_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{_named(page)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert not broken


def test_no_file_names_a_place_on_somebody_s_machine_or_a_package_registry() -> None:
    place = re.compile(rb"(?<![\w.*])/(work|root|home/\w+|Users)/|\bpypi\.|pythonhosted|\bindex-url\b.*=")
    pages = [
        *(path for path in ROOT.glob("*.*") if path.name != ".git"),  # a file in a worktree
        ROOT / "Makefile",
        ROOT / ".ci/run",
        ROOT / ".ci/environment",
        *(ROOT / "systemd").glob("*"),
    ]
    pages += [path for folder in ("docs", *PROGRAMS, "protos", "tests") for path in (ROOT / folder).rglob("*.*")]
    found = [
        f"{_named(path)}: {match[0].decode()}"
        for path in pages
        if path.is_file() and path != Path(__file__) and "__pycache__" not in path.parts
        for match in place.finditer(path.read_bytes())
    ]
    assert not found
