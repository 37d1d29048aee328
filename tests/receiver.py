"""An address that is posted to: a real HTTP server on loopback, which answers as a test wants it."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from provisioner.config import Webhook
from provisioner.credentials import write_secret
from provisioner.pki import Authority

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
Answer = Callable[[web.Request], web.StreamResponse | None]


@dataclass
class Post:
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """`answers` are given one after another, and after them a yes; None: the connection is ended without one."""

    folder: Path
    url: str = ""
    posts: list[Post] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    had: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.posts.append(Post({key.lower(): value for key, value in request.headers.items()}, await request.read()))
        self.had.set()
        answer = self.answers.pop(0)(request) if self.answers else web.Response(status=204)
        if answer is None:
            assert request.transport
            request.transport.abort()
            return web.Response()
        return answer

    def settings(self, **settings: object) -> Webhook:
        write_secret(self.folder / "secret", SECRET.encode())
        given = {"name": "pager", "url": self.url, "secret_file": str(self.folder / "secret"), **settings}
        return Webhook(**given)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def receiving(folder: Path, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    made = Receiver(folder)
    app = web.Application()
    app.router.add_route("*", "/{anywhere:.*}", made.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    made.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/hooks/private-part"
    try:
        yield made
    finally:
        await runner.cleanup()


def tls_of(ca: Authority, folder: Path, now: float) -> ssl.SSLContext:
    """A server's, for 127.0.0.1."""
    chain, key = ca.issue_server(["127.0.0.1"], now=now)
    for name, content in {"ca.pem": ca.roots_pem, "hook.pem": chain, "hook.key": key}.items():
        write_secret(folder / name, content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "hook.pem", folder / "hook.key")
    return context
