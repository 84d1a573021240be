"""Every kind of file that the project writes, on a disk that is full: one sentence, and what was there before is whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from latency_tables import Journal, LatencyTable
from latency_tables.check import compare
from latency_tables.plot import save_check_plot
from ofa.errors import FileError, OfaError
from ofa.exporting.bundle import Bundle, load_bundle, write_bundle
from ofa.exporting.card import Card
from ofa.exporting.onnx import export
from ofa.families import get_space
from ofa.files import replacing, write_json
from ofa.storage_url import StorageUrl
from ofa.supernet import Supernet
from ofa.training import demo_recipe, save_run
from ofa.weights import write_weights
from search.plot import save_front_picture
from search.predictor.accuracy_predictor import AccuracyPredictor
from search.report import read_source, save_report
from search.report.pictures import save_pictures
from search.study.storages import open_storage
from tests.disk import room_for
from tests.search.fakes import SPACE, FakeAccuracy
from tests.search.fronts import make_front
from tests.search.test_report import TABLE

GENERATOR = partial(torch.Generator().manual_seed, 0)


def weights(path: Path) -> None:
    write_weights(dict(Supernet(SPACE).state_dict()), path, {"kind": "network"})


def bundle(path: Path) -> Bundle:
    arch = SPACE.smallest()
    network = Supernet(SPACE, generator=GENERATOR()).extract(arch).eval()
    look: dict[str, Any] = {"class_names": list("0123456789"), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return write_bundle(path, network, arch, Card(), generator=GENERATOR(), **look)


def onnx(path: Path) -> None:
    arch = SPACE.smallest()
    export(Supernet(SPACE).extract(arch).eval(), (1, 3, arch.resolution, arch.resolution), path)


def run(path: Path) -> None:
    recipe = demo_recipe()
    save_run(path, recipe.build_supernet(10), recipe, ())


def predictor(path: Path) -> None:
    archs = [SPACE.sample(np.random.default_rng(seed)) for seed in range(20)]
    AccuracyPredictor.fit(SPACE, archs, FakeAccuracy()(archs), np.random.default_rng(0)).save(path)


def plot(path: Path) -> None:
    ms = np.arange(1.0, 9.0)
    rows = pd.DataFrame({"latency_ms": ms, "latency_low_ms": ms, "latency_high_ms": ms, "measured_ms": 1.01 * ms})
    save_check_plot(compare(rows), path, title="a check")


FILES: dict[str, Callable[[Path], object]] = {
    "json": lambda path: write_json(list(range(1000)), path),
    "weights": weights,
    "onnx": onnx,
    "front": lambda path: make_front(networks=300).save(path),
    "predictor": predictor,
    "table": lambda path: read_source(TABLE).save(path),  # type: ignore[union-attr]
    "rows of a table": lambda path: read_source(TABLE).save(path.with_suffix(".csv")),  # type: ignore[union-attr]
    "picture of a front": lambda path: save_front_picture(make_front(networks=50), path),
    "picture of a check": plot,
    "page": lambda path: save_report(make_front(networks=50), path),
    "bundle": bundle,
    "run": run,
}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("kind", FILES)
def test_a_full_disk_is_one_sentence_and_the_old_file_stays(kind: str, tmp_path: Path) -> None:
    write = FILES[kind]
    write(tmp_path / "mine")
    before = content(tmp_path)
    with room_for(100), pytest.raises(FileError, match=r"mine.* must be writable, but file too large; choose another place"):
        write(tmp_path / "mine")
    assert content(tmp_path) == before


@pytest.mark.parametrize("kind", FILES)
def test_a_name_that_is_too_long_is_one_sentence(kind: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"must be .*, but file name too long; "):
        FILES[kind](tmp_path / ("n" * 300))
    assert content(tmp_path) == {}


@pytest.mark.parametrize("name", ["n" * 250, "with space", "[bold]", "a:b=c", "ä 图", "\"'", "-o", os.fsdecode(b"\xff\xfe")])
@pytest.mark.parametrize("kind", ["json", "weights", "front", "page"])
def test_names_may_be_anything_that_the_system_takes(kind: str, name: str, tmp_path: Path) -> None:
    FILES[kind](tmp_path / name)
    assert list(content(tmp_path)) == [name]


def test_files_with_odd_names_are_read_back(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"a=b \xff")
    odd.mkdir()
    for kind in ("front", "table"):
        FILES[kind](odd / kind)
        assert read_source(odd / kind) is not None
    spaced = tmp_path / "ä [b]=c"
    assert bundle(spaced).arch == load_bundle(spaced).arch
    assert load_bundle(spaced).network() is not None


def test_a_folder_is_not_replaced_by_a_file_nor_a_file_by_a_folder(tmp_path: Path) -> None:
    for kind in sorted(set(FILES) - {"bundle", "run", "rows of a table"}):
        with pytest.raises(FileError, match="must be a file to be written, but it is a folder; name a file"):
            FILES[kind](tmp_path)
    (tmp_path / "file").write_text("words")
    folders = {"bundle": bundle, "run": run, "pictures": lambda path: save_pictures(make_front(networks=50), path)}
    for write in folders.values():
        with pytest.raises(FileError, match="; choose another"):
            write(tmp_path / "file")
    assert content(tmp_path) == {"file": b"words"}


def test_a_device_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="it is no plain file"), replacing(os.devnull):
        pytest.fail("it must not come so far")
    assert not Path(os.devnull).is_file()


def test_a_study_says_that_its_disk_is_full(tmp_path: Path) -> None:
    from search.study import Effort, run_study
    from tests.search.fakes import fake_problem

    for storage in (f"sqlite:///{tmp_path / 'study.db'}", str(tmp_path / "study.journal")):
        with room_for(100), pytest.raises(OfaError, match="the storage of a study must be"):
            run_study(fake_problem(), seed=0, effort=Effort(trials=16, evaluations=200), storage=storage)
    open_storage(StorageUrl(f"sqlite:///{tmp_path / 'study.db'}")).close()


def test_a_journal_of_a_table_says_that_its_disk_is_full(tmp_path: Path) -> None:
    with Journal(tmp_path / "t.parquet") as journal, room_for(100), pytest.raises(OfaError, match="measurements must be written at once"):
        journal.begin({"device": "x" * 200})


def test_a_bug_while_writing_stays_a_bug(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "f"):
        raise ZeroDivisionError
    assert content(tmp_path) == {}
    assert LatencyTable.load(TABLE) is not None
    assert get_space("ofa-mbv3-tiny") == SPACE
