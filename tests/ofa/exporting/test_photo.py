"""Files that take a photo answer what PyTorch does for the photo as the library reads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image, ImageOps
from torch import nn

from ofa.data import ImageData, ImageRule
from ofa.data.batches import batches
from ofa.data.reading import input_of
from ofa.errors import ExportError
from ofa.exporting.layout import Signature
from ofa.exporting.onnx import session_of, to_model
from ofa.exporting.photo import check_photo, of_a_photo, prepared
from ofa.exporting.precision import PRECISIONS
from ofa.families import get_space, space_names
from ofa.supernet import Supernet
from ofa.tasks import TASKS
from tests.photos import write_photos

SIGNATURE = Signature(class_names=("a", "b", "c"), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), rule=ImageRule())
SIZES = ((480, 640), (37, 53), (1, 1), (1, 500), (7, 3), (24, 24), (25, 24), (333, 32))


def network_of(name: str, *, channels: int = 3, resolution: int | None = None) -> tuple[nn.Module, int]:
    space = replace(get_space(name, 3), in_channels=channels)
    arch = space.sample(np.random.default_rng(0)) if resolution is None else space.largest(resolution)
    network = Supernet(space, generator=torch.Generator().manual_seed(0)).extract(arch)
    return network.eval(), int(arch.resolution)  # type: ignore[call-overload]


def noise(height: int, width: int, channels: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8))


@pytest.mark.parametrize("name", [name for name in space_names() if name.endswith("-tiny")])
@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_every_family_takes_photos_of_any_size(name: str, fit: str) -> None:
    network, side = network_of(name)
    signature = replace(SIGNATURE, rule=ImageRule(fit=fit))  # type: ignore[arg-type]
    model = of_a_photo(to_model(network, (1, 3, side, side), dynamic_batch=True), signature)
    session = session_of(model)
    for height, width in SIZES:
        photo_HWC = noise(height, width, 3)
        (answer_K,) = session.run(None, {"photo": photo_HWC.numpy()})
        with torch.no_grad():
            expected_K = network(prepared(photo_HWC, (side, side), signature))[0].softmax(0)
        assert answer_K.sum() == pytest.approx(1)
        # Of the logarithms, because a network that was not trained holds all classes nearly equally likely.
        np.testing.assert_allclose(np.log(answer_K), expected_K.log().numpy(), atol=2e-5)
    assert check_photo(model, signature, generator=torch.Generator().manual_seed(0)) < 1e-4


@pytest.mark.parametrize("channels", [1, 4, 5])
def test_photos_of_other_channels(channels: int) -> None:
    network, side = network_of("ofa-mbv3-tiny", channels=channels)
    signature = replace(SIGNATURE, mean=(0.5,) * channels, std=(0.25,) * channels, rule=ImageRule(channels=channels))
    session = session_of(of_a_photo(to_model(network, (1, channels, side, side)), signature))
    photo_HWC = noise(40, 31, channels)
    with torch.no_grad():
        expected_K = network(prepared(photo_HWC, (side, side), signature))[0].softmax(0)
    np.testing.assert_allclose(session.run(None, {"photo": photo_HWC.numpy()})[0], expected_K.numpy(), atol=1e-6)


@pytest.mark.parametrize("shape", [(32, 20), (20, 32), (24, 24)])
def test_images_in_memory_are_cut_and_resized_as_the_library_does(shape: tuple[int, int]) -> None:
    signature = replace(SIGNATURE, class_names=tuple(map(str, range(3 * shape[0] * shape[1]))), activation="")
    session = session_of(of_a_photo(to_model(nn.Sequential(nn.Flatten()), (1, 3, *shape)), signature))
    for height, width in SIZES:
        photo_HWC = noise(height, width, 3)
        data = ImageData(
            images=photo_HWC.permute(2, 0, 1)[None].contiguous(),
            labels=torch.zeros(1, dtype=torch.int64),
            class_names=("a", "b"),
            mean=signature.mean,
            std=signature.std,
            least_classes=1,
        )
        ((expected, _),) = batches(data, batch_size=1, resolution=shape)
        (pixels,) = session.run(None, {"photo": photo_HWC.numpy()})
        np.testing.assert_allclose(pixels, expected.contiguous().flatten().numpy(), atol=5e-4)


def test_photos_of_a_folder_look_as_the_library_reads_them(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 16, dirt=False)
    tried = 0
    for path in sorted((tmp_path / "photos").rglob("*.*")):
        with Image.open(path) as image:
            if image.mode.startswith("I"):
                continue  # of 16 bits, which are no photos
            photo = ImageOps.exif_transpose(image).convert("RGB")
        x_1Chw = prepared(torch.from_numpy(np.asarray(photo).copy()), (24, 24), replace(SIGNATURE, mean=(0.0,) * 3, std=(1.0,) * 3))
        read_HWC = input_of(path.read_bytes(), ImageRule(), 24)
        assert np.abs(x_1Chw[0].permute(1, 2, 0).numpy() * 255 - read_HWC).max() < 1.6, path
        tried += 1
    assert tried > 40


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_take_photos_too(precision: str) -> None:
    network, side = network_of("ofa-mbv4-tiny")
    written = PRECISIONS.get(precision).of(to_model(network, (1, 3, side, side), dynamic_batch=True))
    photo_HWC = noise(50, 40, 3)
    (answer_K,) = session_of(of_a_photo(written, SIGNATURE)).run(None, {"photo": photo_HWC.numpy()})
    x_1Chw = prepared(photo_HWC, (side, side), SIGNATURE)
    (logits_1K,) = session_of(written).run(None, {written.graph.input[0].name: x_1Chw.numpy()})
    np.testing.assert_allclose(answer_K, torch.from_numpy(logits_1K)[0].softmax(0).numpy(), atol=5e-3)


@pytest.mark.parametrize("task", TASKS.names())
def test_probabilities_are_of_the_task(task: str) -> None:
    network, side = network_of("ofa-mbv3-tiny")
    signature = replace(SIGNATURE, task=task, activation=TASKS.get(task).activation)
    (answer_K,) = session_of(of_a_photo(to_model(network, (1, 3, side, side)), signature)).run(None, {"photo": noise(9, 9, 3).numpy()})
    assert (abs(answer_K.sum() - 1) < 1e-6) == (task == "classification")
    assert ((answer_K > 0) & (answer_K < 1)).all()


def test_openvino_takes_photos_too() -> None:
    openvino = pytest.importorskip("openvino")
    network, side = network_of("ofa-mbv4-tiny")
    model = of_a_photo(to_model(network, (1, 3, side, side), dynamic_batch=True), SIGNATURE)
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for height, width in SIZES:
        photo = noise(height, width, 3).numpy()
        np.testing.assert_allclose(compiled({"photo": photo})[0], session_of(model).run(None, {"photo": photo})[0], atol=1e-5)


def test_a_file_that_prepares_otherwise_is_refused() -> None:
    network, side = network_of("ofa-mbv4-tiny")
    model = of_a_photo(to_model(network, (1, 3, side, side)), SIGNATURE)
    with pytest.raises(ExportError, match="must prepare its input as PyTorch does"):
        check_photo(model, replace(SIGNATURE, mean=(0.41, 0.5, 0.6)), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("wrong", ["activation", "outputs", "input"])
def test_what_is_no_network_of_photos(wrong: str) -> None:
    network, side = network_of("ofa-mbv4-tiny")
    model = to_model(network, (1, 3, side, side))
    signature = replace(SIGNATURE, activation="tanh") if wrong == "activation" else SIGNATURE
    if wrong == "outputs":
        model.graph.output.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1, 3]))
    if wrong == "input":
        del model.graph.input[0].type.tensor_type.shape.dim[3]
    with pytest.raises(ExportError, match="must be one of softmax" if wrong == "activation" else "must have one input"):
        of_a_photo(model, signature)
