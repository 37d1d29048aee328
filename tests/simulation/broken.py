"""What an invariant that does not hold is."""


class BrokenError(AssertionError):
    """An invariant does not hold; `str` says which, and for whom."""


def hold(truth: bool, *words: object) -> None:  # noqa: FBT001 - as assert
    if not truth:
        raise BrokenError(" ".join(map(str, words)))
