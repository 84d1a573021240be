from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ofa.errors import FileError
from ofa.families import get_space
from search.predictor.csv_results import read_results
from search.predictor.sampling import sample_stratified
from tests.search.fakes import SPACE, FakeAccuracy

W10 = get_space("ofa-mbv3-w1.0")
KERNELS = "-".join(["3", "5", "7", "3"] * 5)
EXPANDS = "-".join(["3", "4", "6", "3"] * 5)


def test_archs_and_accuracies_are_read(tmp_path: Path) -> None:
    archs = sample_stratified(SPACE, 12, np.random.default_rng(0))
    path = tmp_path / "results.csv"
    accuracies = FakeAccuracy()(archs)
    pd.DataFrame({"arch": [json.dumps(arch.to_json()) for arch in archs], "accuracy": accuracies}).to_csv(path, index=False)
    for space in (None, SPACE):
        read, values = read_results(path, space)
        assert read == archs
        assert values == pytest.approx(accuracies)


@pytest.mark.parametrize(("column", "value"), [("top1_percent", "75.5"), ("accuracy", "0.755")])
def test_published_columns_are_read(column: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    # A byte order mark, as spreadsheets write it, and more columns than are needed.
    text = f"\ufeffresolution,depths,kernels,expands,macs,{column}\n224,2-3-4-2-3,{KERNELS},{EXPANDS},1,{value}\n"
    path.write_text(text, encoding="utf-8")
    (arch,), (accuracy,) = read_results(path, W10)
    assert accuracy == pytest.approx(0.755)
    assert (arch.resolution, [len(stage) for stage in arch.stages]) == (224, [2, 3, 4, 2, 3])
    assert [[dict(block) for block in stage] for stage in arch.stages][1] == [
        {"kernel": 3, "expand": 3},
        {"kernel": 5, "expand": 4},
        {"kernel": 7, "expand": 6},
    ]
    assert arch in W10


_ARCH = json.dumps(SPACE.smallest().to_json()).replace('"', '""')
_OTHER = json.dumps(get_space("ofa-proxyless-tiny").smallest().to_json()).replace('"', '""')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("arch,accuracy\n{},0.5\n", "line 2: an arch must be an object with the keys space"),
        ('arch,accuracy\n"[]",1\n', "line 2: an arch must be an object"),
        ("arch,accuracy\nnonsense,0.5\n", "line 2: an arch must be JSON"),
        ("accuracy\n0.5\n", "column arch, or resolution, depths, kernels, expands, but resolution is missing"),
        (f'arch\n"{_ARCH}"\n', "one column accuracy or top1_percent, but there are arch"),
        (f'arch,accuracy,top1_percent\n"{_ARCH}",0.5,50\n', "but both are there"),
        (f'arch,accuracy\n"{_ARCH}",50\n', "line 2: accuracy must be a number in 0..1, but is 50"),
        (f'arch,accuracy\n"{_ARCH}",0.5\n"{_ARCH}",nan\n', "line 3: accuracy must be a number in 0..1, but is nan"),
        (f'arch,accuracy\n"{_ARCH}",good\n', "line 2: accuracy must be a number, but is 'good'"),
        (f'arch,accuracy\n"{_ARCH}"\n', "line 2: a row must have a value for each name"),
        (f'arch,accuracy\n"{_ARCH}",0.5,7\n', "line 2: a row must have a value for each name"),
        (
            f'arch,accuracy\n"{_ARCH}",0.5\n"{_OTHER}",0.5\n',
            "networks of one space, but has some of ofa-mbv3-tiny and of ofa-proxyless-tiny",
        ),
        ("arch,accuracy\n", "but it has no network"),
        ("", "resolution is missing"),
        ('arch,accuracy\n"{"a",1\n', "correct it"),
    ],
)
def test_a_file_of_something_else_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FileError, match=words) as caught:
        read_results(path)
    assert "results.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (f"224,2-2-2-2,{KERNELS},{EXPANDS},70", "line 2: depths must be 5 whole numbers with dashes"),
        (f"224,2-2-2-2-5,{KERNELS},{EXPANDS},70", r"line 2: depths must be among \[2, 3, 4\] in ofa-mbv3-w1.0, but one is 5"),
        (f"224,2-2-2-2-2,{KERNELS}-3,{EXPANDS},70", "line 2: kernels must be 20 whole numbers"),
        (f"224,2-2-2-2-2,{KERNELS},{EXPANDS.replace('4', 'x')},70", "line 2: expands must be 20 whole numbers"),
        (f"224,2-2-2-2-2,{KERNELS.replace('5', '9')},{EXPANDS},70", "line 2: .*kernel must be one of"),
        (f"223,2-2-2-2-2,{KERNELS},{EXPANDS},70", "line 2: resolution must be one of"),
        (f"big,2-2-2-2-2,{KERNELS},{EXPANDS},70", "line 2: a resolution must be whole pixels .* but is 'big'"),
        (f"224,2-2-2-2-2,{KERNELS},{EXPANDS},170", r"line 2: top1_percent must be a number in 0..100, but is 170"),
    ],
)
def test_wrong_published_values_are_refused(row: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(f"resolution,depths,kernels,expands,top1_percent\n{row}\n", encoding="utf-8")
    with pytest.raises(FileError, match=words):
        read_results(path, W10)


def test_published_columns_need_a_space_that_they_describe(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(f"resolution,depths,kernels,expands,top1_percent\n224,2-2-2-2-2,{KERNELS},{EXPANDS},70\n", encoding="utf-8")
    with pytest.raises(FileError, match="add --space NAME"):
        read_results(path)
    with pytest.raises(FileError, match="ofa-resnet50 has others"):
        read_results(path, get_space("ofa-resnet50"))


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="check the path"):
        read_results(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="correct it"):
        read_results(tmp_path / "binary.csv")
