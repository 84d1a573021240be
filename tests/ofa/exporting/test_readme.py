"""What ships beside the network: it says what is so, and its lines run where this package is not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from ofa.data.reading import input_of
from ofa.errors import DamagedError
from ofa.exporting.bundle import Bundle, load_bundle, write_bundle
from ofa.exporting.card import Card
from ofa.exporting.layout import Signature
from ofa.exporting.picture import draw_network
from ofa.exporting.precision import write_precision
from ofa.families import get_space, lower, space_names
from ofa.reading import read_json
from ofa.supernet import Supernet
from ofa.tasks import MULTI_LABEL, TASKS
from tests.photos import CLASSES, photo, write_photos

PROBABILITY = re.compile(r"^(.*) ([0-9.e-]+)$")
NEEDED = ("numpy", "numpy.libs", "PIL", "pillow.libs", "onnxruntime", "flatbuffers", "google", "packaging")
"""What the program in a README needs, as folders of an environment."""


def made(folder: Path, *, channels: int = 3, names: tuple[str, ...] = CLASSES, **changes: object) -> Bundle:
    """A bundle whose network, which was not trained, is nevertheless sure of what it says, and not of one class for all images."""
    space = replace(get_space("ofa-mbv3-tiny", len(names)), in_channels=channels)
    arch = space.largest(24)
    network = Supernet(space, generator=torch.Generator().manual_seed(3)).extract(arch)
    weight, bias = list(network.parameters())[-2:]
    weight.data.mul_(200)
    with torch.no_grad():
        shown = np.stack([np.asarray(photo(seed % 3, seed).resize((24, 24)))[..., [0] * channels] for seed in range(30)])
        bias -= network.eval()(torch.from_numpy((shown / 255 - 0.4) / 0.25).float().permute(0, 3, 1, 2)).mean(0)
    signature = {"class_names": names, "mean": (0.4,) * channels, "std": (0.25,) * channels, "generator": torch.Generator().manual_seed(0)}
    card = changes.pop("card", Card(accuracy=0.75, provenance={"test_images": 40}))
    return write_bundle(folder, network, arch, card, space=space, **signature, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return made(tmp_path_factory.mktemp("ships") / "bundle")


def program_of(readme: str) -> str:
    (lines,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    return str(lines)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has what the program needs, and neither this package nor torch."""
    folder = tmp_path_factory.mktemp("environment")
    for name in NEEDED:
        found = Path(np.__file__).parents[1] / name
        if found.exists():
            (folder / name).symlink_to(found)
    return folder


