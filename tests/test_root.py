"""The door to a machine's files: whatever a file does, the answer is a value or nothing."""

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest
from trees import plant

from nodeagent.record import Record
from nodeagent.root import MAX_BYTES, MAX_NOTES, Note, Root

NET = {"sys/devices/pci0000:00/0000:00:03.0/net/eth0/mtu": "1500\n"}
NET_LINK = {"sys/class/net/eth0": "../../devices/pci0000:00/0000:00:03.0/net/eth0"}


def test_text_comes_without_the_white_space_around_it(tmp_path):
    root = Root(plant(tmp_path, {"a": "  4: ACTIVE \n"}))
    assert root.text("a") == "4: ACTIVE"


@pytest.mark.parametrize("content", ["", "\n", "   \n\n"])
def test_an_empty_file_says_nothing(tmp_path, content):
    root = Root(plant(tmp_path, {"a": content}))
    assert root.text("a") is None
    assert root.notes == []


def test_a_file_that_is_not_there_is_a_fact_and_not_an_error(tmp_path):
    root = Root(plant(tmp_path, {"file": "x"}))
    assert root.text("a/b") is root.text("file/below") is root.link("a") is root.number("a") is None
    assert root.names("a") == root.glob("a/*") == []
    assert not root.exists("a")
    assert root.notes == []


def test_a_file_that_vanishes_between_listing_and_reading_is_a_fact(tmp_path):
    root = Root(plant(tmp_path, {"sys/class/x/1/state": "up", "sys/class/x/2/state": "up"}))
    found = root.glob("sys/class/x/*/state")
    shutil.rmtree(tmp_path / "sys/class/x/2")
    assert [root.text(path) for path in found] == ["up", None]
    assert root.notes == []


def test_what_is_not_utf_8_is_shown_by_its_bytes(tmp_path):
    root = Root(plant(tmp_path, {"serial": b"AB\xff\x80C\n"}))
    assert root.text("serial") == "AB\\xff\\x80C"
    assert root.data("serial") == b"AB\xff\x80C\n"


def test_of_a_huge_file_the_beginning_is_read(tmp_path):
    root = Root(plant(tmp_path, {"big": b"x" * (3 * MAX_BYTES)}))
    assert root.text("big") == "x" * MAX_BYTES


def test_a_fifo_without_a_writer_is_empty_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    assert Root(tmp_path).text("fifo") is None


def test_a_fifo_whose_writer_is_silent_is_noted_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    writer = os.open(tmp_path / "fifo", os.O_RDWR)
    root = Root(tmp_path)
    assert root.text("fifo") is None
    assert root.notes == [Note("fifo", errno.EAGAIN)]
    os.close(writer)


def test_a_folder_is_no_text(tmp_path):
    root = Root(plant(tmp_path, {"folder/file": "x"}))
    assert root.text("folder") is None
    assert root.notes == []


def test_numbers_are_decimal_or_hexadecimal_and_all_else_is_none(tmp_path):
    said = {"dec": "42\n", "hex": "0x10de\n", "minus": "-1\n", "word": "Unknown\n", "real": "1.5", "long": "9" * 5000}
    root = Root(plant(tmp_path, said))
    assert {name: root.number(name) for name in said} == {
        "dec": 42,
        "hex": 0x10DE,
        "minus": -1,
        "word": None,
        "real": None,
        "long": None,
    }


def test_a_natural_number_is_not_negative_and_fits_its_field(tmp_path):
    root = Root(plant(tmp_path, {"minus": "-1", "most": str(2**64 - 1), "more": str(2**64), "wide": str(2**32)}))
    assert root.natural("minus") is root.natural("more") is root.natural("wide", bits=32) is None
    assert root.natural("most") == 2**64 - 1


def test_names_and_matches_are_sorted(tmp_path):
    root = Root(plant(tmp_path, {"d/b/x": "", "d/a/x": "", "d/c/y": "", "d/10": ""}))
    assert root.names("d") == ["10", "a", "b", "c"]
    assert root.glob("d/*/x") == ["d/a/x", "d/b/x"]
    assert root.glob("d/[ab]") == ["d/a", "d/b"]
    assert root.glob("d/a/x") == ["d/a/x"]


def test_a_name_that_is_not_utf_8_is_left_out_and_noted(tmp_path):
    plant(tmp_path, {"d/a": ""})
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/d/\xff"))).write_text("x")
    root = Root(tmp_path)
    assert root.names("d") == ["a"]
    assert root.notes == [Note("d", errno.EILSEQ)]


