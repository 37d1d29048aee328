"""The audit of those who come in, judged as they are durable: what each entry says was there before and after.

Rule: lives, keys and uses are counted a second time here, from the changes alone.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from provisioner.world import Accepted, Asked, Audited, Certified, Change, Forgotten, Revoked, TokenUsed
from tests.simulation.broken import hold

Life = tuple[int, str]  # incarnation, the key's SHA-256


@dataclass(slots=True)
class Arrivals:
    lives: dict[str, Life | None] = field(default_factory=dict)  # None: it was forgotten
    uses: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))

    def committed(self, changes: Sequence[Change]) -> None:
        """One wish, in the order in which they come to be."""
        entries = [change for change in changes if isinstance(change, Audited) and change.method == "Enrol"]
        for change in changes:
            if isinstance(change, Asked) and entries:
                self._entry(entries.pop(0), change, changes)
            self._follow(change)
        hold(not entries, "the audit tells of somebody who did not come in:", *entries)

    def _entry(self, entry: Audited, asked: Asked, changes: Sequence[Change]) -> None:
        name, token = asked.machine_id, asked.token_id
        hold((entry.who, entry.machine_id) == (token, name), "the entry of", name, "by", token, "is", entry)
        hold(_life(entry.before, name) == self.lives.get(name), name, "was", self.lives.get(name), "before", entry)
        now_is = (asked.incarnation, asked.key_sha256.hex())
        hold(_life(entry.after, name) == now_is, name, "is", now_is, "after", entry)
        in_ = any(isinstance(one, Accepted) and one.machine_id == name for one in changes)
        waits = _told(entry.after, "machines", name).get("phase") == "PHASE_PENDING"
        hold(waits != in_, name, "is let in, or not, after", entry)
        used = self.uses[token]
        told = tuple(_told(state, "tokens", token).get("uses", 0) for state in (entry.before, entry.after))
        right = (len(used), len(used) + 1) if asked.key_sha256 not in used else (0, 0)  # what is as it was is not told
        hold(told == right, token, "had", right, "uses before and after", entry)

    def _follow(self, change: Change) -> None:
        match change:
            case Asked():
                self.lives[change.machine_id] = (change.incarnation, change.key_sha256.hex())
            case Forgotten():
                self.lives[change.machine_id] = None
            case Revoked() if (life := self.lives[change.machine_id]) and life[1]:
                self.lives[change.machine_id] = (life[0] + 1, "")
            case Certified() if (life := self.lives[change.machine_id]) and life[0] == change.incarnation:
                self.lives[change.machine_id] = (life[0], change.key_sha256.hex())
            case TokenUsed():
                self.uses[change.token_id].add(change.key_sha256)
            case _:
                pass


def incarnation_of(entry: Any) -> int:
    """That the machine of this entry is in from then on."""
    life = _life(entry.after, entry.machine_id)
    return life[0] if life else 0


def _life(state: str, name: str) -> Life | None:
    mine = _told(state, "machines", name) | _told(state, "standings", name)
    return (mine.get("incarnation", 0), mine.get("key_sha256", "")) if mine else None


def _told(state: str, kind: str, name: str) -> dict[str, Any]:
    """What an AuditState says of a machine or a token; nothing where it is not there."""
    listed: list[dict[str, Any]] = json.loads(state or "{}").get(kind, [])
    return next((one for one in listed if name in one.values()), {})
