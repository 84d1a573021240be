"""The whole road of a model of somebody's own by the command line: from the module to a verified network of fewer operations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from ofa.exporting.bundle import load_bundle
from ofa.families import get_space
from ofa.training import load_run
from tests.cli.own_model import CLASSES, model
from tests.commands import command_line

NAMES = ("dark", "grey", "light", "white")
SIDE = 16
ONE_EPOCH = ("adopt.epochs=1", "batch_size=8", "fractions=[0.5, 0.25, 0.25]", "workers=0")


def answer(*words: object) -> Any:
    """What a command says in JSON."""
    result = command_line(*words, "--json")
    assert result.exit_code == 0, result.stderr
    assert "should not have happened" not in result.stderr
    return json.loads(result.stdout)


def write_photos(folder: Path) -> Path:
    for label, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        for number in range(8):
            pixels = np.full((SIDE, SIDE, 3), 60 * label + number, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.slow
def test_from_a_model_to_a_verified_network(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos")
    names = tmp_path / "names.txt"
    names.write_text("\n".join(NAMES), encoding="utf-8")
    mine, trained, table, front, bundle = (
        tmp_path / name for name in ("mine.run", "trained.run", "fake.parquet", "front.parquet", "bundle")
    )
    images = ("--input", f"3x{SIDE}x{SIDE}", "--resolutions", 8, "--classes-from", names, "--data", photos)
    adopted = answer("adopt", "tests.cli.own_model:model", *images, "-o", mine)
    assert adopted["difference"] == 0
    changes = [word for change in (f"data={photos}", *ONE_EPOCH) for word in ("--set", change)]
    told = answer("train", "adopt", "--from", mine, *changes, "--on", "cpu", "-o", trained)
    assert (told["start"]["path"], told["start"]["new"]) == (str(mine), [])
    space = load_run(trained).supernet.space
    assert space == get_space(f"{trained}/space.json") == load_run(mine).supernet.space
    measured = answer("table", "build", "--space", f"{trained}/space.json", "--device", "fake", "-o", table)
    assert measured["blocks"] > 0
    found = answer("search", "--supernet", trained, "--table", table, "--trials", 12, "--evaluations", 0, "--on", "cpu", "-o", front)
    assert found["networks"] > 0
    half = adopted["largest"]["macs"] / 2
    made = answer("specialize", trained, "--front", front, "--macs", f"{half / 1e3:g}K", "--epochs", 1, "--on", "cpu", "-o", bundle)
    assert made["macs"] <= half
    exported = answer("export", bundle, "--to", "onnx", "--batch", 3)
    assert exported["difference"] < 1e-4
    assert answer("verify", bundle, "--device", "fake")["measured_ms"] > 0
    loaded = load_bundle(bundle)
    assert loaded.space == space
    assert tuple(loaded.class_names) == NAMES
    side = loaded.arch.resolution
    x_BCHW = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(exported["path"], providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: x_BCHW.numpy()})
    with torch.no_grad():
        expected = loaded.network().eval()(x_BCHW)
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-5)
    assert expected.shape == (3, CLASSES)
    assert sum(tensor.numel() for tensor in loaded.network().parameters()) <= sum(tensor.numel() for tensor in model().parameters())
    for source in (trained, front):
        page = tmp_path / f"{source.stem}.html"
        answer("report", source, "-o", page)
        assert "What networks of the adopted model may choose" in page.read_text(encoding="utf-8")
