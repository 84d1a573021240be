"""Hostile files, each of which must be refused in little time and memory.

    python -m tests.faults.bounds PLACES

reads each in a process of its own, forked from one that has all modules, and prints a line of JSON for each.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ofa.errors import OfaError
from tests.faults.damage import Reader

MOST_S, MOST_BYTES = 2.0, 300 * 2**20
"""What a refused file may cost above the idle process."""
_LIMIT_S = 20

Write = Callable[[Path], None]


def _text(text: str | bytes) -> Write:
    def write(path: Path) -> None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))

    return write


def _socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{folder}/{path.name}")  # a name of a socket has at most 107 bytes
    os.close(folder)


def _hole(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


def _hole_after(start: bytes) -> Write:
    def write(path: Path) -> None:
        path.write_bytes(start)
        os.truncate(path, 2**40)

    return write


STRANGE: Mapping[str, Write] = {
    "a pipe": lambda path: os.mkfifo(path),
    "a device without end": lambda path: path.symlink_to("/dev/zero"),
    "a device that is full": lambda path: path.symlink_to("/dev/full"),
    "a folder": lambda path: path.mkdir(),
    "a socket": _socket,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a hole of a terabyte": _hole,
    "lists a million deep": _text("[" * 10**6),
    "objects a million deep": _text('{"a":' * 10**6),
    "a line of thirty million": _text("x" * 3 * 10**7),
    "commas": _text("arch,accuracy,measured_ms\n" + "," * 3 * 10**7),
    "quotes": _text('arch,accuracy,measured_ms\n"' + "\n" * 3 * 10**7),
    "a digit a million times": _text('{"a": ' + "9" * 10**6 + "}"),
}
"""What may stand in place of any file."""

JSON: Mapping[str, Write] = {
    "many objects": _text("[" + "{}," * 10**6 + "{}]"),
    "a number beyond floats": _text('{"resolution": 1e999}'),
    "half a character": _text('{"space": "\\ud800"}'),
    "a resolution of a thousand digits": _text(json.dumps({"space": "ofa-mbv3-tiny", "resolution": "9" * 5000, "stages": []})),
    "a stage of a million blocks": _text(json.dumps({"space": "ofa-mbv3-tiny", "resolution": 16, "stages": [[{}] * 300_000]})),
}
TOML: Mapping[str, Write] = {
    "dotted keys": _text("a." * 200_000 + "b = 1"),
    "quoted dotted keys": _text('"a, ".' * 80_000 + "b = 1"),
    "tables in a row": _text("".join(f"[t{number}]\n" for number in range(40_000))),
    "lists in lists": _text("a = " + "[" * 200_000),
}
YAML: Mapping[str, Write] = {
    "merges": _text("".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" if n else "a0: &a0 {x: 1}\n" for n in range(20))),
    "aliases": _text("".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" if n else "a0: &a0 [x]\n" for n in range(20))),
    "base 60": _text("a: 1" + ":1" * 300_000),
    "many values": _text("[" + "1," * 400_000 + "1]"),
    "many keys": _text("".join(f"k{number}: 1\n" for number in range(80_000))),
}


def _table(column: pa.Array, **how: object) -> Write:
    return lambda path: pq.write_table(pa.table({"image": column, "label": column}), path, **how)


def _repeated(path: Path) -> None:
    array = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10**6, np.int32)), pa.array([b"x" * 100_000]))
    schema = pa.schema([("image", array.type), ("label", pa.int64())])
    with pq.ParquetWriter(path, schema) as writer:
        writer.write_table(pa.table({"image": array, "label": pa.array(np.zeros(10**6, np.int64))}, schema))


PARQUET: Mapping[str, Write] = {
    "pages that decompress": _table(pa.array([b"x" * 10**6] * 300), use_dictionary=False, compression="zstd", data_page_size=2**30),
    "a value a million times": _repeated,
    "rows without end": _table(pa.array(np.zeros(4 * 10**7, np.int8))),
    "a thousand columns": lambda path: pq.write_table(pa.table({f"c{number}": [1] for number in range(3000)}), path),
    "a footer of its own size": _text(b"PAR1" + bytes(1000) + struct.pack("<I", 2**31 - 1) + b"PAR1"),
}


def _archive(pickled: bytes, **entries: bytes) -> Write:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, content in {"data.pkl": pickled, "version": b"3\n", "byteorder": b"little", **entries}.items():
                archive.writestr(f"x/{name}", content, zipfile.ZIP_DEFLATED if len(content) > 10**7 else None)

    return write


PICKLES: Mapping[str, Write] = {
    "an archive that inflates": _archive(b"\x80\x02}.", **{"data/0": bytes(10**8)}),
    "lists without end": _archive(b"\x80\x02" + b"]" * 10**6 + b"."),
    "lists within lists": _archive(b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"."),
    "bytes of any length": _archive(b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R."),
    "itself": _archive(b"\x80\x02}q\x00X\x0a\x00\x00\x00state_dicth\x00s."),
    "an older file of lists": _text(b"\x80\x02" + b"]" * 10**7 + b"."),
    "an older file of one text": _text(b"\x80\x02X\xff\xff\xff\x7f" + bytes(1000)),
    "a memo without end": _text(b"\x80\x02]r\xff\xff\xff\xff."),
}


def _header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


TENSORS: Mapping[str, Write] = {
    "a header of any length": _text(_header(b"{}", 2**62)),
    "a header a million deep": _text(_header(b"[" * 10**6)),
    "tensors without end": _text(
        _header(b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % number for number in range(30_000)) + b"}")
    ),
    "a tensor of a terabyte": _hole_after(_header(b'{"a":{"dtype":"U8","shape":[1099511627000],"data_offsets":[0,1099511627000]}}')),
    "a shape beyond all": _text(_header(b'{"a":{"dtype":"F32","shape":[4611686018427387904,4,0],"data_offsets":[0,0]}}')),
}
ONNX: Mapping[str, Write] = {
    "nodes without end": lambda path: _text(_field(7, b"\x0a\x00" * 10**7))(path),
    "a graph in a graph": lambda path: _text(_nested(2000))(path),
}


def _field(number: int, content: bytes) -> bytes:
    length, out = len(content), bytearray([number << 3 | 2])
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    return bytes(out) + bytes([length]) + content


def _nested(depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = _field(7, _field(1, _field(5, _field(6, content))))  # graph, node, attribute, graph
    return content


def _png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> Write:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = b"".join(chunk(name, content) for name, content in (*chunks, (b"IDAT", zlib.compress(bytes(1000)))))
    return _text(b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b""))


_ALL = 2**31 - 1
IMAGES: Mapping[str, Write] = {
    "ten thousand million pixels": _png(100_000, 100_000),
    "pixels beyond all": _png(2**31 - 1, 2**31 - 1),
    "a text that inflates": _png(8, 8, *[(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))] * 4),
    "a profile that inflates": _png(8, 8, (b"iCCP", b"a\0\0" + zlib.compress(bytes(10**9)))),
    "a bitmap of any size": _text(b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, _ALL, _ALL, 1, 24, *[0] * 6)),
    "a film of any size": _text(
        b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"\x2c" + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b";"
    ),
}

FORMATS: Mapping[str, Mapping[str, Write]] = {
    ".json": JSON,
    ".toml": TOML,
    ".yaml": YAML,
    ".parquet": PARQUET,
    "": PARQUET,
    ".pth": PICKLES,
    ".safetensors": TENSORS,
    ".onnx": ONNX,
    **{f".{ending}": IMAGES for ending in ("png", "bmp", "gif")},
}


def hostile(reader: Reader) -> Mapping[str, Write]:
    """What is written in place of a reader's file."""
    return {**STRANGE, **FORMATS.get(Path(reader.file).suffix, {})}


