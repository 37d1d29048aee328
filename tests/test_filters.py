"""The filter language, the order and the pages: what is let through, and what is said instead."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner import paging
from provisioner.filters import (
    FIELDS,
    NUMBERS,
    OPERATORS,
    PHASES,
    Filter,
    FilterError,
    Key,
    Order,
    Row,
    Term,
    parse,
    parse_order,
)
from provisioner.paging import PageError
from provisioner.phase import word_of
from provisioner.world import Facts, World

FACTS = Facts("m-1", 1, b"", 1.0, hostname="gpu-rack7-01", product="NVIDIA DGX-2H", gpu_count=16, os="Debian 12")
ROW = Row(FACTS, "silent")


@pytest.mark.parametrize(
    ("text", "lets"),
    [
        ("", True),
        ("phase=silent gpus>=8 hostname~rack7", True),
        ("phase=silent gpus>16", False),
        ('product="NVIDIA DGX-2H"', True),
        ('product="nvidia dgx-2h"', False),
        ("product~dgx", True),
        ('os ~ "debian 1"', True),
        ('serial="" gpus != 0', True),
        ("phase!=silent", False),
        ("gpus<=16 gpus>=16 gpus=16 gpus<17", True),
        ("  id=m-1  ", True),
    ],
)
def test_terms_all_hold_or_the_machine_is_not_let_through(text: str, lets: bool) -> None:  # noqa: FBT001
    assert parse(text).through([ROW]) == ([ROW] if lets else [])


FIELD_LIST = "id, hostname, phase, product, serial, gpus, gpu, rdma, os, kernel, agent, problems"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("colour=red", f"at position 1: there is no field 'colour'; the fields are {FIELD_LIST}"),
        ("gpus>=8 =red", f"at position 9: a field is expected, one of {FIELD_LIST}"),
        ("hostname", "at position 9: an operator is expected after hostname, one of = != ~"),
        ("hostname>a", "at position 9: hostname knows no >; its operators are = != ~"),
        ("gpus~8", "at position 5: gpus knows no ~; its operators are = != >= <= > <"),
        ("gpus=many", "at position 6: gpus is a number, and 'many' is none"),
        ("gpus=-1", "at position 6: gpus is a number, and '-1' is none"),
        (
            "phase=broken",
            "at position 7: there is no phase 'broken'; the phases are pending, accepted, present, silent",
        ),
        ("hostname= ", "at position 11: a value is expected"),
        ('hostname="a', "at position 10: the quoted value does not end well"),
        ('hostname="a"b', "at position 10: the quoted value does not end well"),
        ('hostname=a"b', "at position 10: a value is expected"),
        ("id=x " * 33, "more than 32 terms"),
        ("x" * 2001, "more than 2000 characters"),
    ],
)
def test_a_mistake_names_its_place_and_what_would_be_right(text: str, says: str) -> None:
    with pytest.raises(FilterError) as error:
        parse(text)
    assert str(error.value).startswith("cannot read filter: ")
    assert says in str(error.value)


def _terms() -> st.SearchStrategy[Term]:
    texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    names = st.sampled_from([name for name in FIELDS if name not in NUMBERS and name != "phase"])
    of_text = st.builds(Term, names, st.sampled_from(["=", "!=", "~"]), texts)
    signs = st.sampled_from([sign for sign in OPERATORS if sign != "~"])
    of_number = st.builds(Term, st.sampled_from(sorted(NUMBERS)), signs, st.integers(0, 10**17))
    of_phase = st.builds(Term, st.just("phase"), st.sampled_from(["=", "!="]), st.sampled_from(PHASES))
    return st.one_of(of_text, of_number, of_phase)


@given(st.lists(_terms(), max_size=6))
def test_a_filter_that_is_written_out_reads_as_itself(terms: list[Term]) -> None:
    chosen = Filter(tuple(terms))
    assert parse(str(chosen)) == chosen


@given(st.text(max_size=40))
def test_any_text_is_a_filter_or_a_line_that_says_why_not(text: str) -> None:
    try:
        parse(text).through([ROW])
    except FilterError as error:
        said = str(error)
    else:
        said = "cannot read filter: nothing"
    assert said.startswith("cannot read filter: ")


@given(st.lists(_terms(), max_size=3), st.lists(st.integers(0, 20), max_size=8))
def test_a_machine_is_let_through_exactly_where_each_term_lets_it(terms: list[Term], counts: list[int]) -> None:
    rows = [Row(replace(FACTS, id=f"m-{place}", gpu_count=count), "silent") for place, count in enumerate(counts)]
    each = [row for row in rows if all(Filter((term,)).through([row]) for term in terms)]
    assert Filter(tuple(terms)).through(rows) == each


@pytest.mark.parametrize(
    ("text", "order"), [("", Order()), ("gpus", Order("gpus")), (" gpus  desc ", Order("gpus", descending=True))]
)
def test_an_order_is_a_field_that_may_be_turned_round(text: str, order: Order) -> None:
    assert parse_order(text) == order
    assert parse_order(str(order)) == order


@pytest.mark.parametrize("text", ["colour", "gpus down", "gpus desc desc"])
def test_an_order_that_is_none_says_what_the_fields_are(text: str) -> None:
    with pytest.raises(FilterError, match="write a field, and desc behind it or not; the fields are id, hostname"):
        parse_order(text)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", ""])), max_size=20),
    st.sampled_from([Order(), Order("gpus"), Order("gpus", descending=True), Order("hostname", descending=True)]),
    st.integers(1, 6),
)
def test_pages_put_together_are_the_whole_list_in_order(
    machines: list[tuple[int, str]], order: Order, size: int
) -> None:
    rows = [
        Row(replace(FACTS, id=f"m-{place}", gpu_count=count, hostname=name), "silent")
        for place, (count, name) in enumerate(machines)
    ]
    listed, key = list[Row](), None
    while True:
        page, key = order.page(rows, key, size)
        listed += page
        if key is None:
            break
        key = paging.key_of(("x",), paging.token(("x",), key), Key)
    assert listed == sorted(rows, key=order.key, reverse=order.descending)


def test_what_comes_and_goes_between_pages_moves_no_page() -> None:
    rows = [Row(replace(FACTS, id=f"m-{number}"), "silent") for number in range(6)]
    first, key = Order("id").page(rows, None, 3)
    rest, _ = Order("id").page([*rows[1:2], *rows[4:], Row(replace(FACTS, id="m-0x"), "silent")], key, 3)
    assert [row.facts.id for row in (*first, *rest)] == ["m-0", "m-1", "m-2", "m-4", "m-5"]


@given(st.text(max_size=60))
def test_a_page_token_that_nobody_gave_is_garbled(text: str) -> None:
    if text:
        with pytest.raises(PageError, match="garbled"):
            paging.key_of(("machines",), text, Key)


def test_a_page_token_of_another_list_or_with_a_letter_changed_is_refused() -> None:
    token = paging.token(("machines", "gpus>8", "id"), ("m-1", "m-1"))
    with pytest.raises(PageError, match="another filter or order"):
        paging.key_of(("machines", "gpus>9", "id"), token, Key)
    for place in range(len(token)):
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        with pytest.raises(PageError, match="garbled"):
            paging.key_of(("machines", "gpus>8", "id"), changed, Key)


def test_a_page_size_has_a_default_and_an_upper_end() -> None:
    assert [paging.size(asked) for asked in (0, 5, 5000)] == [100, 5, 1000]
    with pytest.raises(PageError, match="page_size is -1"):
        paging.size(-1)


def test_of_ten_thousand_machines_each_is_looked_at_once_for_a_page() -> None:
    """How long that takes says the bench of lists."""
    machines = {
        f"m-{number:05}": Facts(
            f"m-{number:05}", 1, b"", 1.0, 1.0, hostname=f"gpu-{number * 7919 % 10007:05}", gpu_count=number % 9
        )
        for number in range(10_000)
    }
    world, looked_at = World(1, 0.0, machines=machines), Counter[str]()

    def rows() -> Iterator[Row]:
        for facts in world.known:
            looked_at[facts.id] += 1
            yield Row(facts, PHASES[word_of(facts, world, 100.0, 60.0) - 1])

    chosen, order = parse("gpus>=8 hostname~gpu phase=accepted"), parse_order("hostname desc")
    page, following = order.page(chosen.through(rows()), None, 1000)
    wanted = sorted((facts.hostname for facts in machines.values() if facts.gpu_count == 8), reverse=True)
    assert [row.facts.hostname for row in page] == wanted[:1000]
    assert following is not None
    assert looked_at == Counter(machines.keys())
