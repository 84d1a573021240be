from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ofa.calibrate import calibrate
from ofa.data import ImageData, digits
from ofa.supernet import Supernet
from ofa.training import evaluate
from search.accuracy import MeasuredAccuracy
from search.evolution.archive import Archive
from tests.search.fakes import SMALL, fake_problem


def part(data: ImageData, start: int, stop: int) -> ImageData:
    return replace(data, images=data.images[start:stop], labels=data.labels[start:stop])


DIGITS = digits()
HELD_OUT, CALIBRATION = part(DIGITS, 0, 100), part(DIGITS, 100, 300)


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    return Supernet(SMALL, generator=torch.Generator().manual_seed(0))


def test_a_network_is_extracted_calibrated_and_evaluated(supernet: Supernet) -> None:
    arch = SMALL.sample(np.random.default_rng(0))
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    (measured,) = MeasuredAccuracy(supernet, HELD_OUT, CALIBRATION)([arch])
    network = supernet.extract(arch)
    calibrate(network, CALIBRATION, resolution=arch.resolution)
    assert measured == evaluate(network, HELD_OUT, resolution=arch.resolution)
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())


def test_a_network_is_measured_once(supernet: Supernet) -> None:
    seen: list[tuple[int, int]] = []
    source = MeasuredAccuracy(supernet, HELD_OUT, CALIBRATION, progress=lambda done, total, text="": seen.append((done, total)))
    first = source([SMALL.smallest(), SMALL.largest(), SMALL.smallest()])
    assert first[0] == first[2]
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert source([SMALL.largest()])[0] == first[1]
    assert len(seen) == 3


def test_it_says_what_it_measured(supernet: Supernet) -> None:
    source = MeasuredAccuracy(supernet, HELD_OUT, CALIBRATION)
    other = Supernet(SMALL, generator=torch.Generator().manual_seed(1))
    assert source.space.name == SMALL.name
    assert (source.provenance["source"], source.provenance["images"]) == ("measured", 100)
    assert source.provenance == MeasuredAccuracy(supernet, HELD_OUT, CALIBRATION).provenance
    assert source.provenance != MeasuredAccuracy(other, HELD_OUT, CALIBRATION).provenance


def test_a_search_can_measure(supernet: Supernet) -> None:
    archive = Archive(fake_problem(accuracy=MeasuredAccuracy(supernet, HELD_OUT, CALIBRATION)))
    archive.evaluate(SMALL.encode_all([SMALL.smallest()]))
    assert 0 <= archive.accuracies[0] <= 1


def test_an_accuracy_on_few_images_has_a_wide_interval(supernet: Supernet) -> None:
    rows_NC = SMALL.encode_all([SMALL.smallest(), SMALL.largest()])
    source = MeasuredAccuracy(supernet, HELD_OUT, CALIBRATION)
    (low, high), accuracy = source.interval_of_rows(rows_NC), source.of_rows(rows_NC)
    assert ((low <= accuracy) & (accuracy <= high) & (low >= 0)).all()
    assert high - low == pytest.approx(2 * 1.645 * np.sqrt(accuracy * (1 - accuracy) / 100), abs=0.02)
