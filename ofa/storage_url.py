"""Where a study is kept, as text that may hold a password, and how that is shown: never with the password."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import quote, quote_plus, unquote, unquote_plus

__all__ = ["HIDDEN", "StorageUrl", "without_passwords"]

HIDDEN = "***"
"""What stands for a secret."""

_MAY_BE_SHOWN = frozenset(
    (
        *("application_name", "cache", "charset", "client_encoding", "connect_timeout", "dbname", "driver", "gssencmode", "host"),
        *("hostaddr", "immutable", "mode", "nolock", "passfile", "port", "service", "service_name", "sslcert", "sslkey", "sslmode"),
        *("sslrootcert", "target_session_attrs", "timeout", "uri", "user", "vfs"),
    )
)
"""Keys of a URL's query whose values are no secrets; those of all others are hidden, whatever they are called."""

_URL = re.compile(r"(?P<scheme>[\w+.-]+)://(?P<rest>.*)", re.DOTALL)
_HOST = r"(?:[\w.-]*|\[[\w:.%]*\])(?::\d*)?"
_AUTHORITY = re.compile(rf"(?:(?P<user>[^:@]*)(?::(?P<password>[^@]*))?@)?(?P<hosts>{_HOST}(?:,{_HOST})*)")
_TYPING_ERROR = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]+):(?!\\).*@|(?:^|[\s;&?])\w*(?:password|passwd|pwd)\s*=", re.DOTALL | re.IGNORECASE)
"""What is no URL, and was meant to be one, or is what libpq and ODBC connect by."""

_VALUES = tuple(re.compile(rf"(?==\s*({value}))") for value in (r"'(?:\\.|[^'])*'", r"\{[^}]*\}", r"[^;\s]+", "[^;]+"))
"""Of ``key=value`` lists, as libpq and ODBC have them."""
_CODES = re.compile("%[0-9A-F]{2}")

_OF_USERS = re.compile(r"(\w://[^\s:/@'\"]*):[^\s'\"]*@")
_OF_KEYS = re.compile(r"(?<=[?&;\s])(\w*(?:password|passwd|pwd|secret|token)=)[^\s&;'\"]+", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """The same text with the passwords of all URLs in it hidden."""
    return _OF_KEYS.sub(rf"\1{HIDDEN}", _OF_USERS.sub(rf"\1:{HIDDEN}@", text))


@dataclass(frozen=True)
class StorageUrl:
    """A database's URL, ``grpc://host:port`` or the path of a journal file; as text and in messages it is without its secrets.

    What SQLAlchemy, libpq or ODBC may take for a secret counts as one: the password of a user, and each value of the query whose key is
    not known to hold none. A URL that can be read in more than one way, such as one with ``@`` or ``/`` in its password, is shown as its
    scheme alone.

    Args:
        text: as it was typed.
    """

    _text: str = field(repr=False)

    def reveal(self) -> str:
        """The text itself, to connect by."""
        return self._text

    def __str__(self) -> str:
        return self._read[0]

    def __repr__(self) -> str:
        return f"StorageUrl({str(self)!r})"

    @property
    def is_url(self) -> bool:
        """Whether it is a URL, and no path."""
        return _URL.fullmatch(self._text) is not None

    @property
    def is_unclear(self) -> bool:
        """Whether it can be read in more than one way, or is neither a URL nor a path that anybody would choose."""
        return self._read[1] is None

    @property
    def has_secret(self) -> bool:
        """Whether something of it is hidden."""
        return self._read[1] != ()

    def hide(self, message: str) -> str:
        """A message, such as a driver's, without the secrets in any form that it may quote them in; of an unclear one nothing is left."""
        if self._read[1] is None:
            return HIDDEN
        for form in sorted({form for secret in self._read[1] for form in _forms(secret)}, key=len, reverse=True):
            message = message.replace(form, HIDDEN)
        return message

    @cached_property
    def _read(self) -> tuple[str, tuple[str, ...] | None]:
        """How it is shown, and the secrets; None where nobody knows what they are."""
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
        if not is_file and re.search("=|://", unquote(path)):  # what libpq connects by may be the name of a database
            secrets.append(path[1:])
            path = f"/{HIDDEN}"
        who = "" if user is None else f"{user}@" if password is None else f"{user}:{HIDDEN}@"
        shown = f"{scheme}://{who}{read['hosts']}{path}{mark}{'&'.join(_shown_query(query, secrets))}"
        return shown, tuple(secrets)


def _shown_query(query: str, secrets: list[str]) -> Iterator[str]:
    """Each part of a query as it is shown; what is hidden is added to ``secrets``."""
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
    """How messages quote a secret: whole or a value in it, as it is or decoded, written by the rules of URLs, JSON, Python and libpq."""
    plain = {secret, unquote(secret), unquote_plus(secret)}
    plain |= {value.strip("'{}") for each in plain for pattern in _VALUES for value in pattern.findall(each)}
    percent = {form for each in plain for form in (quote(each, safe=""), quote_plus(each), quote(each, safe=" +"))}
    percent |= {_CODES.sub(lambda code: code[0].lower(), each) for each in percent}
    escaped = {form for each in plain for form in (repr(each)[1:-1], json.dumps(each)[1:-1], each.replace("\\", r"\\").replace("'", r"\'"))}
    return (plain | percent | escaped) - {""}
