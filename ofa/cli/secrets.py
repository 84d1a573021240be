"""Keeps storage passwords out of files, and out of the process list, which every user of a machine may read."""

from __future__ import annotations

import os
import shlex
import sys
from itertools import pairwise

from ofa.storage_url import StorageUrl

__all__ = ["STORAGE_VARIABLE", "command_without_secrets", "leave_process_list", "take_storage"]

STORAGE_VARIABLE = "OFA_STORAGE"
"""Environment variable with the storage of a study and its password; only the same user may read the environment."""

_OPTION = "--storage"


def leave_process_list() -> None:
    """If an argument contains a secret, restart the command in the same process (exec) with the storage in the environment.

    Windows has no exec; there a password is safe only if the user sets the environment variable.
    """
    arguments, typed = sys.argv[1:], _typed(sys.argv)
    started = sys.orig_argv[: len(sys.orig_argv) - len(arguments)]
    hidden = [_without(typed, word) for word in arguments]
    if hidden != arguments and os.name == "posix" and sys.orig_argv == [*started, *arguments]:
        os.environ[STORAGE_VARIABLE] = typed[-1].reveal()
        os.execv(sys.executable, [sys.executable, *started[1:], *hidden])


def take_storage(typed: str | None) -> StorageUrl | None:
    """The typed storage, or the environment's, which is removed so that child processes do not inherit it."""
    text = os.environ.pop(STORAGE_VARIABLE, None)
    known = StorageUrl(text) if text else None
    return known if typed is None or typed == str(known) else StorageUrl(typed)


def command_without_secrets() -> str:
    """The command line, with the storage's password hidden."""
    typed = _typed(sys.argv)
    return shlex.join(["ofa", *(_without(typed, word) for word in sys.argv[1:])])


def _typed(words: list[str]) -> list[StorageUrl]:
    """The storages on a command line; the last one counts."""
    joined = f"{_OPTION}="
    texts = [word.removeprefix(joined) for option, word in pairwise(words) if option == _OPTION or word.startswith(joined)]
    return [StorageUrl(text) for text in texts]


def _without(storages: list[StorageUrl], word: str) -> str:
    for storage in storages:
        word = word.replace(storage.reveal(), str(storage)) if storage.has_secret else word
    return word
