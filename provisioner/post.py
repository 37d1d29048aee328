"""The one door to addresses that are posted to.

Rule 1: https with the other end's certificate verified; no redirect is followed, no proxy and no cookie is taken from
        anywhere: what is posted goes where the configuration says, and nowhere else.
Rule 2: 2xx is yes. All else is no, with a sentence; of an answer no more than a few kilobytes are read.
Rule 3: a sentence names host and port, never the rest of the address: that may hold what only its owner is to know.
"""

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from provisioner import names
from provisioner.config import Webhook
from provisioner.errors import BedplateError

PORTS = {"http": 80, "https": 443}
MOST_READ = 4096
MOST_SHOWN = 100
Post = Callable[[bytes, Mapping[str, str]], Awaitable[None]]


class PostError(BedplateError):
    """It did not say yes. `gist` is the line without what may be another each time; `retry_after_s` is when it wants to
    be asked again, if it said.
    """

    def __init__(self, line: str, *, gist: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(line)
        self.gist = gist or line
        self.retry_after_s = retry_after_s


class _Resolver(AbstractResolver):
    """Not in a thread of the store's, as aiohttp would."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await names.look_up(host, port)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=of,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for of, _, proto, _, address in found
            if family in (socket.AF_UNSPEC, of)
        ]

    async def close(self) -> None:
        """There is nothing to close."""


@contextlib.asynccontextmanager
async def opened(settings: Webhook) -> AsyncIterator[Post]:
    """Gives what posts a body with these headers to the address, over one connection at a time; PostError on a no."""
    context = await asyncio.to_thread(_trust, settings.ca_file)
    connector = aiohttp.TCPConnector(limit=1, ssl=context, resolver=_Resolver())
    timeout = aiohttp.ClientTimeout(total=settings.timeout_s)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # nothing but the status counts
    ) as session:

        async def post(body: bytes, headers: Mapping[str, str]) -> None:
            try:
                async with session.post(settings.url, data=body, headers=headers, allow_redirects=False) as response:
                    await _judge(response, settings)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise PostError(f"cannot post to {_where(settings)}: {_cause(error, settings)}") from error

        yield post


def _where(settings: Webhook) -> str:
    """'https://u:p@hooks.example/secret' -> 'hooks.example:443'"""
    url = urlsplit(settings.url)
    return f"{url.hostname}:{url.port or PORTS[url.scheme]}"


async def _judge(response: aiohttp.ClientResponse, settings: Webhook) -> None:
    said = (await response.content.read(MOST_READ)).decode(errors="replace").strip()
    if HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
        return
    answer = f"{response.status} {_shown(response.reason or '')}".strip()
    if HTTPStatus.MULTIPLE_CHOICES <= response.status < HTTPStatus.BAD_REQUEST:
        said = "it leads elsewhere, which is not followed; name the address that it leads to"
    line = f"{_where(settings)} answers {answer}" + (f": {_shown(said)}" if said else "")
    raise PostError(
        line,
        gist=f"{_where(settings)} answers {response.status}",
        retry_after_s=_retry_after_s(response.headers.get("Retry-After", "")),
    )


def _shown(text: str) -> str:
    """The first line of it, and nothing in it that does something to a terminal or a log."""
    first = next(iter(text.strip().splitlines()), "")[:MOST_SHOWN]
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in first)


def _retry_after_s(text: str) -> float | None:
    """'120' or 'Fri, 15 Jan 2027 08:00:00 GMT'; None where it says neither."""
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _cause(error: Exception, settings: Webhook) -> str:  # noqa: PLR0911 - one for each kind
    match error:
        case TimeoutError():
            return f"no answer within {settings.timeout_s:g} s"
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as inner):
            return f"certificate verify failed: {inner.verify_message.rstrip('.')}; see ca_file and url"
        case aiohttp.ClientConnectorError():
            return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.os_error)
        case aiohttp.ServerDisconnectedError():
            return "it ended the connection without an answer"
        case aiohttp.ClientResponseError(message=message):
            return f"what it answers is not HTTP: {_shown(message).rstrip(':')}"
        case OSError(errno=int(number)) if number > 0:
            return os.strerror(number)
        case OSError() | aiohttp.ClientPayloadError():
            return "the connection broke"
        case _:
            return type(error).__name__  # rule 3: what aiohttp says often holds the whole address


def _trust(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:  # ssl.SSLError is one
        cause = error.strerror if error.strerror and not isinstance(error, ssl.SSLError) else "no certificate in PEM"
        raise PostError(f"cannot use ca_file {ca_file}: {cause}") from error
