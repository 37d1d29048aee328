"""Who would be lost by the next step of a change of the root, and that the steps lead where they are to lead."""

from dataclasses import replace

from provisioner.decision import Todo, Wait
from provisioner.rotation import Have, Person, Root, Step, behind, listed, lost, plan
from provisioner.world import Facts, TokenFacts, World

NOW = 1_800_000_000.0
DAY = 86400.0
OLD = Root(b"old", "0a", NOW - 900 * DAY, NOW + 2750 * DAY)
NEW = Root(b"new", "0b", NOW - DAY, NOW + 3649 * DAY)
ASKED = Facts("m-1", 1, b"k1", NOW - 90 * DAY, hostname="gpu-01")
ACCEPTED = replace(ASKED, accepted_at=NOW - 90 * DAY)
ENROLLED = replace(ACCEPTED, certified_at=NOW - 6 * DAY, issuer=b"new")


def world(*machines: Facts, tokens: tuple[TokenFacts, ...] = ()) -> World:
    return World(1, NOW, machines={one.id: one for one in machines}, tokens={one.id: one for one in tokens})


def have(known: World, *people: Person, roots: tuple[Root, ...] = (NEW, OLD), server: bytes = b"old") -> Have:
    signer = roots[0].key
    until = dict.fromkeys(known.machines, NOW + DAY)
    return Have(roots, signer, server, known, until, people, NOW)


def token(created_at: float, **others: object) -> TokenFacts:
    made = TokenFacts("t-1", b"s", created_at, NOW + DAY, 2, review=False, created_by="ada")
    return replace(made, **others)  # type: ignore[arg-type]


def waits_for(told: Have) -> list[str]:
    return [one.shown for one in behind(told)]


def test_from_one_root_all_steps_are_ahead_and_the_first_loses_nobody() -> None:
    told = have(world(replace(ENROLLED, issuer=b"old")), Person("ada", "admin", NOW), roots=(OLD,))
    decision = plan(told)
    assert decision == Todo(tuple(Step), "one root is trusted, and 1 of 1 machines hold a certificate of it")


def test_a_step_waits_for_each_machine_person_and_token_that_knows_the_old_root_alone() -> None:
    late = replace(ENROLLED, id="m-2", hostname="gpu-02", issuer=b"old")
    told = have(world(ENROLLED, late, tokens=(token(NOW - 2 * DAY),)), Person("ada", "admin", NOW - 30 * DAY))
    assert waits_for(told) == ["gpu-02 (m-2)", "ada (admin)", "join token t-1"]
    assert plan(told) == Wait(
        "1 of 2 machines came with a certificate of the new root; not yet: gpu-02 (m-2), ada (admin), join token t-1"
    )
    assert plan(told, frozenset({"gpu-02", "ada", "t-1"})) == Todo(
        (Step.SERVE, Step.DROP), "1 of 2 machines came with a certificate of the new root"
    )
    assert lost(told, frozenset({"m-2"}), stolen=False) == ["gpu-02 (m-2)"]


def test_nobody_waits_for_what_is_lost_anyway() -> None:
    away = replace(ENROLLED, issuer=b"old")
    machines = (
        replace(away, id="m-2", forgotten_at=NOW),
        replace(away, id="m-3", key_sha256=b"revoked:k", certified_at=None),
        replace(ASKED, id="m-4", forgotten_at=NOW),
    )
    tokens = (
        token(NOW - 2 * DAY, revoked_at=NOW),
        token(NOW - 2 * DAY, id="t-2", expires_at=NOW - 1),
        token(NOW - 2 * DAY, id="t-3", used_by=frozenset({b"1", b"2"})),
        token(NOW, id="t-4"),
    )
    told = have(world(*machines, tokens=tokens), Person("ada", "admin", NOW))
    assert waits_for(told) == []


PENDING = replace(ASKED, id="m-2", key_sha256=b"k2", hostname="gpu-02")
LET_IN = replace(ACCEPTED, id="m-3", key_sha256=b"k3", hostname="")
OFF = replace(ENROLLED, id="m-4", key_sha256=b"k4", hostname="gpu-04", issuer=b"old")


def bare(*tokens: TokenFacts, server: bytes = b"old", roots: tuple[Root, ...] = (NEW, OLD)) -> Have:
    """One that came by the new root, and three that hold no certificate."""
    told = have(world(ENROLLED, PENDING, LET_IN, OFF, tokens=tokens), server=server, roots=roots)
    return replace(told, until={"m-1": NOW + DAY, "m-4": NOW - 1})


