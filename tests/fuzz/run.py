"""One input to one decoder, by name and seed."""

import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.fuzz.decoders import DECODERS
from tests.fuzz.mutations import mutated

SLOW_S = 5.0  # far more than any needs on a busy host: what is slower does not end, or grows with the square


@dataclass(frozen=True, slots=True)
class Failure:
    decoder: str
    seed: int
    body: bytes
    why: str

    def __str__(self) -> str:
        shown = repr(self.body[:200]) + (f" and {len(self.body) - 200} more" if len(self.body) > 200 else "")
        again = f"again: .venv/bin/python -m tests.fuzz {self.decoder!r} {self.seed}"
        return f"{self.decoder}, seed {self.seed}: {self.why}\n  {shown}\n  {again}"


def tried(name: str, seed: int, folder: Path) -> Failure | None:
    """None where it was read, or refused as it should be."""
    decoder = DECODERS[name]
    body = mutated(Random(f"{name}/{seed}"), decoder.corpus)  # noqa: S311 - a seed
    began = time.process_time()
    try:
        decoder.read(body, folder)
    except decoder.raises as error:
        if "\n" in str(error):
            return Failure(name, seed, body, f"more than a line: {error}")
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        where = traceback.extract_tb(error.__traceback__)[-1]
        return Failure(
            name, seed, body, f"{type(error).__name__}: {str(error)[:200]} ({where.filename}:{where.lineno})"
        )
    if (took := time.process_time() - began) > SLOW_S:
        return Failure(name, seed, body, f"it took {took:.1f} s")
    return None


def many(name: str, first: int, count: int) -> list[Failure]:
    """The first of each kind."""
    with tempfile.TemporaryDirectory(prefix="bpf") as folder:
        found = [failure for seed in range(first, first + count) if (failure := tried(name, seed, Path(folder)))]
    return list({failure.why: failure for failure in reversed(found)}.values())
