"""Who would be lost by the next step of a change of the root, and that the steps lead where they are to lead."""

from dataclasses import replace

from provisioner.decision import Todo, Wait
from provisioner.rotation import Have, Person, Root, Step, behind, listed, lost, plan
from provisioner.world import Facts, TokenFacts, World

NOW = 1_800_000_000.0
DAY = 86400.0
OLD = Root(b"old", "0a", NOW - 900 * DAY, NOW + 2750 * DAY)
NEW = Root(b"new", "0b", NOW - DAY, NOW + 3649 * DAY)
ENROLLED = Facts("m-1", 1, b"k1", NOW - 90 * DAY, accepted_at=NOW - 90 * DAY, hostname="gpu-01", issuer=b"new")


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


def test_nobody_waits_for_what_is_lost_anyway_or_holds_nothing() -> None:
    away = replace(ENROLLED, issuer=b"old")
    machines = (
        replace(away, id="m-2", forgotten_at=NOW),
        replace(away, id="m-3", key_sha256=b"revoked:k"),
        replace(away, id="m-4", accepted_at=None),
    )
    tokens = (
        token(NOW - 2 * DAY, revoked_at=NOW),
        token(NOW - 2 * DAY, id="t-2", expires_at=NOW - 1),
        token(NOW - 2 * DAY, id="t-3", used_by=frozenset({b"1", b"2"})),
        token(NOW, id="t-4"),
    )
    told = have(world(*machines, tokens=tokens), Person("ada", "admin", NOW))
    assert waits_for(told) == []
    over = replace(told, world=world(away), until={"m-1": NOW - 1})
    assert waits_for(over) == []


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


def test_a_long_list_is_counted_and_not_printed() -> None:
    assert listed(f"m-{number}" for number in range(12)) == "m-0, m-1, m-2, m-3, m-4, m-5, m-6, m-7 and 4 more"
