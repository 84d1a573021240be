"""What a page begins with: files of its reader, and results of the README or of an earlier page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ofa.training import load_run
from search.predictor.sampling import sample_stratified
from tests.cli.files import write_mits
from tests.commands import command_line
from tests.photos import CLASSES, write_photos
from tests.search.fakes import FakeAccuracy

__all__ = ["BEGINS_WITH", "README", "Prepared"]

README = ("photos", "my_nets.py", "resnet.pth")
"""What the reader of the README has."""

BEGINS_WITH: dict[str, tuple[str, ...]] = {
    "docs/adopting.md": README,
    "docs/budgets.md": ("run", "photos", "results.csv", "phone.parquet", "pi.parquet", "pi.toml"),
    "docs/devices.md": ("photos", "network", "run"),
    "docs/images.md": ("photos", "more", "run"),
    "docs/int8.md": ("photos", "others", "more", "training-photos", "network", "trained.run", "mine.parquet", "arch.json"),
    "docs/shipping.md": ("photo.jpg", "photo.onnx", "labels.json"),
    "docs/python.md": ("digits.toml",),
    "docs/spaces.md": ("recipe.toml", "my.toml", "ofa_mbv3_d234_e346_k357_w1.0", "net.config", "acc_predictor.pth"),
    "docs/studies.md": ("run", "photos", "pi.parquet", "pi.toml"),
}
"""By page; one that is not here begins with what the reader of the README has."""

_NETS = '''"""A small residual network."""

from torch import nn


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x):
        return x + self.norm(self.conv(x.relu()))


class ResNet(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.layer4 = nn.Sequential(Block(16), Block(16))
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        return self.head(self.layer4(self.stem(x)).mean((2, 3)))


def resnet():
    return ResNet(3)
'''

_RECIPE = """
space = "{space}"
data = "digits"
batch_size = 32
evaluate_every = 0

[[phases]]
name = "all"
epochs = 1
learning_rate = 0.1
"""

_PHOTOS = {"photos": (0, 96), "others": (200, 48), "training-photos": (300, 32), "more": (400, 16)}
"""Number of the first photo of a class, and photos a class."""

_DEVICE = 'name = "{name}"\nruntime = "fake"\n'


class Prepared:
    """Makes each thing once, and copies it into the folder of a page.

    Args:
        folder: where things are made.
        road: the folder in which the README ran; None before it has.
    """

    def __init__(self, folder: Path, road: Path | None = None) -> None:
        self._folder, self._road = folder, road

    def bring(self, names: tuple[str, ...], folder: Path) -> None:
        """Put things into a folder."""
        for name in names:
            source = self._find(name)
            if source.is_dir():
                shutil.copytree(source, folder / name)
            else:
                shutil.copy(source, folder / name)

    def _find(self, name: str) -> Path:
        if self._road is not None and (self._road / name).exists():
            return self._road / name
        path = self._folder / name
        if not path.exists():
            _MAKERS[name](self, path)
        return path

    def photos(self, path: Path) -> None:
        """Photos that no other folder has."""
        first, each = _PHOTOS[path.name]
        write_photos(path, each, dirt=False, first=first)

    def nets(self, path: Path) -> None:
        path.write_text(_NETS, encoding="utf-8")

    def weights(self, path: Path) -> None:
        names: dict[str, object] = {}
        exec(_NETS, names)
        torch.save(names["resnet"]().state_dict(), path)  # type: ignore[operator]

    def recipe(self, path: Path) -> None:
        space = {"recipe.toml": "small.space.json", "my.toml": "ofa-mbv3-tiny"}[path.name]
        path.write_text(_RECIPE.format(space=space), encoding="utf-8")

    def device(self, path: Path) -> None:
        path.write_text(_DEVICE.format(name=path.stem), encoding="utf-8")

    def table(self, path: Path) -> None:
        """Of the space of the README's run, on a device whose times follow from the networks."""
        device = self._folder / f"{path.stem}.toml"
        self.device(device)
        space = ("--space", "ofa-mbv3-tiny", "--classes", len(CLASSES), "--device", device)
        _ofa("table", "build", *space, "-o", path)
        _ofa("table", "calibrate", path, *space, "--nets", 9)

    def results(self, path: Path) -> None:
        """Accuracies of networks of the run's space, as somebody has them who measured elsewhere."""
        archs = sample_stratified(load_run(self._find("run")).supernet.space, 40, np.random.default_rng(0))
        texts = [json.dumps(arch.to_json()) for arch in archs]
        pd.DataFrame({"arch": texts, "accuracy": FakeAccuracy(noise=0.002)(archs)}).to_csv(path, index=False)

    def arch(self, path: Path) -> None:
        _ofa("query", self._find("mine.front"), "--latency", "12ms", "-o", path)

    def mits(self, path: Path) -> None:
        """What MIT's package and its authors wrote."""
        made = self._folder / "mit"
        made.mkdir(exist_ok=True)
        write_mits(made)
        shutil.copy(made / {"net.config": "config.json", "acc_predictor.pth": "pickled.pth"}.get(path.name, "weights.pth"), path)

    def shipped(self, path: Path) -> None:
        shutil.copy(self._find("network") / path.name, path)

    def photo(self, path: Path) -> None:
        shutil.copy(next((self._find("photos") / "sky").glob("*.jpg")), path)


def _ofa(*words: object) -> None:
    done = command_line(*words)
    assert done.exit_code == 0, done.stderr


_MAKERS: dict[str, Callable[[Prepared, Path], None]] = {
    **dict.fromkeys(_PHOTOS, Prepared.photos),
    **dict.fromkeys(("recipe.toml", "my.toml"), Prepared.recipe),
    **dict.fromkeys(("pi.toml", "phone.toml"), Prepared.device),
    **dict.fromkeys(("pi.parquet", "phone.parquet"), Prepared.table),
    **dict.fromkeys(("ofa_mbv3_d234_e346_k357_w1.0", "net.config", "acc_predictor.pth"), Prepared.mits),
    **dict.fromkeys(("photo.onnx", "labels.json"), Prepared.shipped),
    "arch.json": Prepared.arch,
    "my_nets.py": Prepared.nets,
    "resnet.pth": Prepared.weights,
    "results.csv": Prepared.results,
    "photo.jpg": Prepared.photo,
}