def answers(program: str, folder: Path, environment: Path, paths: list[Path]) -> list[str]:
    (folder / "classify.py").write_text(program, encoding="utf-8")
    run_all = (
        "import sys, runpy\n"
        f"sys.path.insert(0, {str(environment)!r})\n"
        "for path in sys.argv[1:]:\n"
        "    sys.argv = ['classify.py', path]\n"
        "    print('>' + path)\n"
        "    runpy.run_path('classify.py')\n"
        "assert not {'torch', 'ofa'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", run_all, *map(str, paths)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [each.split("\n", 1)[1].strip() for each in done.stdout.split(">")[1:]]


def expected_of(bundle: Bundle, path: Path) -> torch.Tensor:
    """Probabilities by PyTorch of a photo as the library reads it."""
    pixels = torch.from_numpy(input_of(path.read_bytes(), bundle.rule, bundle.arch.resolution).astype(np.float32))
    mean, std = torch.tensor(bundle.mean), torch.tensor(bundle.std)
    with torch.no_grad():
        return bundle.network()(((pixels / 255 - mean) / std).permute(2, 0, 1)[None])[0].softmax(0)


def test_the_program_names_the_class_that_pytorch_does(bundle: Bundle, elsewhere: Path, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 16, dirt=False)
    paths = [path for path in sorted((tmp_path / "photos").rglob("*")) if path.is_file() and not kind_of(path)[0].startswith("I")]
    assert {"RGBA", "CMYK", "P", "RGB"} <= {kind for kind, _ in map(kind_of, paths)}
    assert {3, 6, 8} <= {turn for _, turn in map(kind_of, paths)}
    found, agreed = answers(program_of((bundle.folder / "README.md").read_text()), bundle.folder, elsewhere, paths), 0
    for path, answer in zip(paths, found, strict=True):
        match = PROBABILITY.match(answer)
        assert match is not None
        expected = expected_of(bundle, path)
        # The library rounds to levels after it resized; where two classes are nearly as likely that may decide.
        assert float(match[2]) == pytest.approx(float(expected.max()), abs=0.02)
        agreed += match[1] == CLASSES[int(expected.argmax())]
    assert agreed >= len(paths) - 1
    assert len({PROBABILITY.sub(r"\1", answer) for answer in found}) > 1


def kind_of(path: Path) -> tuple[str, int]:
    """The mode and the EXIF orientation of a photo."""
    with Image.open(path) as image:
        return image.mode, image.getexif().get(0x0112, 1)


@pytest.mark.parametrize("channels", [1, 4, 5])
def test_programs_for_other_channels_run_too(channels: int, elsewhere: Path, tmp_path: Path) -> None:
    bundle = made(tmp_path / "bundle", channels=channels)
    array = np.random.default_rng(0).integers(0, 256, (40, 30, channels), dtype=np.uint8)
    path = tmp_path / ("array.npy" if channels == 5 else "photo.png")
    if channels == 5:
        np.save(path, array)
    else:
        Image.fromarray(array[:, :, 0] if channels == 1 else array).save(path)
    (answer,) = answers(program_of((bundle.folder / "README.md").read_text()), bundle.folder, elsewhere, [path])
    assert PROBABILITY.match(answer)[1] in CLASSES  # type: ignore[index]


def test_a_network_of_several_labels_names_all_that_are_likely(elsewhere: Path, tmp_path: Path) -> None:
    bundle = made(tmp_path / "bundle", task=MULTI_LABEL)
    assert (bundle.signature.task, load_bundle(bundle.folder).signature.activation) == ("multi_label", "sigmoid")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    (answer,) = answers(program_of((bundle.folder / "README.md").read_text()), bundle.folder, elsewhere, [tmp_path / "photo.png"])
    for line in filter(None, answer.splitlines()):
        assert float(PROBABILITY.match(line)[2]) >= 0.5  # type: ignore[index]


def test_labels_and_preprocessing_are_what_the_network_knows(bundle: Bundle) -> None:
    assert json.loads((bundle.folder / "labels.json").read_text()) == list(CLASSES)
    found = read_json(bundle.folder / "preprocessing.json")
    assert (found["mean"], found["std"], found["range"]) == ([0.4] * 3, [0.25] * 3, [0, 1])
    assert (found["crop"], found["resize"]["filter"], found["resize"]["antialias"]) == ("center", "bilinear", True)
    file = onnx.load(bundle.onnx_path).graph
    for told, value in ((found["input"], file.input[0]), (found["output"], file.output[0])):
        sizes = [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        assert (told["name"], told["shape"]) == (value.name, sizes)


def test_the_readme_has_the_numbers_of_the_card_and_follows_them(tmp_path: Path) -> None:
    bundle = made(tmp_path / "bundle", card=Card(accuracy=0.75, latency_ms=1.5, latency_low_ms=1.25, latency_high_ms=2, device="pi"))
    readme = bundle.folder / "README.md"
    assert "75.00%" in readme.read_text()
    assert "1.5 ms (1.25 .. 2)" in readme.read_text()
    assert "1.44 ms" not in readme.read_text()
    bundle.note_measurement("pi", 1.44, {"runtime": "onnxruntime", "precision": "fp32", "threads": 2})
    assert "| pi | 1.5 ms (1.25 .. 2) | 1.44 ms | onnxruntime, fp32, batch 1, 2 threads |" in readme.read_text()
    write_precision(bundle, bundle.file("fp16"), "fp16")
    assert "The same code runs photo-fp16.onnx." in readme.read_text()
    assert "| `photo-fp16.onnx` | a photo to probabilities, in fp16 |" in readme.read_text()
    for name, digest in load_bundle(bundle.folder).card.files.items():
        assert name in readme.read_text()
        assert digest in readme.read_text()
    assert max(map(len, readme.read_text().split("\n"))) < 400
    readme.unlink()
    bundle.note_measurement("pi", 1.45)
    assert not readme.exists()


def test_a_file_of_the_bundle_has_its_companion_however_its_path_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = made(tmp_path / "bundle")
    monkeypatch.chdir(bundle.folder)
    write_precision(bundle, "../bundle/network-fp16.onnx", "fp16")
    write_precision(bundle, tmp_path / "network-fp16.onnx", "fp16")
    assert load_bundle(bundle.folder).card.files["photo-fp16.onnx"]
    assert not (tmp_path / "photo-fp16.onnx").exists()


def test_an_edited_readme_is_nobodys_fault_and_edited_labels_are_refused(tmp_path: Path) -> None:
    bundle = made(tmp_path / "bundle")
    (bundle.folder / "README.md").write_text("mine")
    load_bundle(bundle.folder)
    for name in ("labels.json", "preprocessing.json", "photo.onnx"):
        before = (bundle.folder / name).read_bytes()
        (bundle.folder / name).write_bytes(before.replace(b"sky", b"sea") if name == "labels.json" else before + b" ")
        with pytest.raises(DamagedError, match=name):
            load_bundle(bundle.folder)
        (bundle.folder / name).write_bytes(before)
    load_bundle(bundle.folder)


def test_classes_of_any_name_break_no_table(tmp_path: Path) -> None:
    names = ("a | b", "`c`\nd", "<script>alert(1)</script>")
    bundle = made(tmp_path / "bundle", names=names)
    text = (bundle.folder / "README.md").read_text()
    assert "<script>" not in text
    (row,) = [line for line in text.splitlines() if line.startswith("| classes")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 3
    assert json.loads((bundle.folder / "labels.json").read_text()) == list(names)


@pytest.mark.parametrize("name", space_names())
def test_every_family_has_a_picture(name: str) -> None:
    space = get_space(name, 10)
    lowered = lower(space, space.largest())
    root = ET.fromstring(draw_network(lowered, "<&>"))
    titles = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert [title.split(":")[0] for title in titles] == [placed.name for placed in lowered]
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for bar in root.iter("{http://www.w3.org/2000/svg}rect"):
        x, y = float(bar.attrib.get("x", 0)), float(bar.attrib.get("y", 0))
        assert 0 <= x <= x + float(bar.attrib["width"]) <= width
        assert 0 <= y <= y + float(bar.attrib["height"]) <= height


def test_bundles_of_earlier_versions_say_what_they_are_for_by_their_metric() -> None:
    for task in (TASKS.get(name) for name in TASKS.names()):
        header = {"class_names": '["a", "b"]', "mean": "[0.5]", "std": "[0.5]"}
        signature = Signature.of_header(header, Card(accuracy=0.5, metric=task.metric))
        assert (signature.task, signature.activation) == (task.name, task.activation)
