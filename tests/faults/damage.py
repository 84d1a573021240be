"""Damaged files by the thousand: what may happen to a file, every reader of the project, and what each says of it.

    python -m tests.faults.damage PLACES READER FIRST COUNT

reads ``READER``'s file of ``PLACES`` as damage FIRST, FIRST + 1, ... leaves it, and prints a line of JSON for each.
"""

from __future__ import annotations

import json
import queue
import random
import re
import subprocess
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.errors import OfaError
from ofa.seal import BLANK_SEAL, seal

ROOT = Path(__file__).parents[2]
FINE = ("refused", "right", "unseen")

# -- what happens to bytes ---------------------------------------------------------------------------------------------

Damage = Callable[[bytearray, random.Random, bytes], bytes]


def _flip(content: bytearray, chance: random.Random, _: bytes) -> bytes:
    for _number in range(chance.choice((1, 1, 1, 2, 8, 64))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def _part(content: bytearray, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(content))
    return start, min(len(content), start + chance.choice((1, 4, 16, 64, 512, 4096)))


def _cut(content: bytearray, chance: random.Random, _: bytes) -> bytes:
    return bytes(content[: chance.randrange(len(content))])


def _beheaded(content: bytearray, chance: random.Random, _: bytes) -> bytes:
    return bytes(content[chance.randrange(1, len(content) + 1) :])


def _zeroed(content: bytearray, chance: random.Random, _: bytes) -> bytes:
    start, end = _part(content, chance)
    content[start:end] = bytes(end - start)
    return bytes(content)


def _randomized(content: bytearray, chance: random.Random, _: bytes) -> bytes:
    start, end = _part(content, chance)
    content[start:end] = chance.randbytes(end - start)
    return bytes(content)


def _left_out(content: bytearray, chance: random.Random, _: bytes) -> bytes:
    start, end = _part(content, chance)
    return bytes(content[:start] + content[end:])


def _inserted(content: bytearray, chance: random.Random, _: bytes) -> bytes:
    start, end = _part(content, chance)
    return bytes(content[:start]) + chance.randbytes(end - start) + bytes(content[start:])


def _doubled(content: bytearray, chance: random.Random, _: bytes) -> bytes:
    start, end = _part(content, chance)
    return bytes(content[:end] + content[start:])


def _swapped(content: bytearray, chance: random.Random, _: bytes) -> bytes:
    (a, b), (c, d) = sorted((_part(content, chance), _part(content, chance)))
    b = min(b, c)
    return bytes(content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:])


def _spliced(content: bytearray, chance: random.Random, other: bytes) -> bytes:
    start, end = _part(content, chance)
    place = chance.randrange(len(other) or 1)
    content[start:end] = other[place : place + end - start]
    return bytes(content)


def _another(content: bytearray, chance: random.Random, other: bytes) -> bytes:
    return other


def _noise(content: bytearray, chance: random.Random, _: bytes) -> bytes:
    return chance.randbytes(chance.randrange(2000))


BYTES: Mapping[str, Damage] = {
    function.__name__.strip("_"): function
    for function in (
        *(_flip, _flip, _cut, _beheaded, _zeroed, _randomized, _left_out, _inserted, _doubled, _swapped, _spliced, _another, _noise),
    )
}
"""What disks, copies and editors do."""

# -- what happens to values --------------------------------------------------------------------------------------------

_EXTREMES = ("0", "-1", "1e308", "1e999", "-1e999", "NaN", "99999999999999999999", "9" * 5000, "0.1", "2147483648", "-9223372036854775809")
_VALUES = (
    "null",
    "true",
    "[]",
    "{}",
    '""',
    '"words"',
    "[[]]",
    '"\\ud800"',
    "[null]",
    '{"": 0}',
    '"' + "x" * 2000 + '"',
    "[" * 200 + "]" * 200,
)
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_KEY = re.compile(r'"(?:[^"\\]|\\.)*"\s*:\s*|^\w+\s*[=:]\s*', re.MULTILINE)
_SEALED = re.compile(rb"ofa-seal:[0-9a-f]{64}")


