"""Runs `nodeagent.keys` once for each moment at which it could be cut off: `crash.py STATE`, the request on stdin.

Before the Nth time that it touches a file, it is gone, as if the power was: an audit hook sees each open, rename and
unlink before it happens. What was left behind after each goes to stdout, as JSON lines.
"""

import base64
import io
import json
import os
import shutil
import sys
from pathlib import Path

from nodeagent import keys

TOUCHES = ("open", "os.rename", "os.remove", "os.mkdir")


def cut_off_at(count: int, state: str, request: bytes) -> int:
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
    sys.stdin = io.TextIOWrapper(io.BytesIO(request))
    sys.stdout = io.TextIOWrapper(io.BytesIO())
    os._exit(keys.main())


def main() -> None:
    state, request = Path(sys.argv[1]), sys.stdin.buffer.read()
    before = state.with_name("before")
    shutil.copytree(state, before)
    count, code = 0, 9
    while code == 9:
        count += 1
        shutil.rmtree(state)
        shutil.copytree(before, state)
        code = cut_off_at(count, str(state), request)
        left = {path.name: base64.b64encode(path.read_bytes()).decode() for path in state.iterdir()}
        sys.stdout.write(json.dumps({"count": count, "code": code, "left": left}) + "\n")


if __name__ == "__main__":
    main()
