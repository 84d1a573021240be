"""Files prove that they are whole, take their place whole, and leave nothing behind, whatever ends their writer."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ofa.files
from ofa.arch import Arch
from ofa.errors import DamagedError, FileError, OfaError
from ofa.exporting.bundle import load_bundle
from ofa.exporting.card import Card
from ofa.exporting.engine_record import EngineInfo, read_record, write_record
from ofa.exporting.onnx import export, read_model
from ofa.files import make_folder, remove_dead_folders, replacing, replacing_folder, settle, temporary_folder, write_json
from ofa.reading import read_json
from ofa.seal import BLANK_SEAL, SEAL_KEY, check_seal
from ofa.supernet import Supernet
from ofa.training import Recipe, begin_run, demo_recipe, load_run, save_run
from ofa.training.checkpoint import CONFIG, WEIGHTS
from ofa.weights import read_weights, write_weights
from search.front.front import Front
from search.predictor.accuracy_predictor import AccuracyPredictor
from search.report import read_source
from tests.search.fakes import SPACE
from tests.search.fronts import make_front
from tests.search.test_report import TABLE
from tests.test_full_disk import bundle, predictor

ENGINE = EngineInfo(flavour="tensorrt", version="10", inputs=(), outputs=(), engine_bytes=1, engine_sha256="0" * 64)


def engine_record(path: Path) -> None:
    write_record(ENGINE, path.with_suffix(""))


def one_layer(path: Path) -> None:
    export(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1)).eval(), (1, 3, 4, 4), path, metadata={"classes": "a, b"})


KINDS: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], object]]] = {
    "arch": ("a.json", SPACE.smallest().save, Arch.load),
    "space": ("s.json", SPACE.save, type(SPACE).load),
    "card": ("card.json", lambda path: write_json(Card(accuracy=0.5, device="pi").to_json(), path), Card.load),
    "record of an engine": ("e.json", engine_record, lambda path: read_record(path.with_suffix(""))),
    "recipe of a run": (CONFIG, lambda path: begin_run(path.parent, demo_recipe()), Recipe.load),
    "weights": ("w", lambda path: write_weights({"a": torch.ones(9)}, path, {"kind": "k"}), lambda path: read_weights(path, kind="k")),
    "onnx": ("n.onnx", one_layer, read_model),
    "front": ("f.parquet", lambda path: make_front(networks=20).save(path), Front.load),
    "table": ("t.parquet", lambda path: read_source(TABLE).save(path), read_source),  # type: ignore[union-attr]
    "predictor": ("p.parquet", predictor, AccuracyPredictor.load),
}
"""By kind: a name, and how one is written and read back."""


@pytest.mark.parametrize("most", [40, pytest.param(2000, marks=pytest.mark.torture)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_anywhere_is_told(kind: str, most: int, tmp_path: Path) -> None:
    name, write, read = KINDS[kind]
    path, rng = tmp_path / name, random.Random(0)
    write(path)
    read(path)
    whole = path.read_bytes()
    places = range(len(whole)) if len(whole) <= most else {*range(16), *rng.sample(range(len(whole)), most)}
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(OfaError, match=path.stem):
            read(path)
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(OfaError):
            read(path)


def test_what_people_write_by_hand_needs_no_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    SPACE.smallest().save(path)
    path.write_text(path.read_text().replace('"kernel": 3', '"kernel": 5'))
    with pytest.raises(DamagedError, match=r"if you changed it on purpose, remove the text 'ofa-seal:\.\.\.'"):
        Arch.load(path)
    path.write_text(unsealed(path))
    assert Arch.load(path) != SPACE.smallest()


def unsealed(path: Path) -> str:
    return "\n".join(line for line in path.read_text().splitlines() if SEAL_KEY not in line)


def test_a_card_without_its_checksum_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    write_json(Card().to_json(), path)
    path.write_text(unsealed(path))
    with pytest.raises(DamagedError, match="its checksum is missing"):
        Card.load(path)


def test_a_name_that_looks_like_a_checksum_is_refused_where_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="2 texts in it look like one"):
        write_json({"class_names": [BLANK_SEAL]}, tmp_path / "x.json")
    assert list(tmp_path.iterdir()) == []


def test_a_flipped_bit_is_told_without_a_word_of_the_format() -> None:
    """Though the bit is in the checksum's own mark, by which it is found."""
    sealed = f"# {BLANK_SEAL}\nspace = 1\n".encode()
    sealed = sealed.replace(b"0" * 64, hashlib.sha256(sealed).hexdigest().encode())
    assert check_seal(sealed, required=False, what="x")
    for place in range(8 * len(sealed)):
        damaged = bytearray(sealed)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(DamagedError):
            check_seal(bytes(damaged), required=False, what="x")


def test_a_checksum_is_found_wherever_a_file_is_cut_into_chunks(tmp_path: Path) -> None:
    for before in range((1 << 20) - 74, (1 << 20) + 1):
        (tmp_path / "x").write_bytes(b"\0" * before + BLANK_SEAL.encode() + b"\0")
        ofa.files.seal(tmp_path / "x")
        assert check_seal(tmp_path / "x", required=True, what="x")