def test_it_waits_for_machines_without_a_certificate_which_know_us_by_the_old_root_alone() -> None:
    told = bare()
    gone = "and it comes by itself; if it is gone for good: bedplate machine forget"
    assert {one.shown: one.cure for one in behind(told)} == {
        "gpu-02 (m-2, pending)": "bedplate machine accept m-2 while it is on, or bedplate machine forget m-2",
        "machine (m-3, no certificate yet)": f"turn it on, {gone} m-3",
        "gpu-04 (m-4, its certificate is over)": f"turn it on with its join token or any other, {gone} m-4",
    }
    assert plan(told, frozenset({"gpu-02", "m-3"})) == Wait(
        "1 of 1 machines came with a certificate of the new root; not yet: gpu-04 (m-4, its certificate is over)"
    )
    named = frozenset({"gpu-02", "m-3", "m-4"})
    assert isinstance(plan(told, named), Todo)
    assert lost(told, named, stolen=False) == waits_for(told)


def test_one_that_came_by_the_new_root_and_was_off_for_too_long_since_is_waited_for() -> None:
    told = replace(have(world(ENROLLED)), until={"m-1": NOW - 1})
    assert waits_for(told) == ["gpu-01 (m-1, its certificate is over)"]


def test_a_certificate_of_an_earlier_incarnation_that_lasts_still_is_none() -> None:
    again = replace(ASKED, incarnation=2)
    assert waits_for(have(world(again))) == ["gpu-01 (m-1, pending)"]
    assert waits_for(have(world(replace(again, accepted_at=NOW)))) == ["gpu-01 (m-1, no certificate yet)"]


def test_nobody_waits_for_a_machine_whose_token_names_both_roots() -> None:
    keys = frozenset({b"k2", b"k3", b"k4"})
    assert waits_for(bare(token(NOW, uses_allowed=3, used_by=keys))) == []
    elder = token(NOW - 2 * DAY, uses_allowed=1, used_by=frozenset({b"k4"}))
    both = token(NOW, id="t-2", uses_allowed=3, used_by=keys)
    assert waits_for(bare(elder, both)) == ["gpu-04 (m-4, its certificate is over)"], "it may have either"


def test_who_found_us_by_the_old_root_alone_is_lost_once_it_is_shown_no_more_and_not_again_later() -> None:
    assert waits_for(bare(server=b"new")) == []
    assert lost(bare(server=b"new"), frozenset(), stolen=True) == []


def test_the_last_step_is_held_against_the_facts_again_but_for_tokens_which_name_what_is_shown() -> None:
    late = replace(ENROLLED, issuer=b"old")
    told = have(world(late, tokens=(token(NOW - 2 * DAY),)), server=b"new")
    assert waits_for(told) == ["gpu-01 (m-1)"]
    assert isinstance(plan(have(world(ENROLLED), server=b"new")), Todo)


def test_where_the_key_is_stolen_everybody_who_is_lost_is_named() -> None:
    late = replace(ENROLLED, id="m-2", hostname="", issuer=b"old")
    told = have(world(ENROLLED, late), Person("ada", "admin", NOW))
    assert lost(told, frozenset(), stolen=True) == ["machine (m-2)"]
    at_once = have(world(ENROLLED, late), Person("ada", "admin", NOW), roots=(OLD,))
    assert lost(at_once, frozenset(), stolen=True) == ["gpu-01 (m-1)", "machine (m-2)", "ada (admin)"]


def test_where_the_key_is_stolen_machines_without_a_certificate_and_tokens_are_named_too() -> None:
    without = ["gpu-02 (m-2, pending)", "machine (m-3, no certificate yet)", "gpu-04 (m-4, its certificate is over)"]
    assert lost(bare(), frozenset(), stolen=True) == without
    used, open_ = token(NOW, uses_allowed=1, used_by=frozenset({b"k2"})), token(NOW, id="t-2")
    at_once = bare(used, open_, roots=(OLD,))
    assert lost(at_once, frozenset(), stolen=True) == ["gpu-01 (m-1)", *without, "join token t-2"], "all name the old"


def test_a_long_list_is_counted_and_not_printed() -> None:
    assert listed(f"m-{number}" for number in range(12)) == "m-0, m-1, m-2, m-3, m-4, m-5, m-6, m-7 and 4 more"
