"""What counts as news among the vitals."""

import math

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from bedplate.v1 import snapshot_pb2
from bedplate.v1.snapshot_pb2 import FilesystemVitals, GpuVitals, HostVitals, LinkVitals, Vitals
from nodeagent import deadband
from nodeagent.deadband import BANDS, Band, apply, moved
from nodeagent.vitals import entries


def host(**fields):
    return Vitals(host=HostVitals(**fields))


def gpu(**fields):
    return Vitals(gpus={"GPU-1": GpuVitals(**fields)})


def still(before, after):
    changed, gone = moved(before, after)
    return changed == Vitals() and not gone


def test_a_dial_that_trembles_is_no_news():
    assert still(gpu(celsius=50.0, watts=300.0), gpu(celsius=52.5, watts=320.0))
    assert still(host(load_1m=0.2, booted_at_s=1000), host(load_1m=1.1, booted_at_s=1002))


def test_a_dial_that_left_its_band_is_news_with_its_whole_entry():
    changed, gone = moved(gpu(celsius=50.0, watts=300.0), gpu(celsius=54.0, watts=301.0))
    assert changed == gpu(celsius=54.0, watts=301.0)
    assert gone == []


def test_other_entries_stay_at_home():
    before = Vitals(gpus={"a": GpuVitals(celsius=50.0), "b": GpuVitals(celsius=50.0)})
    after = Vitals(gpus={"a": GpuVitals(celsius=50.5), "b": GpuVitals(celsius=70.0)})
    assert entries(moved(before, after)[0]).keys() == {"gpus/b"}


def test_a_counter_a_word_and_a_flag_move_with_any_change():
    link = Vitals(links={"eth0": LinkVitals(operational_state="up", carrier=True, receive_errors=7)})
    for change in ({"operational_state": "down"}, {"carrier": False}, {"receive_errors": 8}):
        after = Vitals()
        after.CopyFrom(link)
        after.links["eth0"].MergeFrom(LinkVitals(**change))
        assert not still(link, after), change


def test_absent_is_not_zero():
    assert not still(gpu(), gpu(celsius=0.0))
    assert not still(gpu(celsius=0.0), gpu())
    assert not still(Vitals(), gpu())


def test_an_entry_that_is_no_more_is_named():
    assert moved(gpu(celsius=50.0), Vitals()) == (Vitals(), ["gpus/GPU-1"])


def test_a_slow_drift_leaves_its_band_in_the_end():
    sent, sends = gpu(celsius=50.0), 0
    for step in range(100):
        changed, gone = moved(sent, now := gpu(celsius=50.0 + step * 0.5))
        if entries(changed):
            sent, sends = apply(sent, changed, gone), sends + 1
    assert abs(sent.gpus["GPU-1"].celsius - now.gpus["GPU-1"].celsius) <= 3.0
    assert 10 <= sends <= 20


def test_a_disk_that_is_nearly_full_is_watched_closely():
    def free(mib):
        return Vitals(filesystems={"/": FilesystemVitals(size_bytes=10**12, free_bytes=mib << 20)})

    assert still(free(100_000), free(97_000))
    assert not still(free(20), free(0))


def test_a_reading_that_is_not_a_number_is_news_once():
    assert not still(gpu(celsius=50.0), gpu(celsius=math.nan))
    assert still(gpu(celsius=math.nan), gpu(celsius=math.nan))
    assert not still(gpu(celsius=math.inf), gpu(celsius=1.0))


def test_every_band_is_of_a_number_that_exists():
    for message, field in BANDS:
        kind = getattr(snapshot_pb2, message).DESCRIPTOR
        assert kind.fields_by_name[field].type not in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BOOL)


def optional(strategy):
    return st.one_of(st.none(), strategy)


def message(kind, **fields):
    return st.builds(kind, **{name: optional(strategy) for name, strategy in fields.items()})


reading = st.floats(allow_nan=False, width=32)
count = st.integers(0, 2**64 - 1)
some_vitals = st.builds(
    Vitals,
    host=message(HostVitals, boot_id=st.sampled_from("ab"), load_1m=reading, memory_available_bytes=count),
    links=st.dictionaries(
        st.sampled_from(["eth0", "eth1"]), message(LinkVitals, carrier=st.booleans(), gigabits=reading)
    ),
    gpus=st.dictionaries(
        st.sampled_from(["GPU-1", "GPU-2", "a/b"]),
        message(GpuVitals, celsius=reading, watts=reading, memory_used_bytes=count, ecc_corrected_volatile=count),
    ),
    filesystems=st.dictionaries(st.sampled_from(["/", "/var"]), message(FilesystemVitals, free_bytes=count)),
)


@given(some_vitals, some_vitals)
def test_a_delta_laid_over_what_was_gives_what_is_within_the_bands(before, after):
    kept = before.SerializeToString(deterministic=True)
    result = apply(before, *moved(before, after))
    assert before.SerializeToString(deterministic=True) == kept
    assert all(deadband._near(entry, entries(after)[key]) for key, entry in entries(result).items())
    assert entries(result).keys() == entries(after).keys()


@given(some_vitals, some_vitals)
def test_the_same_delta_twice_changes_nothing(before, after):
    delta = moved(before, after)
    once = apply(before, *delta)
    assert apply(once, *delta) == once


@given(some_vitals)
def test_nothing_moves_where_nothing_changed(vitals):
    assert still(vitals, vitals)


@given(st.floats(0, 1e9), st.floats(0, 1e9), reading, reading)
def test_a_wider_band_holds_more(narrow, wider, before, after):
    if Band(narrow).holds(before, after):
        assert Band(narrow + wider).holds(before, after)
