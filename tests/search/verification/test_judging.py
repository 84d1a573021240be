"""What a file answers on a device beside PyTorch: through every runtime, in every precision, with every batch."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from devices import Device, Timing, get_device
from devices.runtimes import RUNTIMES, get_runtime
from ofa.blocks import build_network
from ofa.data import ImageData, ImageRule, load_data
from ofa.errors import DataError, DeviceError, ExportError, RecipeError, SearchError
from ofa.exporting.bundle import Bundle, load_bundle, write_bundle
from ofa.exporting.card import Card
from ofa.exporting.onnx import read_model, to_model
from ofa.exporting.precision import PRECISIONS
from ofa.exporting.quantization.bundles import FileNetwork, quantize_bundle
from ofa.families import lower
from ofa.journal import Journal
from ofa.latency import Latency
from ofa.tasks import CLASSIFICATION, MULTI_LABEL, Task
from ofa.training.evaluation import evaluate
from search.verification.bundle import subject_of_bundle, verify_bundle
from search.verification.judging import Judged, images_for, judge
from search.verification.networks import verify
from search.verification.verdict import Verification
from tests.faults.nonsense import Spoken
from tests.search.fakes import SMALL

FAKE = get_device("fake")
ARCH = SMALL.smallest()
NAMES = tuple("0123456789")
TIMING = Timing(median_ms=2.0, p90_ms=3.0, min_ms=1.0, std_ms=0.5, repeats=5)


def network() -> nn.Sequential:
    return build_network(lower(SMALL, ARCH), generator=torch.Generator().manual_seed(0)).eval()


def digits(images: int = 20) -> ImageData:
    found = load_data("digits", classes=NAMES)
    return found.subset(torch.linspace(0, len(found) - 1, images).long()).normalized(((0.5,) * 3, (0.5,) * 3))  # type: ignore[return-value]


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    def make(task: Task = CLASSIFICATION, **card: Any) -> Bundle:
        look: dict[str, Any] = {"class_names": NAMES, "mean": (0.5,) * 3, "std": (0.5,) * 3, "task": task}
        return write_bundle(tmp_path / "b", network(), ARCH, Card(**card), generator=torch.Generator().manual_seed(0), **look)

    return make


class Stars(type(CLASSIFICATION)):  # type: ignore[misc]
    """A task that nobody registered."""

    name = "stars"


def judged_on(device: Device, folder: Path, data: ImageData, given: nn.Module | None = None) -> Judged:
    """A network's file in the device's precision, judged there."""
    shape = (device.batch, 3, ARCH.resolution, ARCH.resolution)
    path = folder / f"{device.batch}.onnx"
    path.write_bytes(PRECISIONS.get(device.precision).of(to_model(given or network(), shape)).SerializeToString())
    return judge(given or network(), device, path, data, name="net", resolution=ARCH.resolution)


def here() -> list[str]:
    """The runtimes that are installed, all but the fake one."""
    names = []
    for name in sorted(set(RUNTIMES.own) - {"fake", "tensorrt", "tensorrt-rtx"}):
        try:
            get_runtime(name).version()
        except DeviceError:
            continue
        names.append(name)
    return names


@pytest.mark.parametrize("runtime", here())
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_runtime_answers_what_pytorch_does(runtime: str, precision: str, tmp_path: Path) -> None:
    data = digits()
    found = judged_on(Device(name="a", runtime=runtime, precision=precision, batch=8), tmp_path, data)
    expected = evaluate(network(), data, resolution=ARCH.resolution)
    assert (found.images, found.metric, found.pytorch_score) == (20, "accuracy", expected)
    assert found.difference < (1e-4 if precision == "fp32" else 2e-2)
    if precision == "fp32":
        assert (found.score, found.same_class) == (expected, 1.0)
    assert found.standard_error == CLASSIFICATION.standard_error(found.score, 20)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_a_last_batch_that_is_not_full_changes_nothing(batch: int, tmp_path: Path) -> None:
    data = digits(70)
    found = judged_on(Device(name="a", runtime="onnxruntime", batch=batch), tmp_path, data)
    assert (found.images, found.same_class) == (70, 1.0)
    assert found.score == evaluate(network(), data, resolution=ARCH.resolution)


def test_the_file_is_judged_and_not_the_network(tmp_path: Path) -> None:
    """A file of another network has another score: what is said is the device's answer."""
    other = build_network(lower(SMALL, ARCH), generator=torch.Generator().manual_seed(1)).eval()
    path, data = tmp_path / "other.onnx", digits(60)
    path.write_bytes(to_model(other, (1, 3, ARCH.resolution, ARCH.resolution)).SerializeToString())
    found = judge(network(), Device(name="a", runtime="onnxruntime"), path, data, name="net", resolution=ARCH.resolution)
    assert found.score == evaluate(other, data, resolution=ARCH.resolution)
    assert found.pytorch_score == evaluate(network(), data, resolution=ARCH.resolution)
    assert found.same_class < 1
    assert found.difference > 0.01


