from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from ofa.arch import Arch
from ofa.cli import importing
from ofa.cli.exits import ending_well
from ofa.cli.untrained import untrained_recipe
from ofa.errors import FileError, WeightsError
from ofa.families import get_space, lower
from ofa.interop import mit
from ofa.interop.mit_keys import key_names
from ofa.supernet import Supernet
from ofa.training import load_run
from ofa.training.start import Start, open_start


def run(*arguments: object) -> Any:
    app = typer.Typer()
    app.callback()(lambda: None)
    importing.register(app)
    return CliRunner().invoke(app, ["import", *map(str, arguments)])


@pytest.fixture
def supernet() -> Supernet:
    return Supernet(get_space("ofa-mbv3-tiny"), generator=torch.Generator().manual_seed(1)).eval()


@pytest.fixture
def checkpoint(supernet: Supernet, tmp_path: Path) -> Path:
    names = key_names(supernet.space)
    path = tmp_path / "model_best.pth"
    torch.save({"state_dict": {names[name]: tensor for name, tensor in supernet.named_tensors().items()}}, path)
    return path


def test_weights_become_a_run(supernet: Supernet, checkpoint: Path, tmp_path: Path) -> None:
    result = run("mit-weights", checkpoint, "--space", "ofa-mbv3-tiny", "-o", tmp_path / "tiny.run", "--data", "digits", "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["num_classes"] == 10
    assert answer["tensors"] == len(supernet.named_tensors())
    loaded = load_run(tmp_path / "tiny.run")
    assert loaded.recipe.data == "digits"
    assert loaded.recipe.phases[0].restrict(supernet.space) == supernet.space
    assert not loaded.metrics
    arch, x = supernet.space.sample(np.random.default_rng(0)), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.supernet.eval().extract(arch)(x), supernet.extract(arch)(x))
    assert run("mit-weights", checkpoint, "--space", "ofa-mbv3-tiny", "-o", tmp_path / "tiny.run", "--overwrite").exit_code == 0


@pytest.mark.parametrize("output", ["tiny.run", "tiny.safetensors"])
def test_a_run_starts_from_an_import_with_its_kernel_transforms(output: str, supernet: Supernet, checkpoint: Path, tmp_path: Path) -> None:
    own = supernet.named_tensors()
    for name, tensor in own.items():
        if name.endswith("to3"):
            tensor += 0.1  # as if trained
    keys = key_names(supernet.space)
    torch.save({keys[name]: tensor for name, tensor in own.items()}, checkpoint)
    assert run("mit-weights", checkpoint, "--space", "ofa-mbv3-tiny", "-o", tmp_path / output).exit_code == 0
    opened = open_start(Start(path=str(tmp_path / output)), supernet.space)
    assert opened is not None
    started = Supernet(get_space("ofa-mbv3-tiny", 3))
    taken = opened.copy_to(started, ("a", "b", "c"))
    assert taken.new == ("classifier.linear.weight", "classifier.linear.bias")
    assert all(torch.equal(tensor, own[name]) for name, tensor in started.named_tensors().items() if name not in taken.new)


