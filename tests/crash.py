"""Runs `nodeagent.keys` once for each moment at which it could be cut off: `crash.py STATE`, the request on stdin; or a
step of `provisioner ca rotate`: `crash.py STATE TRUST`.

Before the Nth time that it touches a file, it is gone, as if the power was: an audit hook sees each open, rename and
unlink before it happens. What was left behind after each goes to stdout, as JSON lines.
"""

import base64
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

TOUCHES = ("open", "os.rename", "os.remove", "os.mkdir")


def cut_off_at(count: int, state: str, work: Callable[[], int]) -> int:
    """In a process of its own; the exit code is 9 where it was cut off, 0 where it came to its end."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = count

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal left
        if event in TOUCHES and str(args[0]).startswith(state):
            left -= 1
            if left == 0:
                os._exit(9)

    sys.addaudithook(hook)
    os._exit(work())


def _keys(request: bytes) -> int:
    from nodeagent import keys  # noqa: PLC0415 - either program alone

    sys.stdin = io.TextIOWrapper(io.BytesIO(request))
    sys.stdout = io.TextIOWrapper(io.BytesIO())
    return keys.main()


def _step(name: str, state: Path) -> Callable[[], int]:
    """What it needs is imported once, before anything is cut off."""
    from provisioner import onroots  # noqa: PLC0415 - either program alone
    from provisioner.rotation import Step  # noqa: PLC0415

    def taken() -> int:
        onroots.take(state, Step[name], time.time())
        return 0

    return taken


def main() -> None:
    state, request = Path(sys.argv[1]), sys.stdin.buffer.read()
    work = _step(sys.argv[2], state) if len(sys.argv) > 2 else partial(_keys, request)
    before = state.with_name("before")
    shutil.copytree(state, before)
    count, code = 0, 9
    while code == 9:
        count += 1
        shutil.rmtree(state)
        shutil.copytree(before, state)
        code = cut_off_at(count, str(state), work)
        left = {path.name: base64.b64encode(path.read_bytes()).decode() for path in state.iterdir() if path.is_file()}
        sys.stdout.write(json.dumps({"count": count, "code": code, "left": left}) + "\n")


if __name__ == "__main__":
    main()