def test_every_file_of_a_bundle_must_be_its_own(tmp_path: Path) -> None:
    made = bundle(tmp_path / "b")
    with made.changing(made.engines / "e.engine"):
        (made.engines / "e.engine").write_bytes(b"an engine")
    other = bundle(tmp_path / "other")
    for name in (*made.card.files, "engines/e.engine"):
        whole = (made.folder / name).read_bytes()
        (made.folder / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(DamagedError, match=name):
            load_bundle(made.folder)
        (made.folder / name).write_bytes(whole)
    load_bundle(made.folder)
    assert load_bundle(other.folder).card.files.keys() == made.card.files.keys()
    assert {"arch.json", "labels.json", "network.onnx", "network.safetensors", "photo.onnx", "preprocessing.json"} == made.card.files.keys()


def test_a_bundle_that_is_killed_while_an_engine_is_added_is_whole(tmp_path: Path) -> None:
    made = bundle(tmp_path / "b")
    engine = made.engines / "e.engine"
    with made.changing(engine):
        engine.write_bytes(b"one")

    def die() -> None:
        engine.write_bytes(b"two")
        raise Killed

    with pytest.raises(Killed), load_bundle(made.folder).changing(engine):
        die()
    assert "engines/e.engine" not in load_bundle(made.folder).card.files


# -- leftovers --------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]


def run_python(code: str, **options: Any) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True, env=environment, **options)


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    temporary, place = tmp_path / "temporary", tmp_path / "place"
    for folder in (temporary, place):
        folder.mkdir()
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom ofa.files import replacing, replacing_folder, temporary_folder\n"
        f"place = Path({str(place)!r})\n"
        "with replacing(place / 'file') as one, replacing_folder(place / 'folder') as two, temporary_folder('build') as three:\n"
        "    for path in (one, two / 'x', three / 'x'):\n        path.write_text('half')\n"
        "    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    child = run_python(code, env={"TMPDIR": str(temporary)})
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(temporary))
        written = write_beside(place)
        assert len(names(place)) == 2 + len(written)
        assert len(names(temporary)) == 1
        child.kill()
        child.communicate()
        assert write_beside(place) == names(place)
        assert names(temporary) == []


def write_beside(place: Path) -> list[str]:
    """Write another file into the folder, and start a command."""
    write_json([], place / "other")
    remove_dead_folders()
    return ["other"]


def test_nothing_else_in_the_temporary_folder_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    old = time.time() - 30 * 24 * 3600
    for name, content in {"ofa-datasets": "cat.jpg", "ofa-abcd_123": "a" * 64 + ".onnx", "ofa-verify-abcd_123": "b" * 64 + ".onnx"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / content).write_bytes(b"")
        os.utime(tmp_path / name, (old, old) if name != "ofa-verify-abcd_123" else None)
    (tmp_path / "ofa-build-abcd1234.held").write_text("no folder")
    (tmp_path / "ofa-link-abcd1234.held").symlink_to(tmp_path / "ofa-datasets")
    with temporary_folder("build") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
    kept = set(names(tmp_path))
    assert {"ofa-datasets", "ofa-verify-abcd_123"} <= kept  # another's, and one of an earlier version that may be in use
    assert "ofa-abcd_123" not in kept
    assert (tmp_path / "ofa-datasets" / "cat.jpg").exists()


def test_parts_of_earlier_versions_go_when_they_have_not_grown_for_a_day(tmp_path: Path) -> None:
    old = time.time() - 2 * 24 * 3600
    for name in (".mine.json.abcd_123.part", ".mine.json.wxyz_123.part", ".other.json.abcd_123.part"):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, None if "wxyz" in name else (old, old))
    write_json([], tmp_path / "mine.json")
    assert names(tmp_path) == [".mine.json.wxyz_123.part", ".other.json.abcd_123.part", "mine.json"]


def test_files_of_libraries_beside_the_temporary_one_go_too(tmp_path: Path) -> None:
    with replacing(tmp_path / "x") as temporary:
        (temporary.parent / ".tmpAb12Cd").write_bytes(b"of a library in Rust")
        temporary.write_text("whole")
    assert names(tmp_path) == ["x"]


def test_a_folder_that_vanishes_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match=r"x\.json' must be writable, but no such file"), replacing(tmp_path / "folder" / "x.json"):
        shutil.rmtree(tmp_path / "folder")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="bundle' must be writable, but no such file"), replacing_folder(tmp_path / "folder" / "bundle"):
        shutil.rmtree(tmp_path / "folder")
    assert names(tmp_path) == []


def test_folders_are_made_with_all_above_them(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").write_bytes(b"")
    for wrong in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "nul\0", tmp_path / ("n" * 300)):
        with pytest.raises(FileError, match="must be a folder that can be created"):
            make_folder(wrong)


# -- folders ----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """In place of a signal that nothing can hear."""


