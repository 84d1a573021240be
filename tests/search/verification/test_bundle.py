from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from devices import Conditions, Device, Timing, get_device
from ofa.blocks import build_network
from ofa.data import load_data
from ofa.errors import ExportError, SearchError
from ofa.exporting.bundle import Bundle, load_bundle, write_bundle
from ofa.exporting.card import Card
from ofa.exporting.onnx import export
from ofa.exporting.quantization.bundles import quantize_bundle
from ofa.families import lower
from ofa.latency import Latency
from search.verification.bundle import other_settings, subject_of_bundle
from search.verification.networks import verify
from search.verification.verdict import Subject, Verification
from tests.search.fakes import SMALL

FAKE = get_device("fake")
ARCH = SMALL.smallest()


def network(seed: int = 0) -> nn.Sequential:
    return build_network(lower(SMALL, ARCH), generator=torch.Generator().manual_seed(seed))


def subject(name: str = "small", **settings: object) -> Subject:
    return Subject(**{"name": name, "network": network(), "channels": 3, "resolution": ARCH.resolution, **settings})  # type: ignore[arg-type]


def test_networks_are_compared_and_timed() -> None:
    # The fake device computes its times, so what it measures once can be promised exactly.
    (first,) = verify([subject()], FAKE, rng=np.random.default_rng(0))
    assert first.difference < 1e-4
    ms = first.timing.median_ms
    right = Latency(latency_ms=ms, latency_low_ms=0.95 * ms, latency_high_ms=1.05 * ms)
    wrong = Latency(latency_ms=0.5 * ms, latency_low_ms=0.45 * ms, latency_high_ms=0.55 * ms)
    both = [subject("right", promise=right, budget_ms=1.01 * ms), subject("wrong", promise=wrong, budget_ms=0.9 * ms)]
    kept, missed = verify(both, FAKE, rng=np.random.default_rng(1))
    assert (kept.name, kept.within_interval, kept.within_budget) == ("right", True, True)
    assert (missed.name, missed.within_interval, missed.within_budget) == ("wrong", False, False)
    assert kept.error == pytest.approx(0, abs=1e-6)
    assert missed.error == pytest.approx(1, abs=1e-6)


def test_what_was_not_promised_is_not_judged() -> None:
    (found,) = verify([subject()], FAKE, rng=np.random.default_rng(0))
    assert (found.within_interval, found.within_budget, found.error) == (None, None, None)
    value = json.loads(json.dumps(found.to_json()))
    assert value["measured_ms"] == found.timing.median_ms
    assert value["latency_ms"] is None


def test_an_expected_latency_alone_is_no_interval() -> None:
    timing = Timing(median_ms=2.0, p90_ms=2.0, min_ms=2.0, std_ms=0.0, repeats=2)
    promise = Latency(latency_ms=1.0, latency_low_ms=1.0, latency_high_ms=1.0)
    found = Verification(name="a", device="fake", promise=promise, budget_ms=None, timing=timing, difference=0.0, file_bytes=9)
    assert found.within_interval is None
    assert found.error == 1.0


def test_a_file_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    export(network(seed=1), (1, 3, ARCH.resolution, ARCH.resolution), path)
    with pytest.raises(ExportError, match="must compute what the network does"):
        verify([subject(onnx_path=path)], FAKE, rng=np.random.default_rng(0))


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_subjects_need_names_of_their_own(names: list[str]) -> None:
    with pytest.raises(SearchError, match="names of their own"):
        verify([subject(name) for name in names], FAKE, rng=np.random.default_rng(0))


def make_bundle(folder: Path, card: Card, batch: int | None = None) -> Bundle:
    return write_bundle(
        folder,
        network().eval(),
        ARCH,
        card,
        class_names=[str(i) for i in range(SMALL.num_classes)],
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        batch=batch,
        generator=torch.Generator().manual_seed(0),
    )


