"""Files of lines, and what damage to them costs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ofa.errors import FileError
from ofa.lines import Lines, as_line, parse_lines
from tests.disk import room_for

ENTRIES = tuple({"row": {"block": f"b{number}", "ms": number / 7}, "note": 'a "crc": "quoted"} text\n'} for number in range(6))


def written(tmp_path: Path) -> Lines:
    lines = Lines(tmp_path / "it.jsonl")
    for entry in ENTRIES:
        lines.append(entry)
    return lines


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    assert Lines(tmp_path / "none").read().entries == ()
    found = written(tmp_path).read()
    assert (found.entries, found.damaged) == (ENTRIES, 0)
    assert all(json.loads(line)["crc"] for line in (tmp_path / "it.jsonl").read_text().splitlines())


def test_a_flipped_bit_costs_at_most_its_line_and_is_noticed() -> None:
    content = b"".join(map(as_line, ENTRIES))
    ends = [place for place, byte in enumerate(content) if byte == ord("\n")]
    for place in range(len(content)):
        for bit in (0, 3, 5):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            found = parse_lines(bytes(damaged))
            if found.entries == ENTRIES:
                assert place in ends, "only what ends a line may be another unnoticed, for its checksum tells where it ends"
                continue
            number = sum(end < place for end in ends)
            assert found.entries == ENTRIES[:number] + ENTRIES[number + 1 :]
            assert found.damaged == (1 if place != len(content) - 1 else 0), "the last line without its end is one not yet written"


@pytest.mark.parametrize("how", ["cut out", "twice", "zeros", "swapped", "inserted"])
def test_larger_damage_never_gives_other_entries(how: str) -> None:
    content, rng = b"".join(map(as_line, ENTRIES)), np.random.default_rng(0)
    for _ in range(300):
        a, b, c = sorted(rng.integers(0, len(content), 3).tolist())
        damaged = {
            "cut out": content[:a] + content[b:],
            "twice": content[:b] + content[a:],
            "zeros": content[:a] + bytes(b - a) + content[b:],
            "swapped": content[:a] + content[b:c] + content[a:b] + content[c:],
            "inserted": content[:a] + rng.bytes(20) + content[a:],
        }[how]
        found = parse_lines(damaged)
        assert all(entry in ENTRIES for entry in found.entries)
        assert found.damaged or content.startswith(b"".join(map(as_line, found.entries))) or damaged.endswith(b"\n")


def test_half_a_line_goes_before_the_next(tmp_path: Path) -> None:
    lines = written(tmp_path)
    whole = lines.path.read_bytes()
    for cut in (1, 5, 30):
        lines.path.write_bytes(whole[:-cut])
        found = lines.read()
        assert (found.entries, found.damaged) == (ENTRIES[:-1], 0)
        lines.append(ENTRIES[-1])
        assert lines.path.read_bytes() == whole


def test_lines_of_earlier_versions_have_no_checksum(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "it.jsonl")
    lines.path.write_text('{"loss": NaN}\r\n\n[1]\n{"loss": 2.0}\n' + "[" * 100_000 + "\n")
    assert lines.read().damaged == 2
    lines.append({"loss": 3.0})
    found = lines.read()
    assert math.isnan(found.entries[0]["loss"])
    assert (found.entries[1:], found.damaged) == (({"loss": 2.0}, {"loss": 3.0}), 0)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    lines = written(tmp_path)
    before = lines.path.read_bytes()
    with room_for(len(before) + 20), pytest.raises(FileError, match=r"it\.jsonl' must be writable, but file too large"):
        lines.append(ENTRIES[0])
    assert lines.path.read_bytes() == before
