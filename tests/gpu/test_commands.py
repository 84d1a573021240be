"""Commands that train or measure networks of a run do so on the GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ofa.exporting.bundle import load_bundle
from ofa.training import demo_recipe, save_run
from tests.commands import command_line

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe, folder = demo_recipe(), tmp_path_factory.mktemp("runs") / "run"
    supernet = recipe.build_supernet(10)
    save_run(folder, supernet, recipe, ())
    supernet.space.smallest(16).save(folder.parent / "arch.json")
    return folder


def test_specializing_measuring_and_searching_compute_there(run: Path, device: torch.device, tmp_path: Path) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    lines = (
        f"specialize {run} --arch {run.parent}/arch.json --epochs 1 -o {tmp_path}/b",
        f"predictor fit {run} --nets 12 --rounds 0 -o {tmp_path}/p",
        f"search --supernet {run} --trials 2 --resolutions 16 -o {tmp_path}/f",
    )
    for line in lines:
        done = command_line(*line.split(), "--on", str(device))
        assert done.exit_code == 0, done.stderr
        if device.type == "cuda":
            assert torch.cuda.max_memory_allocated(device) > 0, line
            torch.cuda.reset_peak_memory_stats(device)
    network = load_bundle(tmp_path / "b").network()
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}
