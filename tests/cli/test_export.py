from __future__ import annotations

import importlib.util
import json
import shutil

import numpy as np
import onnx
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from ofa import export as ofa_export
from ofa.cli import export as export_command
from ofa.cli.exits import ending_well
from ofa.data import load_data
from ofa.errors import DamagedError, ExportError
from ofa.exporting.bundle import load_bundle, write_bundle
from ofa.exporting.card import Card
from ofa.exporting.quantization.static import Quantization
from ofa.exporting.quantization.tuning import LEARNING_RATE
from ofa.exporting.tensorrt import build_engine
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


def copied(bundle, folder):
    return shutil.copytree(bundle.folder, folder / "copy.bundle")


def run(*arguments: object):
    app = typer.Typer()
    app.callback()(lambda: None)
    export_command.register(app)
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_an_onnx_file_is_written_and_checked(bundle, tmp_path):
    result = run(bundle.folder, "--to", "onnx", "-o", tmp_path / "n.onnx", "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["path"] == str(tmp_path / "n.onnx")
    assert answer["difference"] < 1e-4
    assert answer["input_shape"] == ["batch", 3, bundle.arch.resolution, bundle.arch.resolution]
    model = onnx.load(tmp_path / "n.onnx")
    assert answer["file_bytes"] == model.ByteSize()
    assert {each.key for each in model.metadata_props} >= {"arch", "class_names", "mean", "std"}


def test_a_file_in_half_precision_is_checked_too(bundle, tmp_path):
    bundle = load_bundle(copied(bundle, tmp_path))
    answer = json.loads(run(bundle.folder, "--to", "onnx", "--precision", "fp16", "--json").stdout)
    assert answer["path"] == str(bundle.folder / "network-fp16.onnx")
    assert answer["file_bytes"] < 0.7 * bundle.onnx_path.stat().st_size
    assert load_bundle(bundle.folder).card.files["network-fp16.onnx"]
    assert run(bundle.folder, "--to", "onnx", "--precision", "fp16").exit_code != 0  # it is there


def photos(folder, classes, each=24):
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for count in range(each):
            rng = np.random.default_rng([number, count])
            Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(folder / name / f"{count}.png")
    return folder


def test_int8_is_fitted_to_images_and_judged_on_them(bundle, tmp_path):
    bundle = load_bundle(copied(bundle, tmp_path))
    data = photos(tmp_path / "photos", "abcd")
    words = (bundle.folder, "--to", "onnx", "--precision", "int8", "--data", data, "--most-loss", "1")
    answer = json.loads(run(*words, "--json").stdout)
    assert answer["path"] == str(bundle.folder / "network-int8.onnx")
    found = load_bundle(bundle.folder)
    card = found.card.precisions["int8"]
    assert card["score"] == answer["quantization"]["score"] == max(each["score"] for each in card["tried"])
    assert (card["fitted_images"], card["judging_images"], card["metric"]) == (48, 48, "accuracy")
    assert found.card.files["network-int8.onnx"]
    model = onnx.load(found.file("int8"))
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    assert [each.dim_param or each.dim_value for each in sizes] == ["batch", *found.input_shape[1:]]
    assert found.card.files["photo-int8.onnx"]
    assert "photo-int8.onnx" in (found.folder / "README.md").read_text()
    assert {each.key for each in model.metadata_props} >= {"arch", "class_names", "mean", "std"}
    table = run(*words, "-o", tmp_path / "elsewhere.onnx").stdout
    assert "score in int8" in table
    rows = [line for line in table.splitlines() if line.startswith("│")]  # the title is a path, of any length
    assert len(rows) > 5
    assert max(map(len, rows)) <= 80
    found.file("int8").write_bytes(b"damaged")
    with pytest.raises(DamagedError, match="another content"):
        load_bundle(bundle.folder)


def test_int8_is_tuned_before_it_is_refused(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("ofa.exporting.quantization.bundles.candidates", lambda signed: (Quantization(signed=signed),))
    # Of a network that knows nothing no loss is certain: whatever rounding alone and layers in floats come to is too much here.
    monkeypatch.setattr("ofa.exporting.quantization.choosing._Trials.is_enough", lambda self, file: file.tried.tuned_epochs > 0)
    bundle = load_bundle(copied(bundle, tmp_path))
    before = {path.name: path.read_bytes() for path in bundle.folder.iterdir() if path.suffix in (".onnx", ".safetensors")}
    data, more = photos(tmp_path / "photos", "abcd"), photos(tmp_path / "more", "abcd", each=10)
    words = (bundle.folder, "--to", "onnx", "--precision", "int8", "--data", data)
    with pytest.raises(ExportError, match=r"tune its weights on training images \(tuning_data, --tune-data\)"):
        raise run(*words).exception
    tuned = (*words, "--tune-data", more, "--tune-epochs", "1")
    answer = json.loads(run(*tuned, "--json").stdout)
    assert (answer["quantization"]["tuned_epochs"], answer["quantization"]["float_layers"]) == (1, [])
    card = load_bundle(bundle.folder).card.precisions["int8"]
    assert (card["tuned_epochs"], card["tuning_images"], card["learning_rate"]) == (1, 40, LEARNING_RATE)
    assert {each["tuned_epochs"] for each in card["tried"]} == {0, 1}
    assert {name: (bundle.folder / name).read_bytes() for name in before} == before
    assert ", tuned for 1 epoch" in run(*tuned, "--seed", "1", "-o", tmp_path / "other.onnx").stdout.replace("\n", " ")
    assert (tmp_path / "other.onnx").read_bytes() != bundle.file("int8").read_bytes()
    ofa_export(
        bundle,
        "onnx",
        tmp_path / "again.onnx",
        precision="int8",
        data=load_data(str(data)),
        tuning_data=load_data(str(more)),
        tune_epochs=1,
    )
    assert (tmp_path / "again.onnx").read_bytes() == bundle.file("int8").read_bytes()


def test_images_to_tune_on_are_for_int8(bundle, tmp_path):
    assert run(bundle.folder, "--to", "onnx", "--tune-data", tmp_path).exit_code == 2
    with pytest.raises(ExportError, match="tuning must have precision int8 and data, but precision is 'fp16'"):
        ofa_export(bundle, "onnx", precision="fp16", tuning_data=load_data("digits"))


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="needs the extra 'tensorrt-rtx'")
def test_an_engine_in_int8_is_built_from_signed_activations(bundle, tmp_path):
    bundle = load_bundle(copied(bundle, tmp_path))
    data = photos(tmp_path / "photos", "abcd")
    words = ("--to", "tensorrt-rtx", "--gpu", "ampere", "--precision", "int8", "--data", data, "--most-loss", "1")
    answer = json.loads(run(bundle.folder, *words, "--json").stdout)
    assert answer["path"] == str(bundle.engines / "tensorrt-rtx-ampere-int8.engine")
    assert answer["precision"] == "int8"
    assert answer["network_precisions"].keys() == {"INT8"} or answer["quantization"]["float_layers"]
    assert sum(answer["network_precisions"].values()) == answer["quantization"]["layers"]
    found = load_bundle(bundle.folder)
    assert found.card.precisions["int8-signed"]["score"] == answer["quantization"]["score"]
    model = onnx.load(found.file("int8-signed"))
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    read = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert {kinds[node.input[2]] for node in read} == {onnx.TensorProto.INT8}
    assert not any(onnx.numpy_helper.to_array(each).any() for each in model.graph.initializer if each.name in {n.input[2] for n in read})
    sums = [node for node in model.graph.node if node.op_type == "Add"]
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    assert sums
    assert {makers[name] for node in sums for name in node.input} == {"DequantizeLinear"}  # the residual input too
    again = run(bundle.folder, *words[:3], "ada", *words[4:])
    assert "int8-signed.onnx" in str(again.exception)  # it is there, and nothing is replaced unasked
    with pytest.raises(ExportError, match="is not quantized; name the other file"):
        build_engine(found.onnx_path, tmp_path / "e.engine", flavour="tensorrt-rtx", precision="int8")


def test_too_few_images_for_int8_are_one_sentence(tmp_path, bundle, capsys):
    other = copied(bundle, tmp_path)
    data = photos(tmp_path / "few", "abcd", each=4)
    with pytest.raises(SystemExit, match="1"), ending_well():
        export_command.export(other, "onnx", precision="int8", data=str(data))
    assert "at least 64 images, half to calibrate it and half to judge it, but there are 16" in capsys.readouterr().err
    assert not (other / "network-int8.onnx").exists()


@pytest.mark.parametrize(("options", "versions"), [((), (14, 7)), (("--opset", 20), (20, 9))])
def test_versions_are_a_setting(bundle, tmp_path, options, versions):
    answer = json.loads(run(bundle.folder, "--to", "onnx", *options, "-o", tmp_path / "n.onnx", "--json").stdout)
    model = onnx.load(tmp_path / "n.onnx")
    assert (answer["opset"], answer["ir_version"]) == (model.opset_import[0].version, model.ir_version) == versions
    assert "ONNX Runtime 1." in run(bundle.folder, "--to", "onnx", *options, "-o", tmp_path / "n.onnx", "--overwrite").stdout


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="needs the extra 'tensorrt-rtx'")
def test_an_engine_is_built_into_the_bundle_and_read_back(bundle):
    result = run(bundle.folder, "--to", "tensorrt-rtx", "--gpu", "ampere,ada", "--precision", "fp16", "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["path"] == str(bundle.engines / "tensorrt-rtx-ampere-ada-fp16.engine")
    assert answer["compute_capabilities"] == ["8.0", "8.6", "8.9"]
    assert answer["engine_bytes"] == (bundle.engines / "tensorrt-rtx-ampere-ada-fp16.engine").stat().st_size
    table = run(bundle.folder, "--to", "tensorrt-rtx")
    assert table.exit_code == 0
    assert "FLOAT" in table.stdout
    assert "left to the package" in table.stdout
    assert "read back" in table.stdout


@pytest.mark.parametrize(
    "options",
    [
        ("onnx", "--gpu", "ada"),
        ("onnx", "--precision", "int8"),
        ("onnx", "--data", "digits"),
        ("onnx", "--precision", "fp16", "--opset", "17"),
        ("tensorrt-rtx", "--precision", "int8"),
        ("tensorrt-rtx", "--batch", "2"),
        ("onnx", "--batch", "0"),
        ("tensorrt", "--opset", "17"),
        ("openvino",),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(bundle, options):
    assert run(bundle.folder, "--to", *options).exit_code == 2


@pytest.mark.parametrize(
    ("to", "options"),
    [
        ("onnx", {"precision": "int8"}),
        ("onnx", {"batch": 0}),
        ("onnx", {"precision": "fp16", "opset": 20}),
        ("tensorrt-rtx", {"batch": 2}),
    ],
)
def test_options_that_do_not_go_together_are_refused_in_python_too(bundle, to, options, tmp_path):
    with pytest.raises(ExportError, match=r"needs calibration images|is for ONNX files"):
        ofa_export(bundle, to, tmp_path / "network", **options)
    assert list(tmp_path.iterdir()) == []


def test_what_fails_is_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"), ending_well():
        export_command.export(tmp_path, "onnx")
    assert "must be a bundle" in capsys.readouterr().err
