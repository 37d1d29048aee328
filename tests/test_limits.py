"""Token buckets by hand: what is let through, what waits for how long, and that memory is bounded."""

from hypothesis import given
from hypothesis import strategies as st

from provisioner.limits import Bucket, Buckets, Places, Rate

RATE = Rate(per_s=2.0, burst=4.0)


def test_a_burst_is_let_through_at_once_and_what_is_beyond_waits_for_its_turn() -> None:
    bucket = Bucket(RATE)
    assert [bucket.take(100.0) for _ in range(6)] == [0, 0, 0, 0, 0.5, 1.0]
    assert bucket.wait_s(101.0) == 0.5


def test_after_a_time_of_quiet_there_is_a_burst_again_and_no_more() -> None:
    bucket = Bucket(RATE)
    for _ in range(4):
        bucket.take(100.0)
    assert [bucket.take(1000.0) for _ in range(5)] == [0, 0, 0, 0, 0.5]


def test_what_is_larger_than_the_burst_passes_and_is_owed() -> None:
    bucket = Bucket(RATE)
    assert bucket.take(0.0, 10) == 3.0
    assert bucket.wait_s(3.0) == 0.5


def test_one_who_is_much_too_early_takes_nothing() -> None:
    buckets = Buckets(Rate(1.0, 1.0))
    answers = [buckets.take("a", 0.0, patience_s=1.5) for _ in range(4)]
    assert answers == [(0.0, True), (1.0, True), (2.0, False), (2.0, False)]
    assert buckets.take("b", 0.0) == (0.0, True), "another one notices nothing"


def test_names_without_end_share_one_bucket_and_those_that_were_there_keep_their_own() -> None:
    buckets = Buckets(Rate(1.0, 2.0), most=100)
    for number in range(10_000):
        buckets.take(f"10.0.0.{number}", 0.0)
    assert len(buckets) == 101
    assert buckets.take("10.0.0.0", 0.0) == (0.0, True)
    assert buckets.take("10.0.0.9999", 0.0) == (1.0, False), "the one of all for whom there is no room"
    assert buckets.take("new", 60.0) == (0.0, True)
    assert len(buckets) == 1, "a bucket that is full is not kept"


def test_of_places_there_are_so_many_for_each_and_a_name_without_one_is_not_kept() -> None:
    places = Places(2)
    assert [places.enter("a") for _ in range(3)] == [True, True, False]
    assert places.enter("b")
    places.leave("a")
    assert places.enter("a")
    for name in ("a", "a", "b"):
        places.leave(name)
    assert len(places) == 0


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 5)), max_size=50))
def test_whoever_keeps_to_the_waits_takes_no_more_than_the_rate_and_one_burst(steps: list[tuple[float, float]]) -> None:
    bucket, now, taken = Bucket(RATE), 0.0, 0.0
    for pause_s, amount in steps:
        now += pause_s
        now += bucket.take(now, amount)
        taken += amount
        assert taken <= RATE.burst + RATE.per_s * now + 1e-6


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 5)), max_size=50))
def test_a_bucket_of_many_counts_as_one_alone_does(steps: list[tuple[float, float]]) -> None:
    one, many, now = Bucket(RATE), Buckets(RATE), 0.0
    for pause_s, amount in steps:
        now += pause_s
        assert many.take("a", now, amount, patience_s=float("inf")) == (one.take(now, amount), True)
