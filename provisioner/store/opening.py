"""Opens the database: makes it, brings it up to date, and says in one line why it cannot.

Rule 1: a store is made whole beside its place and then moved there: what lies in its place was a store once, so an
        empty file is a damaged store and never taken for a new one.
Rule 2: a store that is younger than this program is not touched.
Rule 3: SQLite in WAL mode with synchronous FULL: what was committed survives a power cut; 0600 from the first byte.
"""

import errno
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event, text

from provisioner.store.cut import is_cut
from provisioner.store.errors import ADVICE as REMEDIES
from provisioner.store.errors import FAULTS, StoreError, told
from provisioner.store.schema import HEAD

SETTINGS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA busy_timeout=5000",
    "PRAGMA wal_autocheckpoint=8000",  # pages: 32 MB; under load the same pages are written again and again
)
ADVICE = {
    errno.ENOENT: "make its folder first: provisioner init",
    errno.EACCES: "make it and its folder readable and writable for this user",
    errno.EROFS: "its disk is mounted read-only",
}
UNBORN = ("PRAGMA journal_mode=DELETE", *SETTINGS[1:])
READING = (*SETTINGS[2:], "PRAGMA query_only=ON")
BESIDE = ("", "-journal", "-wal", "-shm")  # the file and what SQLite puts beside it
EMPTY_BYTES = 1  # SQLite makes a new database of a file of one byte, as of an empty one
READERS = 8
BUSY_S = 5.0


def path_of(url_or_path: str | os.PathLike[str]) -> Path:
    """'sqlite:////var/lib/bedplate/bedplate.db' or a path. StoreError where it names another database."""
    name = os.fspath(url_or_path)
    scheme, sign, rest = name.partition("://")
    if not sign:
        return Path(name)
    if scheme != "sqlite" or not rest.startswith("/") or not rest[1:]:
        raise StoreError(f"cannot open store {name}: only SQLite is built in; give a path, or sqlite:///PATH")
    return Path(rest[1:])


def engines(path: Path) -> tuple[Engine, Engine]:
    """One to write and one to read, on a store that is whole and up to date. StoreError where it cannot be."""
    try:
        if not path.exists():
            _make(path)
        _look(path)
        writing = _engine(path, SETTINGS)
        _bring_up_to_date(writing, path)
    except OSError as error:
        advice = ADVICE.get(error.errno or 0, "name a file in a folder of its own")
        raise StoreError(f"cannot open store {path}: {error.strerror}; {advice}") from error
    except FAULTS as error:
        raise told("open", str(path), error) from error
    return writing, _engine(path, READING)


def _bring_up_to_date(engine: Engine, path: Path) -> None:
    try:
        with engine.begin() as connection:
            _migrate(connection, path)
    except Exception:
        engine.dispose()
        raise


def _look(path: Path) -> None:
    """Refuses what SQLite would take for a new store, fill up with zeros, or open and then stumble over."""
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(handle).st_size <= EMPTY_BYTES:
            advice = "restore it from a backup, or move it away with its -wal and -shm to begin anew"
            raise StoreError(f"cannot open store {path}: the file is empty; {advice}")
        if is_cut(handle, path):
            raise StoreError(f"cannot open store {path}: pages at its end are missing; {REMEDIES['SQLITE_CORRUPT']}")
    finally:
        os.close(handle)


def _make(path: Path) -> None:
    """Without a log beside it: one that could not be moved into the file as that was closed would be left behind."""
    unborn = path.with_name(path.name + ".new")
    for rest in BESIDE:
        unborn.with_name(unborn.name + rest).unlink(missing_ok=True)
    os.close(os.open(unborn, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    engine = _engine(unborn, UNBORN)
    _bring_up_to_date(engine, unborn)
    engine.dispose()
    unborn.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _engine(path: Path, settings: Sequence[str]) -> Engine:
    """Transactions begin when we say so; those that write take the write lock at once, so that none fails half way."""
    writes = settings is not READING
    # The path is not part of a URL: a question mark in it is a question mark.
    engine = create_engine(
        "sqlite://",
        creator=lambda: _connected(path, settings),
        poolclass=QueuePool,
        pool_size=1 if writes else READERS,
        max_overflow=0,
    )

    @event.listens_for(engine, "begin")
    def _begins(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _connected(path: Path, settings: Sequence[str]) -> sqlite3.Connection:
    """One that was set up, or none: a file that is no store is not held open."""
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        for setting in settings:
            connection.execute(setting)
    except FAULTS:
        connection.close()
        raise
    return connection


def _migrate(connection: Connection, path: Path) -> None:
    """Brings the tables up to date. Alembic is imported only where there is something to do."""
    version = _version(connection)
    if version == HEAD:
        return
    from alembic import command  # noqa: PLC0415 - seldom needed, and slow to import
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version and version not in known:
        advice = f"a newer provisioner made it (version {version}); run that one"
        raise StoreError(f"cannot open store {path}: this provisioner knows stores up to version {HEAD}, and {advice}")
    if not version and connection.execute(text("SELECT count(*) FROM sqlite_master")).scalar():
        raise StoreError(
            f"cannot open store {path}: it is a database of something else; name the right file, or move it away"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _version(connection: Connection) -> str:
    """Empty where there are no tables yet."""
    table = "SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'"
    if not connection.execute(text(table)).scalar():
        return ""
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or ""
