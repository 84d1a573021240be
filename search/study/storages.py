"""Storages of studies: databases, journal files, gRPC proxies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy
from optuna.storages import (
    BaseStorage,
    GrpcStorageProxy,
    JournalStorage,
    RDBStorage,
    RetryHeartbeatStaleTrialCallback,
    get_storage,
)
from sqlalchemy.engine import URL, make_url

from ofa.errors import MissingExtraError, OfaError, SearchError
from ofa.storage_url import HIDDEN, StorageUrl
from search.study.journal import JournalFile

__all__ = ["GRACE_S", "OpenStorage", "in_one_sentence", "open_storage", "storage_file"]

GRACE_S = 60
"""Seconds without a heartbeat after which the worker of a running trial counts as dead."""
_HEARTBEATS = 3  # per grace period
_RETRIES = 2
"""Retries of a trial whose workers die; after that the trial itself may be what kills them."""
_GRPC = "grpc://"
_ANSWER_S = 10
"""Timeout of a server's first answer in seconds."""
_TRIES = 8
_RETRY_S = 0.1
_MADE_BY_ANOTHER = ("already exists", "unique", "duplicate", "locked")
"""Fragments of a database's error when two processes create the same tables."""
_TURN_S = 60
"""Timeout of SQLite's file lock in seconds."""


@dataclass(frozen=True)
class OpenStorage:
    """A storage that this process has open.

    Attributes:
        storage: Optuna's storage.
        close: closes its connections.
    """

    storage: BaseStorage
    close: Callable[[], None]


def open_storage(where: StorageUrl, grace_s: int = GRACE_S) -> OpenStorage:
    """Open the storage of a study.

    Databases have Optuna's heartbeat: the trial of a dead worker fails and is re-queued under another number. Journal files and proxies
    have no heartbeat in Optuna: there the trial stays RUNNING for ever, and another trial takes its place.

    Args:
        where: a database's URL such as ``sqlite:///study.db`` or ``postgresql://user@host/name``; ``grpc://host:port`` of a server that
            ``optuna.storages.run_grpc_proxy_server`` runs; or the path of a journal file.
        grace_s: seconds without a heartbeat, at least 1, after which a worker counts as dead.

    Raises:
        SearchError: the storage cannot be used.
        MissingExtraError: the storage's driver is not installed.
    """
    if where.is_unclear and not where.is_url:
        raise SearchError(
            f"a storage is written as a URL or as the path of a journal file, but '{where}' is neither; write it as in "
            "postgresql://user@host/database"
        )
    if where.has_secret and where.reveal() == str(where):
        raise SearchError(f"the password of a storage must be given, but in '{where}' it is hidden; put it in the place of {HIDDEN}")
    text = where.reveal()
    with in_one_sentence(where):
        if text.startswith(_GRPC):
            return _proxy(text)
        if where.is_url:
            return _database(text, grace_s)
        return OpenStorage(JournalStorage(JournalFile(text)), close=lambda: None)


def storage_file(where: StorageUrl) -> Path | None:
    """The file of a study; None for a study on a server.

    Raises:
        SearchError: ``where`` is neither a URL of a storage nor a path.
    """
    with in_one_sentence(where):
        if not where.is_url:
            return Path(where.reveal())
        url = make_url(where.reveal())
        name = url.database or ""
        return Path(name) if url.drivername.startswith("sqlite") and name and not name.startswith((":", "file:")) else None


def _proxy(text: str) -> OpenStorage:
    if find_spec("grpc") is None or find_spec("google.protobuf") is None:
        raise MissingExtraError("a study behind a gRPC proxy", "grpc")
    address = urlsplit(text)
    if not address.hostname or not address.port:
        raise ValueError("a proxy is written grpc://host:port")
    proxy = GrpcStorageProxy(host=address.hostname, port=address.port)
    try:
        proxy.wait_server_ready(timeout=_ANSWER_S)
    except ConnectionError:
        proxy.close()
        raise
    return OpenStorage(proxy, proxy.close)


