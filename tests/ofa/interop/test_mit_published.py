"""What others published, where its folder is there: OFA_PUBLISHED=FOLDER with net configs, predictor and measured subnets."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from ofa.arch import Arch
from ofa.cost import macs, params
from ofa.families import get_space, lower
from ofa.interop import mit

FOLDER = os.environ.get("OFA_PUBLISHED")
pytestmark = pytest.mark.skipif(FOLDER is None, reason="set OFA_PUBLISHED to the folder of published files")
PUBLISHED = Path(FOLDER or ".")


@pytest.mark.parametrize(
    ("name", "resolution", "space", "depths", "mmacs"),
    [
        ("flops-482M_top1-79.6_finetune-75", 224, "ofa-mbv3-w1.2", [3, 4, 4, 4, 4], 482),
        ("note10_lat-30ms_top1-78.4_finetune-75", 224, "ofa-mbv3-w1.2", [2, 3, 3, 3, 4], 339),
        ("cpu_lat-15ms_top1-74.6_finetune-25", 188, "ofa-proxyless-w1.3", [2, 2, 2, 3, 2, 1], 301),
    ],
)
def test_published_networks(name: str, resolution: int, space: str, depths: list[int], mmacs: int) -> None:
    arch = mit.arch_from_net_config(PUBLISHED / f"net_config_{name}.json", resolution)
    assert arch.space == space
    assert [len(stage) for stage in arch.stages] == depths
    assert round(macs(lower(get_space(space), arch)) / 1e6) == mmacs


def measured_subnets() -> tuple[list[Arch], list[dict[str, str]]]:
    space = get_space("ofa-mbv3-w1.0")
    with (PUBLISHED / "ofa_mbv3_w1.0_imagenet_top1.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    keys = {"ks": "kernels", "e": "expands", "d": "depths"}
    settings = [{key: [int(value) for value in row[column].split("-")] for key, column in keys.items()} for row in rows]
    return [mit.arch(space, each, int(row["resolution"])) for each, row in zip(settings, rows, strict=True)], rows


def test_macs_and_params_of_measured_subnets() -> None:
    space = get_space("ofa-mbv3-w1.0")
    for arch, row in zip(*measured_subnets(), strict=True):
        lowered = lower(space, arch)
        assert (macs(lowered), params(lowered)) == (int(row["macs"]), int(row["params"]))


def test_predictor_is_above_validation_and_ranks_well() -> None:
    archs, rows = measured_subnets()
    measured = np.array([float(row["top1_percent"]) / 100 for row in rows])
    predicted = mit.load_predictor(PUBLISHED / "ofa_acc_predictor.pth", get_space("ofa-mbv3-w1.0")).predict(archs)
    assert (predicted - measured).mean() == pytest.approx(0.059, abs=0.001)
    assert (predicted - measured).std() < 0.003
    assert kendalltau(predicted, measured).statistic > 0.87
