"""What this machine's processor computes int8 by: the same file answers differently in its last bits, or saturates, with others."""

from __future__ import annotations

from pathlib import Path

__all__ = ["instructions", "saturates"]


def instructions() -> tuple[str, ...]:
    """Those of this machine's processor that int8 is computed by, where the system tells: with others the last bits of answers differ."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return ()
    return tuple(name for name in _INSTRUCTIONS if name in words)


_WIDE = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")


def saturates() -> bool:
    """Whether sums of two products of 8 bits are held in 16, and may overflow: so it is with processors of x86 that have no VNNI."""
    found = instructions()
    return "avx2" in found and _WIDE.isdisjoint(found)
