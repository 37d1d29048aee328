"""An address as a sink: each event is one signed POST, in order, until it says yes.

Rule 1: signed as Standard Webhooks say: HMAC-SHA256 over id, time and body, so that the receiver knows who sent it,
        that nobody changed it, and that it is not an old one.
Rule 2: the id of a message is the event's, however often it is tried; the time is the attempt's.
Rule 3: a secret file may hold several secrets, a line each: a message is signed with all of them, so that a secret is
        changed without losing a message.

Source: the Standard Webhooks specification (standardwebhooks.com), "webhook headers" and "signature scheme".
"""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Sequence
from functools import partial

from provisioner import cloudevents, post, secret
from provisioner.config import Webhook
from provisioner.errors import BedplateError
from provisioner.outbox.feed import Feed, Ledger
from provisioner.store import Event

PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64  # bytes of a secret


class WebhookSink:
    def __init__(self, ledger: Ledger, settings: Webhook, source: str, version: str) -> None:
        self.name = f"webhook/{settings.name}"
        self.from_oldest = settings.from_oldest
        self._ledger = ledger
        self._settings = settings
        self._source = source
        self._agent = f"bedplate/{version}"

    async def run(self, feed: Feed) -> None:
        """Until the address says no: BedplateError."""
        async with post.opened(self._settings) as send:
            await feed.deliver(partial(self._send, send), self._wants)

    def _wants(self, event: Event) -> bool:
        return not self._settings.kinds or event.kind.startswith(self._settings.kinds)

    async def _send(self, send: post.Post, event: Event) -> None:
        secrets = await asyncio.to_thread(secrets_of, self._settings.secret_file)
        body = cloudevents.encoded(event, self._source)
        name, at = f"{self._ledger.store.fleet}-{cloudevents.id_of(event)}", int(self._ledger.now())
        headers = {
            "content-type": cloudevents.CONTENT_TYPE,
            "user-agent": self._agent,
            "webhook-id": name,
            "webhook-timestamp": str(at),
            "webhook-signature": signatures(secrets, name, at, body),
        }
        await send(body, headers)


def signatures(secrets: Sequence[bytes], name: str, at: int, body: bytes) -> str:
    """'v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=', one for each secret."""
    signed = f"{name}.{at}.".encode() + body
    digests = (hmac.new(one, signed, hashlib.sha256).digest() for one in secrets)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def secrets_of(path: str) -> list[bytes]:
    """BedplateError where the file is not there, may be read by others, or holds something else."""
    return [_secret(path, line) for line in secret.read(path).decode(errors="replace").split()]


def _secret(path: str, line: str) -> bytes:
    try:
        found = base64.b64decode(line.removeprefix(PREFIX), validate=True) if line.startswith(PREFIX) else b""
    except ValueError:  # binascii.Error is one; letters that are not ASCII are another
        found = b""
    if not SHORTEST <= len(found) <= LONGEST:
        raise BedplateError(
            f'cannot use {path}: a line must be a secret, as of `echo "{PREFIX}$(openssl rand -base64 32)"`'
        )
    return found
