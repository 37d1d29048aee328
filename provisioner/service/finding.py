"""Which machine a person means: an id, a host name that only one machine has, or the beginning of an id.

Rule 1: an id wins over a host name: a machine that calls itself like another one's id takes no place.
Rule 2: where several could be meant, nothing is guessed: they are listed.
Rule 3: what is written of a machine outlives it: there it is found after it was forgotten too, behind those that are
        known.
"""

from collections.abc import Sequence

from provisioner.access import RefusedError
from provisioner.service.refusals import invalid, not_found
from provisioner.world import Facts, World

LISTED, LONGEST = 5, 255


def find(world: World, name: str) -> Facts:
    """RefusedError where it is none, or not one."""
    if not name or len(name) > LONGEST:
        raise invalid("machine", f"cannot find a machine: name one, in at most {LONGEST} characters", "MACHINE_UNNAMED")
    exact = world.machines.get(name)
    if exact is not None and exact.forgotten_at is None:
        return exact
    known = world.known
    named = [facts for facts in known if facts.hostname == name]
    found = named or [facts for facts in known if facts.id.startswith(name)]
    if not found:
        raise not_found("machine", name)
    if len(found) > 1:
        raise _ambiguous(name, found, "have that host name" if named else "have an id that begins so")
    return found[0]


def find_ever(world: World, name: str) -> Facts:
    """Also one that was forgotten, by its whole id, or by a host name that only it had."""
    if name in world.machines:
        return world.machines[name]
    named = [facts for facts in world.machines.values() if facts.hostname == name]
    if not named or any(facts.forgotten_at is None for facts in named):
        return find(world, name)
    if len(named) > 1:
        raise _ambiguous(name, named, "had that host name, and were forgotten")
    return named[0]


def _ambiguous(name: str, found: Sequence[Facts], what: str) -> RefusedError:
    shown = sorted(found, key=lambda facts: facts.id)[:LISTED]
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    listed = ", ".join(f"{facts.id} ({facts.hostname or 'no host name'})" for facts in shown)
    line = f"cannot tell which machine {name!r} is: {len(found)} {what}: {listed}{more}; name one by its id"
    return invalid("machine", line, "MACHINE_AMBIGUOUS")
