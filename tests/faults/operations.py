"""Every operation of a process that changes files, heard of before it is done: allowed, refused with an error, or the process killed.

The kernel tells (``seccomp`` user notification, Linux 5.19), so nothing is missed that a library in C++ or Rust writes, and nothing in
the process is replaced. The filter is inherited: operations of all descendants are heard of too.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Listener", "Operation", "can_listen", "install"]

_PATH, _FD, _DIR_FD = "path", "descriptor", "path below a descriptor"

_CALLS = {
    "x86_64": {
        "write": (1, _FD), "pwrite64": (18, _FD), "writev": (20, _FD), "pwritev": (296, _FD), "sendfile": (40, _FD),
        "copy_file_range": (326, _FD), "ftruncate": (77, _FD), "fallocate": (285, _FD), "fsync": (74, _FD), "fdatasync": (75, _FD),
        "fchmod": (91, _FD), "truncate": (76, _PATH), "rename": (82, _PATH), "unlink": (87, _PATH), "mkdir": (83, _PATH),
        "rmdir": (84, _PATH), "link": (86, _PATH), "symlink": (88, _PATH), "chmod": (90, _PATH), "open": (2, _PATH), "creat": (85, _PATH),
        "openat": (257, _DIR_FD), "renameat": (264, _DIR_FD), "renameat2": (316, _DIR_FD), "unlinkat": (263, _DIR_FD),
        "mkdirat": (258, _DIR_FD), "linkat": (265, _DIR_FD), "symlinkat": (266, _DIR_FD), "fchmodat": (268, _DIR_FD),
    },
    "aarch64": {
        "write": (64, _FD), "pwrite64": (68, _FD), "writev": (66, _FD), "pwritev": (70, _FD), "sendfile": (71, _FD),
        "copy_file_range": (285, _FD), "ftruncate": (46, _FD), "fallocate": (47, _FD), "fsync": (82, _FD), "fdatasync": (83, _FD),
        "fchmod": (52, _FD), "truncate": (45, _PATH),
        "openat": (56, _DIR_FD), "renameat": (38, _DIR_FD), "renameat2": (276, _DIR_FD), "unlinkat": (35, _DIR_FD),
        "mkdirat": (34, _DIR_FD), "linkat": (37, _DIR_FD), "symlinkat": (36, _DIR_FD), "fchmodat": (53, _DIR_FD),
    },
}  # fmt: skip
_KINDS = {
    "make": {"creat", "mkdir", "mkdirat", "link", "linkat", "symlink", "symlinkat"},
    "write": {"write", "pwrite64", "writev", "pwritev", "sendfile", "copy_file_range", "fallocate", "ftruncate", "truncate"},
    "sync": {"fsync", "fdatasync"},
    "rename": {"rename", "renameat", "renameat2"},
    "remove": {"unlink", "unlinkat", "rmdir"},
    "change mode": {"chmod", "fchmod", "fchmodat"},
}
_KIND_OF = {call: kind for kind, calls in _KINDS.items() for call in calls}
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
"""Flags of which an opening that changes files has one."""

# Of <linux/seccomp.h>, <linux/filter.h> and <linux/prctl.h>.
_MODE_FILTER, _NEW_LISTENER, _WAIT_KILLABLE = 1, 1 << 3, 1 << 5
_TELL, _ALLOW, _CONTINUE = 0x7FC00000, 0x7FFF0000, 1
_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER_AT, _ARGUMENTS_AT = 0, 16
_NO_NEW_PRIVILEGES = 38
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTIFICATION, _ANSWER = struct.Struct("QIIiIQ6Q"), struct.Struct("QqiI")


def can_listen() -> bool:
    """Whether this machine's kernel tells, and lets this user ask: containers may not."""
    if sys.platform != "linux" or platform.machine() not in _CALLS:
        return False
    asking = "from tests.faults.operations import install; install()"
    return subprocess.run([sys.executable, "-c", asking], cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL).returncode == 0


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("if_true", ctypes.c_uint8), ("if_false", ctypes.c_uint8), ("value", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def install() -> int:
    """Have this process and its descendants tell; returns the descriptor for a ``Listener``, who must be another process.

    Raises:
        OSError: the kernel refuses.
    """
    steps = [(_LOAD, 0, 0, _NUMBER_AT)]
    for name, (number, _) in _CALLS[platform.machine()].items():
        if name in ("open", "openat"):  # only those that may change something
            flags_at = _ARGUMENTS_AT + 8 * (2 if name == "openat" else 1)
            steps += [(_JUMP_EQUAL, 0, 4, number), (_LOAD, 0, 0, flags_at), (_JUMP_SET, 0, 1, _WRITING), (_RETURN, 0, 0, _TELL)]
            steps += [(_RETURN, 0, 0, _ALLOW)]
        else:
            steps += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _TELL)]
    steps += [(_RETURN, 0, 0, _ALLOW)]
    program = _Program(len(steps), (_Instruction * len(steps))(*(_Instruction(*step) for step in steps)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel must take back privileges")
    flags = _NEW_LISTENER | _WAIT_KILLABLE
    descriptor = libc.syscall(_SECCOMP[platform.machine()], _MODE_FILTER, flags, ctypes.byref(program))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "the kernel must tell of system calls")
    return int(descriptor)


@dataclass(frozen=True)
class Operation:
    """An operation that waits for an answer.

    Attributes:
        call: name of the system call.
        kind: "make", "open" (for writing, what may be there), "write", "sync", "rename", "remove" or "change mode".
        path: the file, or the first of two.
        to: where it is renamed to or linked from; None otherwise.
        process: which does it.
    """

    call: str
    kind: str
    path: Path
    to: Path | None
    process: int
    ticket: int


class Listener:
    """Hears of the operations below some folders; all others are allowed at once.

    Args:
        descriptor: of ``install``, received from the process.
        folders: absolute, without symbolic links.
    """

    def __init__(self, descriptor: int, folders: tuple[Path, ...]) -> None:
        self._descriptor, self._folders = descriptor, folders
        self._names = {number: (name, kind) for name, (number, kind) in _CALLS[platform.machine()].items()}
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def next(self, seconds: float) -> Operation | None:
        """The next operation.

        Raises:
            EOFError: the process and all its descendants have ended.
            TimeoutError: there was none for so long.
        """
        found = self._poll.poll(max(0, 1000 * seconds))
        if not found:
            raise TimeoutError
        if not found[0][1] & select.POLLIN:
            raise EOFError
        block = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self._descriptor, _RECEIVE, block)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # who waited was killed
                return None
            raise
        ticket, process, _, number, _, _, *arguments = _NOTIFICATION.unpack(block)
        try:
            operation = self._operation(ticket, process, *self._names[number], arguments)
        except OSError:  # it was killed meanwhile
            return None
        if operation is None or not any(path.is_relative_to(folder) for path in _paths(operation) for folder in self._folders):
            self._answer(ticket, 0, _CONTINUE)
            return None
        return operation

    def allow(self, operation: Operation) -> None:
        """Let it be done."""
        self._answer(operation.ticket, 0, _CONTINUE)

    def refuse(self, operation: Operation, code: int) -> None:
        """Let it fail with an error of the system, such as ``errno.ENOSPC``."""
        self._answer(operation.ticket, -code, 0)

    def close(self) -> None:
        """Hear no more; operations of those who still run fail with ENOSYS."""
        os.close(self._descriptor)

    def _answer(self, ticket: int, code: int, flags: int) -> None:
        try:
            fcntl.ioctl(self._descriptor, _SEND, _ANSWER.pack(ticket, 0, code, flags))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINPROGRESS):  # it was killed meanwhile
                raise

    def _operation(self, ticket: int, process: int, call: str, named_by: str, arguments: list[int]) -> Operation | None:
        to = None
        if named_by == _FD:
            held = os.readlink(f"/proc/{process}/fd/{arguments[2] if call == 'copy_file_range' else arguments[0]}")
            if not held.startswith("/"):  # a pipe or a socket
                return None
            path = Path(held.removesuffix(" (deleted)"))
        elif named_by == _PATH:
            path = _path(process, None, arguments[0])
            to = _path(process, None, arguments[1]) if call in ("rename", "link", "symlink") else None
        else:
            path = _path(process, arguments[0], arguments[1])
            to = _path(process, arguments[2], arguments[3]) if call in ("renameat", "renameat2", "linkat") else None
        flags = {"open": arguments[1], "openat": arguments[2]}.get(call)
        kind = _KIND_OF[call] if flags is None else "make" if flags & os.O_CREAT else "open"
        return Operation(call, kind, path, to, process, ticket)


def _paths(operation: Operation) -> list[Path]:
    return [path for path in (operation.path, operation.to) if path is not None]


def _path(process: int, folder: int | None, address: int) -> Path:
    """The path that a process names, by the address of its text and the folder that it is relative to."""
    with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        # As much as is certainly mapped: to the end of the page, and then one more.
        text = memory.read(4096 - address % 4096)
        if b"\0" not in text:
            text += memory.read(4096)
    named = os.fsdecode(text.split(b"\0", 1)[0])
    current = folder is None or ctypes.c_int32(folder).value == -100  # AT_FDCWD
    return Path(os.path.normpath(os.path.join(os.readlink(f"/proc/{process}/{'cwd' if current else f'fd/{folder}'}"), named)))
