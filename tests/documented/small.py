"""How pages are run in minutes: what is smaller than in the pages, what they begin with, and what does not run here.

A change makes sizes smaller, and leaves every option where it stands.
"""

from __future__ import annotations

import shlex

from tests.commands import commands_by_name

__all__ = [
    "KINDS",
    "NOT_RUN",
    "SMALLER_OPTIONS",
    "SMALLER_TEXTS",
    "STAND_INS",
    "STATUS",
    "kind_of",
    "small_command",
    "small_text",
    "stays",
    "words_of",
]

SMALLER_TEXTS = {
    "ofa-mbv3-w1.0": "ofa-mbv3-tiny",
    "3x224x224": "3x32x32",
    "3, 224, 224": "3, 32, 32",
    "96,128,160x96": "16,24,32x24",
    "depth=2,3": "depth=1,2",
    "epochs = 36": "epochs = 5",
    "nets=60": "nets=12",
    "--nets 60": "--nets 12",
    "--nets 300": "--nets 12",
    "0.04ms": "40ms",
    "phone=10ms..12ms": "phone=1us..12ms",
    "budget_ms=0.04": "budget_ms=40",
    "--trials 100": "--trials 3",
    "--trials 200": "--trials 4",
    "--workers 4": "--workers 2",
    "-n 16": "-n 10",
    "--accuracy 76%": "--accuracy 1%",
    "least_accuracy=0.76": "least_accuracy=0.01",
    "--pause 100ms": "--pause 1ms",
    "pause_ms=100": "pause_ms=1",
    "pause_ms = 100 ": "pause_ms = 0 ",
}
"""Texts of blocks, and what stands there in their place."""

SMALLER_OPTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "train": (("--set", "workers=0"),),
    "train small-budget": (("--set", "progressive_shrinking.epochs=5"), ("--set", "fractions=[0.4, 0.3, 0.3]"), ("--set", "batch_size=16")),
    "train adopt": (("--set", "adopt.epochs=1"), ("--set", "fractions=[0.4, 0.3, 0.3]"), ("--set", "batch_size=16")),
    "predictor fit": (("--rounds", "0"), ("--nets", "12")),
    "search --predictor": (("--evaluations", "2000"),),
    "search --supernet": (("--evaluations", "0"), ("--trials", "6")),
    "specialize": (("--epochs", "1"),),
    "table check": (("--nets", "9"),),
}
"""Settings that a command, or one with that first argument, has here and its page leaves at their defaults."""

STATUS: dict[str, int] = {}
"""Commands that do not end with 0, and with what."""

STAND_INS: dict[tuple[str, str], str] = {
    ("docs/adopting.md", "from ofa import adopt"): "import torch; from my_nets import resnet; model = resnet()",
    ("docs/devices.md", "from devices import RUNTIMES, TRANSPORTS"): (
        "from devices import Fake as Adb; from devices.runtimes.fake import FakeRuntime as LiteRt\n"
        "def tflite_of_onnx(content): return content"
    ),
}
"""What a reader has who copies a block of Python, by its page and its first line."""

KINDS = {
    "make": "the targets are held by the Makefile",
    "pip install": "it needs other people's downloads",
    "torchrun": "it needs several processes or GPUs; tests/ofa/training has that",
    "python benchmarks/": "it takes hours, or needs other people's data; the options are looked up in the script",
    "PEER/bin/python": "it needs MIT's package in an environment of its own",
}
"""How commands begin that no test runs, and why; what can be seen of them without is held by ``test_not_run``."""

NOT_RUN = {
    "ofa demo -o demo": "it takes two minutes; tests/cli/test_demo.py runs it, among the slow tests",
    "ofa search --supernet run --table pi.parquet --trials 200 --storage postgresql://me@host/db -o shared.parquet": (
        "it needs a server of PostgreSQL; tests/search/test_study_servers.py has one where it is installed"
    ),
}
"""Commands that do not run here, as their pages have them, and why; their options are parsed."""


def kind_of(command: str) -> str | None:
    """How a command begins that no test runs; None if it runs."""
    return next((kind for kind in KINDS if command == kind or command.startswith((kind if kind.endswith("/") else f"{kind} "))), None)


def stays(command: str) -> bool:
    """Whether a command is none that runs here."""
    return command in NOT_RUN or kind_of(command) is not None


def small_text(text: str) -> str:
    """A block with smaller sizes."""
    for old, new in SMALLER_TEXTS.items():
        text = text.replace(old, new)
    return text


def words_of(arguments: list[str]) -> tuple[str, list[str]]:
    """The words of a command of ``ofa``, such as ``table build``, and what follows them."""
    known = commands_by_name()
    for length in (3, 2, 1):
        if (words := " ".join(arguments[:length])) in known:
            return words, arguments[length:]
    return "", arguments


def small_command(command: str) -> str:
    """A command with smaller sizes: as documented, with further settings at its end."""
    small = small_text(command)
    if not small.startswith("ofa "):
        return small
    words, rest = words_of(shlex.split(small)[1:])
    further = SMALLER_OPTIONS.get(words, ()) + SMALLER_OPTIONS.get(f"{words} {rest[0]}" if rest else "", ())
    added = [pair for pair in further if pair[0] == "--set" or pair[0] not in rest]
    return " ".join([small, *(f"{option} {shlex.quote(value)}" for option, value in added)])
