"""The storage URL of a study, which may contain a password, and its form for messages, without the password."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import quote, quote_plus, unquote, unquote_plus

__all__ = ["HIDDEN", "StorageUrl", "without_passwords"]

HIDDEN = "***"
"""Placeholder for a secret in messages."""

_MAY_BE_SHOWN = frozenset(
    (
        *("application_name", "cache", "charset", "client_encoding", "connect_timeout", "dbname", "driver", "gssencmode", "host"),
        *("hostaddr", "immutable", "mode", "nolock", "passfile", "port", "service", "service_name", "sslcert", "sslkey", "sslmode"),
        *("sslrootcert", "target_session_attrs", "timeout", "uri", "user", "vfs"),
    )
)
"""Keys of a URL's query whose values are not secret; the values of all other keys are hidden."""

_URL = re.compile(r"(?P<scheme>[\w+.-]+)://(?P<rest>.*)", re.DOTALL)
_HOST = r"(?:[\w.-]*|\[[\w:.%]*\])(?::\d*)?"
_AUTHORITY = re.compile(rf"(?:(?P<user>[^:@]*)(?::(?P<password>[^@]*))?@)?(?P<hosts>{_HOST}(?:,{_HOST})*)")
_TYPING_ERROR = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]+):(?!\\).*@|(?:^|[\s;&?])\w*(?:password|passwd|pwd)\s*=", re.DOTALL | re.IGNORECASE)
"""Texts that are no URL, but a mistyped one, or a connection string of libpq or ODBC."""

_VALUES = tuple(re.compile(rf"(?==\s*({value}))") for value in (r"'(?:\\.|[^'])*'", r"\{[^}]*\}", r"[^;\s]+", "[^;]+"))
"""Values of ``key=value`` lists, in the quoting styles of libpq and ODBC."""
_CODES = re.compile("%[0-9A-F]{2}")

_OF_USERS = re.compile(r"(\w://[^\s:/@'\"]*):[^\s'\"]*@")
_OF_KEYS = re.compile(r"(?<=[?&;\s])(\w*(?:password|passwd|pwd|secret|token)=)[^\s&;'\"]+", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """Replace the passwords of all URLs in a text by ``HIDDEN``."""
    return _OF_KEYS.sub(rf"\1{HIDDEN}", _OF_USERS.sub(rf"\1:{HIDDEN}@", text))


@dataclass(frozen=True)
class StorageUrl:
    """A database's URL, ``grpc://host:port``, or the path of a journal file; ``str()`` hides its secrets.

    Everything that SQLAlchemy, libpq or ODBC may read as a secret is hidden: the user's password, and every query value except values
    of keys known to be harmless. An ambiguous URL, such as one with ``@`` or ``/`` in its password, is shown as its scheme only.

    Args:
        text: as the user typed it.
    """

    _text: str = field(repr=False)

    def reveal(self) -> str:
        """The text with its secrets, to connect with."""
        return self._text

    def __str__(self) -> str:
        return self._read[0]

    def __repr__(self) -> str:
        return f"StorageUrl({str(self)!r})"

    @property
    def is_url(self) -> bool:
        """Whether the text is a URL, not a path."""
        return _URL.fullmatch(self._text) is not None

    @property
    def is_unclear(self) -> bool:
        """Whether the text is ambiguous, so that its secrets are unknown, or looks like a mistyped URL or a connection string."""
        return self._read[1] is None

    @property
    def has_secret(self) -> bool:
        """Whether ``str()`` hides a part of the text."""
        return self._read[1] != ()

    def hide(self, message: str) -> str:
        """Remove the secrets, in every form of quoting, from a message; of a message about an ambiguous URL nothing remains."""
        if self._read[1] is None:
            return HIDDEN
        for form in sorted({form for secret in self._read[1] for form in _forms(secret)}, key=len, reverse=True):
            message = message.replace(form, HIDDEN)
        return message

    @cached_property
    def _read(self) -> tuple[str, tuple[str, ...] | None]:
        """The text to show, and the secrets; None for the secrets if the URL is ambiguous."""
        url = _URL.fullmatch(self._text)
        if url is None:
            mistyped = _TYPING_ERROR.search(self._text)
            return (f"{mistyped['scheme'] or 'password'}:{HIDDEN}", None) if mistyped else (self._text, ())
        scheme, rest = url["scheme"], url["rest"]
        is_file = scheme.partition("+")[0] == "sqlite" and rest.startswith("/")
        authority = rest[: min((at for mark in "/?" if (at := rest.find(mark)) >= 0), default=len(rest))]
        path, mark, query = rest[len(authority) :].partition("?")
        read = _AUTHORITY.fullmatch(authority)
        if read is None or "@" in query or ("@" in path and not is_file):
            return f"{scheme}://{HIDDEN}", None
        secrets: list[str] = []
        user, password = read["user"], read["password"]
        if user and ":" in unquote(user):
            secrets.append(user)
            user = HIDDEN
        if password:
            secrets.append(password)
        if not is_file and re.search("=|://", unquote(path)):  # libpq accepts a connection string as the name of a database
            secrets.append(path[1:])
            path = f"/{HIDDEN}"
        who = "" if user is None else f"{user}@" if password is None else f"{user}:{HIDDEN}@"
        shown = f"{scheme}://{who}{read['hosts']}{path}{mark}{'&'.join(_shown_query(query, secrets))}"
        return shown, tuple(secrets)


def _shown_query(query: str, secrets: list[str]) -> Iterator[str]:
    """Each part of a query as it is shown; hidden values are appended to ``secrets``."""
    for part in query.split("&"):
        key, equals, value = part.partition("=")
        if not part or (equals and key.lower() in _MAY_BE_SHOWN and not re.search("[=;:]", unquote_plus(value))):
            yield part
        elif equals:
            secrets.append(value)
            yield f"{key}={HIDDEN}"
        else:
            secrets.append(part)
            yield HIDDEN


def _forms(secret: str) -> set[str]:
    """All forms in which messages may quote a secret: whole or a value in it, raw or decoded, escaped as in URLs, JSON, Python or libpq."""
    plain = {secret, unquote(secret), unquote_plus(secret)}
    plain |= {value.strip("'{}") for each in plain for pattern in _VALUES for value in pattern.findall(each)}
    percent = {form for each in plain for form in (quote(each, safe=""), quote_plus(each), quote(each, safe=" +"))}
    percent |= {_CODES.sub(lambda code: code[0].lower(), each) for each in percent}
    escaped = {form for each in plain for form in (repr(each)[1:-1], json.dumps(each)[1:-1], each.replace("\\", r"\\").replace("'", r"\'"))}
    return (plain | percent | escaped) - {""}
