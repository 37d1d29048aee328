"""The output of each program where it cannot be written: one line, and never a traceback."""

import subprocess

import pytest

from tests.running import BIN

pytestmark = pytest.mark.slow
PROGRAMS = (
    "bedplate completion bash",
    "bedplate --help",
    "provisioner --help",
    "provisioner version",
    "nodeagent version",
)


def _run(line: str) -> tuple[int, str, str]:
    command = ["sh", "-c", f"exec {BIN}/{line}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("words", PROGRAMS)
def test_a_full_disk_behind_the_output_is_one_line(words: str) -> None:
    name = words.split(maxsplit=1)[0]
    assert _run(f"{words} > /dev/full") == (1, "", f"{name}: cannot write the output: No space left on device\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", PROGRAMS)
def test_streams_that_are_closed_are_no_error(words: str, closed: str) -> None:
    code, _, complaint = _run(f"{words} {closed}")
    assert (code, complaint) == (0, "")


def test_who_is_not_read_any_more_ends_as_a_program_in_a_pipe_does() -> None:
    with subprocess.Popen([BIN / "bedplate", "completion", "bash"], stdout=subprocess.PIPE, stderr=-1) as done:
        assert done.stdout
        done.stdout.close()
        assert done.stderr
        assert (done.stderr.read(), done.wait()) == (b"", 141)  # 128 and SIGPIPE, as a shell counts
