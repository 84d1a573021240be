"""Passwords of storages on the command line: out of the list of processes, which every user of a machine may read, and out of files."""

from __future__ import annotations

import os
import shlex
import sys
from itertools import pairwise

from ofa.storage_url import StorageUrl

__all__ = ["STORAGE_VARIABLE", "command_without_secrets", "leave_process_list", "take_storage"]

STORAGE_VARIABLE = "OFA_STORAGE"
"""In the environment, which only the same user may read: the storage of a study, with its password."""

_OPTION = "--storage"


def leave_process_list() -> None:
    """Start the command again, in the same process, with the storage in the environment where a secret is among the arguments.

    Windows has no such second start; there a password is safe in the environment alone.
    """
    arguments, typed = sys.argv[1:], _typed(sys.argv)
    started = sys.orig_argv[: len(sys.orig_argv) - len(arguments)]
    hidden = [_without(typed, word) for word in arguments]
    if hidden != arguments and os.name == "posix" and sys.orig_argv == [*started, *arguments]:
        os.environ[STORAGE_VARIABLE] = typed[-1].reveal()
        os.execv(sys.executable, [sys.executable, *started[1:], *hidden])


def take_storage(typed: str | None) -> StorageUrl | None:
    """The storage that was typed, or else the environment's, which no process that is started from here inherits."""
    text = os.environ.pop(STORAGE_VARIABLE, None)
    known = StorageUrl(text) if text else None
    return known if typed is None or typed == str(known) else StorageUrl(typed)


def command_without_secrets() -> str:
    """The command as it was given, with its storage as it may be shown."""
    typed = _typed(sys.argv)
    return shlex.join(["ofa", *(_without(typed, word) for word in sys.argv[1:])])


def _typed(words: list[str]) -> list[StorageUrl]:
    """The storages of a command line, of which the last counts."""
    joined = f"{_OPTION}="
    texts = [word.removeprefix(joined) for option, word in pairwise(words) if option == _OPTION or word.startswith(joined)]
    return [StorageUrl(text) for text in texts]


def _without(storages: list[StorageUrl], word: str) -> str:
    for storage in storages:
        word = word.replace(storage.reveal(), str(storage)) if storage.has_secret else word
    return word