def measured(read: Callable[[], object]) -> tuple[str, float, int]:
    """What reading came to, its seconds, and its greatest memory in bytes, in a process forked for it."""
    start = time.monotonic()
    out, into = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(_LIMIT_S)
        try:
            read()
            result = "read"
        except OfaError as error:
            result = f"refused: {error}"
        except BaseException as error:
            result = f"other exception: {type(error).__name__}: {error}"
        os.write(into, result.encode("utf-8", "replace")[:2000])
        os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as said:
        words = said.read().decode()
    _, status, usage = os.wait4(child, 0)
    return words if not status else f"killed: {status}", time.monotonic() - start, usage.ru_maxrss * 1024


def all_measured(places: Path, names: Iterator[str] | None = None) -> Iterator[tuple[str, str, str, float, int]]:
    """Reader, kind of file, result, seconds and bytes above the idle process, of every hostile file."""
    from tests.faults.readers import READERS

    for name in names or READERS:
        reader = READERS[name]
        path = places / reader.file
        content = path.read_bytes()
        reader.read(path)  # what is imported late is not of the file
        for kind, write in hostile(reader).items():
            path.unlink()
            write(path)
            _, _, idle = measured(lambda: None)
            result, seconds, most = measured(lambda reader=reader, path=path: reader.read(path))  # type: ignore[misc]
            yield name, kind, result, seconds, max(0, most - idle)
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
            path.write_bytes(content)


def main() -> int:
    """Print what each cost."""
    for name, kind, result, seconds, above in all_measured(Path(sys.argv[1]), iter(sys.argv[2:]) if sys.argv[2:] else None):
        sys.stdout.write(json.dumps({"reader": name, "kind": kind, "result": result, "seconds": round(seconds, 3), "bytes": above}) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
