"""Runs as root inside the tests' machine, on the port named `door`: a line of JSON comes in and is run, one goes back.

In:   {"argv": ["systemctl", "status"], "input": "", "limit_s": 60}
Out:  {"code": 0, "out": "…", "error": "…"}; a command that took too long has code -9.

It is no part of Bedplate, and knows nothing of it; Debian's own Python runs it.
"""

import json
import subprocess
from pathlib import Path

PORT = Path("/dev/virtio-ports/door")


def done(order: dict[str, object]) -> dict[str, object]:
    try:
        ended = subprocess.run(
            order["argv"], input=order["input"].encode(), capture_output=True, timeout=order["limit_s"], check=False
        )
    except subprocess.TimeoutExpired as late:
        return {"code": -9, "out": _text(late.stdout), "error": f"{_text(late.stderr)}took over {order['limit_s']} s"}
    except OSError as error:
        return {"code": 127, "out": "", "error": str(error)}
    return {"code": ended.returncode, "out": _text(ended.stdout), "error": _text(ended.stderr)}


def _text(data: bytes | None) -> str:
    return (data or b"").decode(errors="replace")


def main() -> None:
    with PORT.open("r+b", buffering=0) as port:
        pending = b""
        while chunk := port.read(65536):
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                answer = json.dumps(done(json.loads(line))).encode() + b"\n"
                while answer:
                    answer = answer[port.write(answer) :]


if __name__ == "__main__":
    main()
