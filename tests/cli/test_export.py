from __future__ import annotations

import importlib.util
import json

import numpy as np
import onnx
import pytest
import torch
import typer
from typer.testing import CliRunner

from ofa.cli import export as export_command
from ofa.cli.exits import ending_well
from ofa.exporting.bundle import write_bundle
from ofa.exporting.card import Card
from ofa.families import get_space
from ofa.supernet import Supernet


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    space = get_space("ofa-mbv3-tiny", 4)
    arch = space.sample(np.random.default_rng(0))
    generator = torch.Generator().manual_seed(0)
    folder = tmp_path_factory.mktemp("bundles") / "digits.bundle"
    network = Supernet(space, generator=generator).extract(arch)
    return write_bundle(folder, network, arch, Card(), class_names=tuple("abcd"), mean=(0.5,) * 3, std=(0.5,) * 3, generator=generator)


def run(*arguments: object):
    app = typer.Typer()
    app.callback()(lambda: None)
    export_command.register(app)
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_an_onnx_file_is_written_and_checked(bundle, tmp_path):
    result = run(bundle.folder, "--to", "onnx", "--dynamic-batch", "-o", tmp_path / "n.onnx", "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["path"] == str(tmp_path / "n.onnx")
    assert answer["difference"] < 1e-4
    assert answer["input_shape"] == ["batch", 3, bundle.arch.resolution, bundle.arch.resolution]
    model = onnx.load(tmp_path / "n.onnx")
    assert answer["file_bytes"] == model.ByteSize()
    assert {each.key for each in model.metadata_props} >= {"arch", "class_names", "mean", "std"}


@pytest.mark.parametrize(("options", "versions"), [((), (14, 7)), (("--opset", 20), (20, 9))])
def test_versions_are_a_setting(bundle, tmp_path, options, versions):
    answer = json.loads(run(bundle.folder, "--to", "onnx", *options, "-o", tmp_path / "n.onnx", "--json").stdout)
    model = onnx.load(tmp_path / "n.onnx")
    assert (answer["opset"], answer["ir_version"]) == (model.opset_import[0].version, model.ir_version) == versions
    assert "ONNX Runtime 1." in run(bundle.folder, "--to", "onnx", *options, "-o", tmp_path / "n.onnx", "--overwrite").stdout


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="needs the extra 'tensorrt-rtx'")
def test_an_engine_is_built_into_the_bundle_and_read_back(bundle):
    result = run(bundle.folder, "--to", "tensorrt-rtx", "--gpu", "ampere,ada", "--half", "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["path"] == str(bundle.engines / "tensorrt-rtx-ampere-ada-fp16.engine")
    assert answer["compute_capabilities"] == ["8.0", "8.6", "8.9"]
    assert answer["engine_bytes"] == (bundle.engines / "tensorrt-rtx-ampere-ada-fp16.engine").stat().st_size
    table = run(bundle.folder, "--to", "tensorrt-rtx")
    assert table.exit_code == 0
    assert "left to the package" in table.stdout
    assert "read back" in table.stdout


@pytest.mark.parametrize(
    "options",
    [("onnx", "--gpu", "ada"), ("onnx", "--half"), ("tensorrt-rtx", "--dynamic-batch"), ("tensorrt", "--opset", "17"), ("openvino",)],
)
def test_options_that_do_not_go_together_are_wrong_usage(bundle, options):
    assert run(bundle.folder, "--to", *options).exit_code == 2


def test_what_fails_is_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"), ending_well():
        export_command.export(tmp_path, "onnx")
    assert "must be a bundle" in capsys.readouterr().err