def test_an_int8_device_is_judged_by_its_own_file_in_its_own_batch(make_bundle: Callable[..., Bundle]) -> None:
    bundle, device = make_bundle(), Device(name="quantized", runtime="onnxruntime", precision="int8", batch=3)
    quantize_bundle(bundle, load_data("digits", classes=NAMES), bundle.file("int8"), most_loss=1.0)
    bundle = load_bundle(bundle.folder)
    data = images_for(bundle, load_data("digits", classes=NAMES), CLASSIFICATION, 40)
    subject = replace(subject_of_bundle(bundle, device), data=data)
    (found,) = verify([subject], device, rng=np.random.default_rng(0), processes=1)
    model = read_model(bundle.file("int8"))
    assert found.judged is not None
    assert found.judged.score == evaluate(FileNetwork(model), data, resolution=ARCH.resolution)
    assert 1e-4 < found.judged.difference < 1
    assert found.file_bytes < 0.8 * bundle.onnx_path.stat().st_size, "which a file in float32 has not"


def test_images_of_several_classes_are_judged_by_their_own_score(tmp_path: Path) -> None:
    data = digits(30)
    several = replace(data, labels=nn.functional.one_hot(data.labels, 10).bool())
    path = tmp_path / "net.onnx"
    path.write_bytes(to_model(network(), (1, 3, ARCH.resolution, ARCH.resolution)).SerializeToString())
    found = judge(network(), FAKE, path, several, name="net", resolution=ARCH.resolution, task=MULTI_LABEL)
    assert (found.metric, found.score) == ("mAP", pytest.approx(evaluate(network(), several, resolution=ARCH.resolution, task=MULTI_LABEL)))
    assert found.standard_error is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    def answer(message: Mapping[str, Any], asked: int) -> Any:
        shape = [message["calls"], 10]
        return {"shape": shape, "content": base64.b64encode(np.full(shape, value, "<f4").tobytes()).decode()}

    device = Device(name="there", runtime="onnxruntime", precision="fp16", address=Spoken(answer=answer))
    with pytest.raises(ExportError, match=r"'net' must answer with numbers, but on there in fp16 .* for 20 of 20 images"):
        judged_on(device, tmp_path, digits())