def _database(text: str, grace_s: int) -> OpenStorage:
    url = make_url(text)
    try:
        # Optuna warns that heartbeat and retry are experimental.
        beats: dict[str, Any] = {
            "heartbeat_interval": max(1, grace_s // _HEARTBEATS),
            "grace_period": grace_s,
            "heartbeat_stale_trial_callback": RetryHeartbeatStaleTrialCallback(max_retry=_RETRIES),
        }
        storage = _with_tables(lambda: _Database(text, engine_kwargs=_engine_settings(url), **beats))
    except ImportError as error:
        if url.get_backend_name() == "postgresql":
            raise MissingExtraError("a study in PostgreSQL", "postgresql") from error
        raise
    if url.get_backend_name() == "sqlite":
        sqlalchemy.event.listen(storage.engine, "begin", _begin_alone)
    # ``get_storage`` adds Optuna's cache, without which each access to a study would read all of it again.
    return OpenStorage(get_storage(storage), storage.engine.dispose)


class _Database(RDBStorage):
    """Optuna's database storage, which closes its connections if its constructor fails."""

    def __init__(self, url: str, **settings: Any) -> None:
        try:
            super().__init__(url, **settings)
        except BaseException:
            if hasattr(self, "engine"):
                self.engine.dispose()
            raise


def _with_tables(make: Callable[[], RDBStorage]) -> RDBStorage:
    """Create a storage; retry if another process creates the tables of a new database at the same moment."""
    for attempt in range(1, _TRIES):
        try:
            return make()
        except Exception as error:
            if not any(sign in _reason(error).lower() for sign in _MADE_BY_ANOTHER):
                raise
        time.sleep(_RETRY_S * attempt)
    return make()


def _engine_settings(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": _TURN_S}}
    settings: dict[str, Any] = {"pool_pre_ping": True}  # a connection may be lost while a network is measured
    if url.drivername in ("postgresql", "postgresql+psycopg", "postgresql+psycopg2") and "connect_timeout" not in url.query:
        settings["connect_args"] = {"connect_timeout": _ANSWER_S}
    return settings


def _begin_alone(connection: sqlalchemy.Connection) -> None:
    """Take SQLite's write lock before a trial is read, not after.

    Optuna relies on ``SELECT ... FOR UPDATE`` so that only one worker changes a trial from WAITING to RUNNING, or finishes it. SQLite
    lacks it, so two workers could do so at once.
    """
    connection.exec_driver_sql("BEGIN IMMEDIATE")


# -- errors ------------------------------------------------------------------------------------------------------------


@contextmanager
def in_one_sentence(where: StorageUrl) -> Iterator[None]:
    """Replace any error of a storage by a ``SearchError`` of one sentence, without the secrets in its URL.

    Raises:
        SearchError: instead of the storage's error.
    """
    try:
        yield
    except OfaError:
        raise
    except Exception as error:  # each driver has its own exception classes
        told = "its URL can be read in several ways; write @ : / ? and % of a password as %40 %3A %2F %3F and %25"
        if not where.is_unclear:
            told = f"{where.hide(_reason(error))}; check it, or search without one"
        sentence = (
            f"the storage of a study must be a database, a gRPC proxy or a journal file that can be used, but '{where}' cannot be: {told}"
        )
        failure = SearchError(sentence)
        if not where.has_secret:
            raise failure from error
        try:
            raise failure from None
        finally:
            failure.__context__ = None  # a driver's error contains the URL or the connection's arguments


def _reason(error: BaseException) -> str:
    """The first line of the innermost error that has a message."""
    inner = error
    while inner.__cause__ is not None and str(inner.__cause__).strip():
        inner = inner.__cause__
    details = getattr(inner, "details", None)  # of gRPC errors, whose str() has many lines
    told = str(details() if callable(details) else inner).strip()
    return told.splitlines()[0] if told else type(error).__name__
