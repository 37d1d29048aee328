"""Verifies an event that was posted: `python webhook.py SECRET ID TIMESTAMP SIGNATURE < BODY` ends with 0 or 1."""

import base64
import hashlib
import hmac
import sys
import time
from collections.abc import Mapping


def verified(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Whether the owner of the secret sent this body, within the last five minutes."""
    name, at = headers["webhook-id"], headers["webhook-timestamp"]
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{name}.{at}.".encode() + body, hashlib.sha256).digest()
    mine = "v1," + base64.b64encode(digest).decode()
    genuine = any(hmac.compare_digest(mine, one) for one in headers["webhook-signature"].split())
    return genuine and abs(now - int(at)) < 5 * 60


if __name__ == "__main__":
    secret, *headers = sys.argv[1:]
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    good = verified(secret, dict(zip(names, headers, strict=True)), sys.stdin.buffer.read(), time.time())
    sys.exit(0 if good else 1)