def test_images_come_from_all_over(make_bundle: Callable[..., Bundle]) -> None:
    bundle, data = make_bundle(), load_data("digits", classes=NAMES)
    order = data.labels.argsort()
    some = images_for(bundle, data.pick(order), CLASSIFICATION, 10)
    assert sorted(some.labels.tolist()) == list(range(10))
    assert some.normalization == (bundle.mean, bundle.std)
    assert len(images_for(bundle, data, CLASSIFICATION, 10**6)) == len(images_for(bundle, data, CLASSIFICATION)) == len(data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class_names": tuple("abcdefghij")}, "of the network's classes in their order, 0, 1, 2 ..., but these are of a, b, c ..."),
        ({"class_names": tuple(map(str, range(11)))}, "it has 10 and the data has 11 classes"),
        ({"known_rule": ImageRule(fit="stretch")}, "must be read as those that the network knows"),
        ({"images": torch.zeros(20, 1, 8, 8, dtype=torch.uint8), "mean": None, "std": None}, "the network's 3 channels, but these have 1"),
        ({"labels": torch.ones(20, 10, dtype=torch.bool)}, "needs one class per image"),
    ],
)
def test_images_of_something_else_are_refused(change: dict[str, Any], words: str, make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle()
    data = ImageData(**{"images": digits().images, "labels": digits().labels, "class_names": NAMES, **change})
    before = {path: path.read_bytes() for path in bundle.folder.rglob("*") if path.is_file()}
    with pytest.raises(DataError) as caught:
        verify_bundle(bundle, FAKE, data=data)
    assert words in str(caught.value)
    assert {path: path.read_bytes() for path in bundle.folder.rglob("*") if path.is_file()} == before


def test_a_score_needs_images(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(task=Stars())
    with pytest.raises(SearchError, match="give data"):
        verify_bundle(bundle, FAKE, least_accuracy=0.5)
    with pytest.raises(RecipeError, match="'stars'"):
        verify_bundle(bundle, FAKE, data=digits())
    with pytest.raises(DataError, match="at least 1 image, but 0 are asked for"):
        verify_bundle(make_bundle(), FAKE, data=digits(), images=0)
    assert make_bundle(task=MULTI_LABEL).signature.get_task() == MULTI_LABEL


def test_one_call_says_all(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle, device = make_bundle(accuracy=0.9, provenance={"test_images": 100}), get_device("fake")
    found = verify_bundle(bundle, device, data=digits(), images=10, pause_ms=1.0, most_bytes=10**9, least_accuracy=0.99, budget_ms=1e3)
    assert found.judged is not None
    assert found.judged.images == 10
    assert found.paused is not None
    assert found.missed == ("accuracy",)
    assert (found.within_budget, found.within_bytes, found.accurate_enough, found.accuracy_holds) == (True, True, False, False)
    assert found.file_bytes == pytest.approx(bundle.onnx_path.stat().st_size, rel=0.1)
    assert found.noted
    assert load_bundle(bundle.folder).card.measured_ms == found.timing.median_ms
    value = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert value["judged"]["promised_accuracy"] == 0.9
    assert value["paused"]["pause_ms"] == 1.0
    assert value["missed"] == ["accuracy"]


def test_what_is_kept_is_not_run_again(make_bundle: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, path = make_bundle(), tmp_path / "steps"

    def cut(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    def interrupted() -> None:
        with Journal(path, doing="verifying") as steps, monkeypatch.context() as patch:
            patch.setattr("search.verification.bundle.note_on_card", cut)
            verify_bundle(bundle, FAKE, data=digits(), pause_ms=1.0, steps=steps)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    for module in ("judge", "time_models"):
        monkeypatch.setattr(f"search.verification.networks.{module}", cut)
    with Journal(path, doing="verifying", resume=True) as steps:
        assert steps.found == 11
        found = verify_bundle(bundle, FAKE, data=digits(), pause_ms=1.0, steps=steps)
    assert found.judged is not None
    assert found.judged.images == 20


def test_progress_goes_on_to_its_end(make_bundle: Callable[..., Bundle]) -> None:
    seen: list[float] = []
    verify_bundle(
        make_bundle(), FAKE, data=digits(), pause_ms=1.0, progress=lambda done, total, text="": seen.append(done / total if total else 0)
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1


def verification(**facts: Any) -> Verification:
    return Verification(**{"name": "a", "device": "b", "timing": TIMING, "difference": 0.0, "file_bytes": 100, **facts})


def scored(score: float, standard_error: float | None = 0.01) -> Judged:
    return Judged(
        images=100, metric="accuracy", score=score, pytorch_score=0.9, standard_error=standard_error, difference=0.0, same_class=1.0
    )


@pytest.mark.parametrize(
    ("facts", "missed"),
    [
        ({}, ()),
        ({"budget_ms": 2.0, "most_bytes": 100, "least_accuracy": 0.9, "judged": scored(0.9)}, ()),
        ({"budget_ms": 1.9, "most_bytes": 99, "least_accuracy": 0.91, "judged": scored(0.9)}, ("latency", "accuracy", "size")),
        (
            {"promise": Latency(latency_ms=1.0, latency_low_ms=0.9, latency_high_ms=1.1), "promised_accuracy": 0.1, "judged": scored(0.9)},
            (),
        ),
    ],
)
def test_budgets_are_missed_and_promises_are_not(facts: dict[str, Any], missed: tuple[str, ...]) -> None:
    assert verification(**facts).missed == missed


@pytest.mark.parametrize(
    ("judged", "promised", "error", "holds"),
    [
        (scored(0.90), 0.91, 0.0, True),
        (scored(0.90), 0.92, 0.0, False),
        (scored(0.90), 0.92, 0.01, True),
        (scored(0.90, None), 0.9, 0.01, None),
        (scored(0.90), None, 0.0, None),
        (None, 0.9, 0.0, None),
    ],
)
def test_a_promised_accuracy_holds_within_the_spread_of_both_sets(
    judged: Judged | None, promised: float | None, error: float, holds: bool | None
) -> None:
    assert verification(judged=judged, promised_accuracy=promised, promised_error=error).accuracy_holds is holds
