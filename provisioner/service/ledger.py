"""What this service needs of the fleet: the world, a way to change it, and a way to wait for a change."""

from collections.abc import Awaitable, Callable, Sequence
from typing import ParamSpec, Protocol, TypeVar

from provisioner.conduct import Conduct
from provisioner.config import Config
from provisioner.store import Store
from provisioner.world import Change, World

P = ParamSpec("P")
T = TypeVar("T")


class Settings(Protocol):
    @property
    def config(self) -> Config: ...
    @property
    def version(self) -> str: ...
    @property
    def ca_sha256(self) -> bytes: ...
    @property
    def next_ca_sha256(self) -> bytes: ...
    @property
    def silent_after_s(self) -> float: ...


class Ledger(Protocol):
    @property
    def world(self) -> World: ...
    @property
    def store(self) -> Store: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def conduct(self) -> Conduct: ...

    def now(self) -> float: ...

    def write(self, changes: Sequence[Change], /) -> Awaitable[list[int]]:
        """The revision of each, once they are durable and the world has them. StoreError: none of them came to be."""

    def read(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Runs it where it blocks nobody."""

    def survey(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """The same for what looks at many machines or rows: apart from what streams wait for."""

    def wait_past(self, revision: int) -> Awaitable[None]:
        """Until the world is younger than that."""