def test_weights_become_a_file(supernet: Supernet, checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    result = run("mit-weights", checkpoint, "--space", "ofa-mbv3-tiny", "-o", path)
    assert result.exit_code == 0
    assert "largest network" in result.stdout
    found = Supernet.load(path).named_tensors()
    assert all(torch.equal(found[name], tensor) for name, tensor in supernet.named_tensors().items())


def test_nothing_is_written_of_weights_that_do_not_fit(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="its classifier has 10; take the space with num_classes=10"):
        importing.import_weights(checkpoint, get_space("ofa-mbv3-tiny", 7), tmp_path / "tiny.run")
    assert not (tmp_path / "tiny.run").exists()
    importing.import_weights(checkpoint, get_space("ofa-mbv3-tiny"), tmp_path / "tiny.run")
    with pytest.raises(FileError, match="add --overwrite"):
        importing.import_weights(checkpoint, get_space("ofa-mbv3-tiny"), tmp_path / "tiny.run")
    with pytest.raises(FileError, match="in a folder that exists"):
        importing.import_weights(checkpoint, get_space("ofa-mbv3-tiny"), tmp_path / "absent" / "tiny.run")


def test_every_space_with_a_counterpart_gets_a_recipe() -> None:
    for name in ("ofa-mbv3-w1.0", "ofa-proxyless-w1.3", "ofa-resnet50"):
        space = get_space(name)
        (phase,) = untrained_recipe(space, name, "imagenet").phases
        assert phase.restrict(space) == space


def net_config() -> dict[str, Any]:
    """The largest network of a space as MIT's package writes it."""
    arch = get_space("ofa-resnet50").largest(resolution=192)
    blocks = {placed.name: placed.block for placed in lower(get_space("ofa-resnet50"), arch)}

    def conv(name: str, stride: int) -> dict[str, Any]:
        block = blocks[name]
        sizes = {"in_channels": block.in_channels, "out_channels": block.out_channels, "kernel_size": 3, "stride": stride}
        return {"name": "ConvLayer", **sizes, "act_func": "relu"}

    stem = [conv("stem.first", 2), {"name": "ResidualBlock", "conv": conv("stem.middle", 1)}, conv("stem.last", 1)]
    body = [
        {
            **{"in_channels": block.in_channels, "out_channels": block.out_channels, "mid_channels": block.lengths["mid1"]},
            **{"kernel_size": 3, "stride": getattr(block, "stride", 1), "act_func": "relu"},
        }
        for name, block in blocks.items()
        if name.startswith("stages.")
    ]
    return {"name": "ResNets", "input_stem": stem, "blocks": body, "classifier": {"in_features": 2048}}


def test_a_network_becomes_an_arch(tmp_path: Path) -> None:
    arch = get_space("ofa-resnet50").largest(resolution=192)
    (tmp_path / "net.config").write_text(json.dumps(net_config()), encoding="utf-8")
    result = run("mit-arch", tmp_path / "net.config", "--resolution", 192, "-o", tmp_path / "arch.json", "--json")
    assert result.exit_code == 0
    assert Arch.load(tmp_path / "arch.json") == arch
    assert json.loads(result.stdout)["arch"] == arch.to_json()
    again = ("mit-arch", tmp_path / "net.config", "--resolution", 192, "-o", tmp_path / "arch.json", "--space", "ofa-resnet50")
    shown = run(*again, "--overwrite")
    assert "ofa-resnet50 at 192 px, 18 blocks" in shown.stdout


def test_the_predictor_becomes_safetensors(tmp_path: Path) -> None:
    sizes = (128, 400, 400, 400, 1)
    tensors = {}
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        tensors[f"{2 * index}.weight"] = torch.full((outputs, inputs), 1 / inputs)
        tensors[f"{2 * index}.bias"] = torch.zeros(outputs)
    torch.save(tensors, tmp_path / "acc_predictor.pth")
    path = tmp_path / "mit.safetensors"
    result = run("mit-predictor", tmp_path / "acc_predictor.pth", "--space", "ofa-mbv3-w1.0", "-o", path, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["above_imagenet_validation"] == 0.059
    space = get_space("ofa-mbv3-w1.0")
    archs = [space.largest(224), space.smallest(128)]
    # Every input weighs the same here, so the output is the share of features that are set: 2 for each block, and the resolution.
    np.testing.assert_allclose(mit.load_predictor(path).predict(archs), [41 / 128, 21 / 128], rtol=1e-5)  # computed in float32
    with pytest.raises(FileError, match="add that ending"):
        importing.import_predictor(tmp_path / "acc_predictor.pth", tmp_path / "mit.pth", space="ofa-mbv3-w1.0")


def test_errors_end_the_command_with_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, ending_well():
        importing.weights(tmp_path / "absent.pth", "ofa-mbv3-tiny", tmp_path / "tiny.run")
    assert ended.value.code == 1
    assert "no such file or directory; check the path" in capsys.readouterr().err