def restructured(text: str, chance: random.Random) -> str:
    """A text of JSON, TOML, YAML or CSV with some values replaced by extreme ones or by those of another kind, or without a key."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        pattern, choices = chance.choice(
            ((_NUMBER, _EXTREMES), (_NUMBER, _VALUES), (_STRING, _VALUES + _EXTREMES), (_KEY, ("", '"x": ', "x = ")))
        )
        found = list(pattern.finditer(text))
        if found:
            match = chance.choice(found)
            text = text[: match.start()] + chance.choice(choices) + text[match.end() :]
    return text


def _restructured_text(content: bytes, chance: random.Random) -> bytes:
    return restructured(content.decode("utf-8"), chance).encode("utf-8", "surrogatepass")


def _restructured_tensors(content: bytes, chance: random.Random) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header = _restructured_text(content[8 : 8 + length], chance)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def _restructured_parquet(content: bytes, chance: random.Random) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(content))
    metadata = dict(table.schema.metadata or {})
    for key, value in metadata.items():
        if chance.random() < 0.7:
            metadata[key] = _restructured_text(value, chance)
    if chance.random() < 0.6:
        number = chance.randrange(table.num_columns)
        count = table.num_rows
        made: tuple[Any, ...] = ([None] * count, [1.5] * count, [-(2**62)] * count, ["words"] * count, [[1]] * count, [b"\xff"] * count)
        made = (*made, [float("nan")] * count, [True] * count, ["[" * 100] * count, ['{"kind": 1}'] * count, [{"a": 1}] * count)
        name = table.column_names[number] if chance.random() < 0.8 else "other"
        table = table.set_column(number, name, pa.array(chance.choice(made)))
    if chance.random() < 0.2:
        table = table.slice(0, chance.choice((0, 1)))
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink)
    return bytes(sink.getvalue().to_pybytes())


STRUCTURES: Mapping[str, Callable[[bytes, random.Random], bytes]] = {
    "text": _restructured_text,
    "tensors": _restructured_tensors,
    "parquet": _restructured_parquet,
}
"""What strangers and careless editors do; the checksum is put right afterwards."""

# -- readers -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A function that reads a file.

    Attributes:
        file: that it reads, among those of ``make_places``.
        read: gives what is compared of the content; argument is the path of the file, whose neighbours are whole.
        sealed: whether the file carries a checksum, so that no damage may go unseen.
        structure: how its values are damaged; empty where there are none.
        same: whether what was read of a damaged file is right.
    """

    file: str
    read: Callable[[Path], Any]
    sealed: bool = False
    structure: str = ""
    same: Callable[[Any, Any], bool] = lambda whole, read: bool(whole == read)


def damaged(content: bytes, number: int, reader: Reader, other: bytes) -> tuple[str, bytes, bool]:
    """One damage of many: its kind, what it leaves, and whether a checksum still tells it from the whole file."""
    chance = random.Random(number)
    if reader.structure and number % 3 == 0:
        return f"{reader.structure} restructured", STRUCTURES[reader.structure](content, chance), False
    kind = chance.choice(list(BYTES))
    return kind, BYTES[kind](bytearray(content), chance, other), True


def attempt(reader: Reader, path: Path, whole: Any, content: bytes, number: int, other: bytes) -> tuple[str, str]:
    """What a reader makes of one damage: ``refused``, ``right``, ``unseen`` or ``other exception``, and of what kind it was."""
    kind, left, told = damaged(content, number, reader, other)
    if not told:
        left = _SEALED.sub(BLANK_SEAL.encode(), left)
    path.write_bytes(left)
    if not told:
        seal(path)
    try:
        read = reader.read(path)
    except OfaError as error:
        return ("refused" if str(error).strip() and "\n" not in str(error) else f"other exception: no sentence {error!r}"), kind
    except Exception as error:
        return f"other exception: {type(error).__name__}: {error}"[:300], kind
    if not told or left == content or reader.same(whole, read):
        return "right", kind
    return ("unseen" if not reader.sealed else "silently wrong"), kind


@dataclass(frozen=True)
class Outcome:
    """What came of many damages of one reader's file.

    Attributes:
        counts: of each result; ``hang`` and ``crash`` are of the process.
        wrong: numbers of the damages that must not come to what they came to, with it.
    """

    counts: Counter[str]
    wrong: dict[int, str]


def try_many(places: Path, name: str, first: int, count: int, *, most_s: float = 20.0) -> Outcome:
    """Try damages in a process of its own, which is replaced where one hangs or crashes it."""
    counts, wrong, number = Counter[str](), dict[int, str](), first
    while number < first + count:
        words = [sys.executable, "-m", "tests.faults.damage", str(places), name, str(number), str(first + count - number)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True) as process:
            for line in _lines(process, most_s):
                said = json.loads(line)
                number = said["number"] + 1
                counts[said["result"].partition(":")[0]] += 1
                if said["result"] not in FINE:
                    wrong[said["number"]] = f"{said['kind']}: {said['result']}"
            hung = process.poll() is None
            process.kill()
            if number < first + count:
                result = "hang" if hung else f"crash: {process.stderr.read()[-300:] if process.stderr else ''}"
                counts[result.partition(":")[0]] += 1
                wrong[number] = result
                number += 1
    return Outcome(counts, wrong)


def _lines(process: subprocess.Popen[str], most_s: float) -> Iterator[str]:
    """What a process prints, until it ends or is silent for too long; the first line may take longer, in which it starts."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    assert process.stdout is not None
    stdout = process.stdout

    def listen() -> None:
        for line in stdout:
            lines.put(line)
        lines.put("")

    threading.Thread(target=listen, daemon=True).start()
    patience = 120.0
    while True:
        try:
            line = lines.get(timeout=patience)
        except queue.Empty:
            return
        if not line:
            process.wait()
            return
        patience = most_s
        yield line


def main() -> int:
    """Try some damages of one reader's file and print what came of each."""
    from tests.faults.readers import READERS

    places, name, first, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    reader = READERS[name]
    path = places / reader.file
    content = path.read_bytes()
    others = [each.read_bytes() for each in sorted(places.rglob("*")) if each.is_file() and each != path][:40]
    warnings.simplefilter("error")
    whole = reader.read(path)
    for number in range(first, first + count):
        result, kind = attempt(reader, path, whole, content, number, others[number % len(others)])
        sys.stdout.write(json.dumps({"number": number, "result": result, "kind": kind}) + "\n")
        sys.stdout.flush()
    path.write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