def test_links_are_followed_inside_the_folder(tmp_path):
    root = Root(plant(tmp_path, NET, NET_LINK))
    assert root.text("sys/class/net/eth0/mtu") == "1500"
    assert root.real("sys/class/net/eth0/mtu") == "sys/devices/pci0000:00/0000:00:03.0/net/eth0/mtu"
    assert root.real("sys/class/net/eth0/..") == "sys/devices/pci0000:00/0000:00:03.0/net"
    assert root.link("sys/class/net/eth0") == "eth0"


def test_an_absolute_link_begins_at_the_folder_and_not_at_this_host(tmp_path):
    root = Root(plant(tmp_path, {"usr/lib/os-release": "ID=captured"}, {"etc/os-release": "/usr/lib/os-release"}))
    assert root.text("etc/os-release") == "ID=captured"


def test_no_link_leads_out_of_the_folder(tmp_path):
    plant(tmp_path, {"secret": "of another", "root/inside": "x"})
    links = {"root/up": "../secret", "root/far": "../../../../../../../../etc/passwd", "root/abs": "/etc/passwd"}
    root = Root(plant(tmp_path, {}, {**links, "root/dir": "..", "root/deep/out": str(tmp_path)}) / "root")
    assert [root.text(name) for name in ("up", "far", "abs", "dir/secret", "deep/out/secret")] == [None] * 5
    assert root.text("../secret") is None
    assert root.names("dir") == root.names("")


def test_links_that_lead_in_a_circle_are_noted(tmp_path):
    root = Root(plant(tmp_path, {}, {"a": "b", "b": "a", "folder": "folder/x"}))
    assert root.text("a") is None
    assert root.text("folder/file") is None
    assert not root.exists("b")
    assert {note.errno for note in root.notes} == {errno.ELOOP}


def test_what_the_machine_refused_is_noted_once_with_its_reason(tmp_path):
    root = Root(plant(tmp_path, {"s": "never shown"}), refused={"s": errno.EACCES, "d": errno.EACCES})
    assert root.text("s") is root.text("s") is None
    assert root.names("d") == []
    assert root.notes == [Note("s", errno.EACCES), Note("d", errno.EACCES)]


def test_notes_do_not_grow_without_end(tmp_path):
    root = Root(tmp_path, refused={str(number): errno.EACCES for number in range(1000)})
    assert [root.text(str(number)) for number in range(1000)] == [None] * 1000
    assert len(root.notes) == MAX_NOTES


def test_a_view_has_notes_of_its_own(tmp_path):
    root = Root(tmp_path, refused={"s": errno.EIO})
    view = root.view()
    view.text("s")
    assert (len(view.notes), root.notes) == (1, [])


def test_an_input_output_error_of_this_host_is_noted():
    root = Root()
    assert root.data("proc/self/mem") is None
    assert root.notes == [Note("proc/self/mem", errno.EIO)]


def test_this_host_is_read_through_its_own_links():
    root = Root()
    assert root.text("proc/self/comm") == Path("/proc/self/comm").read_text().strip()
    assert root.real("proc/self") == f"proc/{os.getpid()}"
    assert root.link("proc/self") == str(os.getpid())


def test_a_record_keeps_what_was_read_and_the_links_on_the_way(tmp_path):
    record = Record()
    root = Root(plant(tmp_path, {**NET, "unread": "x"}, NET_LINK), record=record)
    assert root.text("sys/class/net/eth0/mtu") == "1500"
    assert record.files == {"sys/devices/pci0000:00/0000:00:03.0/net/eth0/mtu": b"1500\n"}
    assert record.links == NET_LINK


def test_a_record_answers_the_same_to_all_who_ask(tmp_path):
    root = Root(plant(tmp_path, {"count": "1"}), record=Record())
    assert root.text("count") == "1"
    (tmp_path / "count").write_text("2")
    assert root.view().text("count") == "1"


def test_several_threads_may_read_at_once(tmp_path):
    root = Root(plant(tmp_path, {f"d/{number}/x": str(number) for number in range(50)}), record=Record())
    seen: list[list[str | None]] = []
    threads = [
        threading.Thread(target=lambda: seen.append([root.view().text(path) for path in root.glob("d/*/x")]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [sorted(map(str, range(50)))] * 4
