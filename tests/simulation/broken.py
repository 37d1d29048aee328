"""What an invariant that does not hold is."""


class BrokenError(BaseException):
    """An invariant does not hold; `str` says which, and for whom. No `except Exception` of the product's catches it."""


def hold(truth: bool, *words: object) -> None:  # noqa: FBT001 - as assert
    if not truth:
        raise BrokenError(" ".join(map(str, words)))
