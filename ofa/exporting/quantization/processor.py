"""Instruction sets of this machine's processor for int8: outputs of a file differ between them in the last bits, or saturate."""

from __future__ import annotations

from pathlib import Path

__all__ = ["instructions", "saturates"]


def instructions() -> tuple[str, ...]:
    """The processor's instruction sets that int8 is computed with; empty if the system does not tell."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return ()
    return tuple(name for name in _INSTRUCTIONS if name in words)


_WIDE = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")


def saturates() -> bool:
    """Whether sums of two 8-bit products are held in 16 bits and may overflow: true of x86 processors without VNNI."""
    found = instructions()
    return "avx2" in found and _WIDE.isdisjoint(found)