def test_a_bundle_is_held_to_its_card(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", Card(latency_ms=1.0, latency_low_ms=0.9, latency_high_ms=1.1, device="fake"))
    asked = subject_of_bundle(bundle, FAKE, 5.0)
    assert asked.promise == Latency(latency_ms=1.0, latency_low_ms=0.9, latency_high_ms=1.1)
    (found,) = verify([asked], FAKE, rng=np.random.default_rng(0))
    assert found.name == str(tmp_path / "b")
    assert found.within_budget is True


def test_an_int8_device_takes_the_file_that_was_fitted_to_images(tmp_path: Path) -> None:
    bundle, device = make_bundle(tmp_path / "b", Card()), replace(FAKE, precision="int8")
    with pytest.raises(ExportError, match=r"must have a file in int8 for 'fake'.*ofa export .* --precision int8 --data"):
        subject_of_bundle(bundle, device)
    images = load_data("digits", classes=bundle.class_names)
    quantize_bundle(bundle, images, bundle.file("int8"), most_loss=1.0)
    asked = subject_of_bundle(load_bundle(bundle.folder), device)
    assert (asked.onnx_path, asked.precision) == (bundle.folder / "network-int8.onnx", "int8")
    (found,) = verify([asked], device, rng=np.random.default_rng(0))
    assert 1e-4 < found.difference < 1
    (before,) = verify([replace(asked, onnx_path=None, precision="fp32")], FAKE, rng=np.random.default_rng(0))
    assert before.difference < 1e-4


@pytest.mark.parametrize("card", [Card(), Card(latency_ms=1.0, device="another")])
def test_a_card_of_another_device_promises_nothing_here(card: Card, tmp_path: Path) -> None:
    assert subject_of_bundle(make_bundle(tmp_path / "b", card), FAKE).promise is None


def test_a_device_that_takes_several_images_gets_a_file_of_that_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = replace(FAKE, batch=2)
    seen = []

    def look(device: Device, models: dict[str, Path], **_: object) -> dict[str, Timing]:
        seen.extend(onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value for path in models.values())
        return {name: Timing(median_ms=1.0, p90_ms=1.0, min_ms=1.0, std_ms=0.0, repeats=2) for name in models}

    monkeypatch.setattr("search.verification.networks.time_models", look)
    verify([subject_of_bundle(make_bundle(tmp_path / "b", Card(), batch=1), pairs)], pairs, rng=np.random.default_rng(0), processes=1)
    assert seen == [2]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_file_of_an_open_batch_is_timed_as_it_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    bundle = make_bundle(tmp_path / "b", Card())
    device = replace(FAKE, batch=batch)
    asked = subject_of_bundle(bundle, device)
    assert asked.onnx_path == bundle.onnx_path
    (found,) = verify([asked], device, rng=np.random.default_rng(0), processes=1)
    assert found.conditions is not None
    assert found.conditions.input_shape == (batch, 3, ARCH.resolution, ARCH.resolution)
    (fixed,) = verify([subject()], device, rng=np.random.default_rng(0), processes=1)
    assert found.timing.median_ms == fixed.timing.median_ms


@pytest.mark.parametrize("shipped", [True, False])
def test_files_are_in_the_devices_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped: bool) -> None:
    device, seen = replace(FAKE, precision="fp16"), []

    def look(device: Device, models: dict[str, Path], **_: object) -> dict[str, Timing]:
        seen.extend({constant.data_type for constant in onnx.load(path).graph.initializer} for path in models.values())
        return {name: Timing(median_ms=1.0, p90_ms=1.0, min_ms=1.0, std_ms=0.0, repeats=2) for name in models}

    monkeypatch.setattr("search.verification.networks.time_models", look)
    asked = subject_of_bundle(make_bundle(tmp_path / "b", Card()), device) if shipped else subject()
    (found,) = verify([asked], device, rng=np.random.default_rng(0), processes=1)
    assert len(seen) == 1
    assert onnx.TensorProto.FLOAT not in seen[0]
    assert onnx.TensorProto.FLOAT16 in seen[0]
    assert 1e-6 < found.difference < 0.02, "the outputs are those of the rewritten file"
    assert found.conditions is not None
    assert found.conditions.precision == "fp16"


def test_a_file_that_computes_something_else_is_refused_in_half_precision_too(tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    export(network(seed=1), (1, 3, ARCH.resolution, ARCH.resolution), path)
    with pytest.raises(ExportError, match=r"must compute what the network does within 0\.02"):
        verify([subject(onnx_path=path)], replace(FAKE, precision="fp16"), rng=np.random.default_rng(0))


def test_what_was_measured_has_its_conditions() -> None:
    device = replace(FAKE, pause_ms=1.0)
    (found,) = verify([subject()], device, rng=np.random.default_rng(0), processes=1)
    conditions = Conditions.from_json(json.loads(json.dumps(found.to_json()))["conditions"])
    assert conditions == Conditions.of(device, runtime_version="1", input_shape=(1, 3, ARCH.resolution, ARCH.resolution))


def test_a_promise_of_other_settings_is_not_compared(tmp_path: Path) -> None:
    promised = Conditions.of(FAKE, runtime_version="0")
    card = Card(latency_ms=1.0, device="fake", conditions=promised.to_json())
    bundle = make_bundle(tmp_path / "b", card)
    assert subject_of_bundle(bundle, FAKE).promise is not None, "another version of the runtime is what verification is for"
    pausing = replace(FAKE, pause_ms=20.0)
    assert subject_of_bundle(bundle, pausing).promise is None
    assert other_settings(bundle.card, pausing) == promised
    assert other_settings(bundle.card, FAKE) is None
    assert other_settings(bundle.card, replace(pausing, name="another")) is None


def test_files_are_of_the_devices_opset(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(device: Device, models: dict[str, Path], **_: object) -> dict[str, Timing]:
        seen.extend(onnx.load(path).opset_import[0].version for path in models.values())
        return {name: Timing(median_ms=1.0, p90_ms=1.0, min_ms=1.0, std_ms=0.0, repeats=2) for name in models}

    monkeypatch.setattr("search.verification.networks.time_models", look)
    verify([subject()], replace(FAKE, opset=17), rng=np.random.default_rng(0), processes=1)
    assert seen == [17]


def test_the_middle_of_several_measurements_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    medians = iter([9.0, 1.0, 2.0])

    def look(device: Device, models: dict[str, Path], **_: object) -> dict[str, Timing]:
        ms = next(medians)
        return {name: Timing(median_ms=ms, p90_ms=ms, min_ms=ms, std_ms=0.0, repeats=2) for name in models}

    monkeypatch.setattr("search.verification.networks.time_models", look)
    subject = subject_of_bundle(make_bundle(tmp_path / "b", Card()), FAKE)
    (found,) = verify([subject], FAKE, rng=np.random.default_rng(0), processes=3)
    assert found.timing.median_ms == 2.0
    with pytest.raises(SearchError, match="at least 1 measurement"):
        verify([subject], FAKE, rng=np.random.default_rng(0), processes=0)