def write_folder(path: Path, content: str) -> None:
    with replacing_folder(path) as temporary:
        write_json(content, temporary / "content.json")


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_is_the_old_one_or_the_new_one_at_every_moment(exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchanges:
        monkeypatch.setattr(ofa.files, "exchange", lambda one, other: False)
    path = tmp_path / "folder"
    write_folder(path, "old")
    renames = 0
    for moment in range(8):
        calls = iter(range(100))

        def dying(self: Path, target: Path, *, real: Any = Path.rename, calls: Any = calls, moment: int = moment) -> Any:
            if next(calls) == moment:
                raise Killed
            return real(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", dying)
            try:
                write_folder(path, "new")
            except Killed:
                renames += 1
        settle(path)
        assert read_json(path / "content.json") == "old" if renames > moment else "new"
        write_folder(path, "old")
        assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("point", ["after the old one moved", "after the new one came"])
def test_a_reader_puts_back_what_a_killed_writer_had_moved_aside(point: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", "old")
    code = (
        "import os, signal\nfrom pathlib import Path\nimport ofa.files\nfrom ofa.files import replacing_folder\n"
        "ofa.files.exchange = lambda one, other: False\nreal, count = Path.rename, []\n"
        "def rename(self, target):\n    done = real(self, target)\n    count.append(self)\n"
        f"    if len(count) == {1 if 'moved' in point else 2}:\n        os.kill(os.getpid(), signal.SIGKILL)\n    return done\n"
        "Path.rename = rename\n"
        f"with replacing_folder({str(tmp_path / 'folder')!r}) as folder:\n    (folder / 'content.json').write_text('\"new\"')\n"
    )
    child = run_python(code)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    settle(tmp_path / "folder")
    assert read_json(tmp_path / "folder" / "content.json") == ("old" if "moved" in point else "new")
    write_folder(tmp_path / "folder", "newer")
    assert names(tmp_path) == ["folder"]


def test_a_run_that_is_killed_while_it_is_begun_anew_has_no_weights_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = demo_recipe(), demo_recipe(seed=5)
    folder, deaths = tmp_path / "run", 0
    for moment in range(100):
        save_run(folder, Supernet(first.get_space(10)), first, ())
        calls = iter(range(1000))

        def dying(descriptor: int, *, real: Any = os.fsync, calls: Any = calls, moment: int = moment) -> None:
            if next(calls) == moment:
                raise Killed
            real(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", dying)
            try:
                begin_run(folder, second)
            except Killed:
                deaths += 1
        if (folder / CONFIG).exists():
            seed = Recipe.load(folder / CONFIG).seed
            assert seed == first.seed or not (folder / WEIGHTS).exists()
            assert seed == second.seed or load_run(folder).recipe.seed == first.seed
        if deaths == moment:
            break
    assert deaths > 4


# -- signals ----------------------------------------------------------------------------------------------------------

posix = pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")


def working(tmp_path: Path, change: str = "") -> subprocess.Popen[str]:
    """A command in the middle of writing a file, with a temporary folder."""
    code = (
        "import signal, sys, time\nfrom pathlib import Path\nsys.argv = ['ofa', 'space']\nfrom ofa.cli import space\n"
        "from ofa.files import replacing, temporary_folder\n"
        f"def work():\n    with temporary_folder('build'), replacing({str(tmp_path / 'place' / 'file')!r}) as part:\n"
        "        part.write_text('half')\n        print('ready', flush=True)\n        time.sleep(60)\n    return []\n"
        f"space.list_spaces = work\n{change}\nfrom ofa.cli.main import run\nrun()\n"
    )
    for name in ("place", "temporary"):
        (tmp_path / name).mkdir()
    child = run_python(code, env={"TMPDIR": str(tmp_path / "temporary")})
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


@posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_any_command_and_nothing_is_left(number: signal.Signals, status: int, tmp_path: Path) -> None:
    slow = "import ofa.leftovers\nreal = ofa.leftovers._remove\nofa.leftovers._remove = lambda path: (time.sleep(0.3), real(path))"
    # The tests themselves may run under nohup.
    child = working(tmp_path, f"signal.signal({int(number)}, signal.SIG_DFL)\n{slow}")
    for _ in range(5):  # whoever is impatient sends it again, while files are being removed
        child.send_signal(number)
        time.sleep(0.05)
    _, told = child.communicate(timeout=30)
    assert (child.returncode, told) == (status, "ofa: interrupted; files that were complete are kept, nothing is left half-written\n")
    assert names(tmp_path / "place") == names(tmp_path / "temporary") == []


@posix
def test_a_command_under_nohup_goes_on_when_the_terminal_is_gone(tmp_path: Path) -> None:
    child = working(tmp_path, "signal.signal(signal.SIGHUP, signal.SIG_IGN)\ntime.sleep = lambda seconds, real=time.sleep: real(0.5)")
    child.send_signal(signal.SIGHUP)
    child.communicate(timeout=30)
    assert child.returncode == 0
    assert names(tmp_path / "place") == ["file"]
