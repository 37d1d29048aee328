"""When to try again: pure; chance is handed in."""

FIRST_S, LONGEST_S = 0.5, 60.0
LONGEST_ASKED_S = 3600.0


def pause_s(failures: int, chance: float, asked_s: float | None = None) -> float:
    """Twice as long after each failure in a row, up to a minute, and between half of that and all of it by chance (0 to
    1), so that those who failed together do not come back together. Whoever asks for longer gets it, up to an hour.
    """
    longest = min(LONGEST_S, FIRST_S * 2.0 ** min(failures - 1, 16))
    return max(longest * (1 + chance) / 2, min(asked_s or 0.0, LONGEST_ASKED_S))
