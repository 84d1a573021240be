from __future__ import annotations

import hashlib
import importlib.util
import sys

import pytest
import torch
from onnx import TensorProto, helper, save
from torch import nn

from ofa.errors import ExportError, FileError, MissingExtraError
from ofa.exporting import onnx as onnx_export
from ofa.exporting.engine_record import EngineTensor, record_path
from ofa.exporting.tensorrt import build_engine, compute_capabilities, inspect_engine
from ofa.families import get_space
from ofa.files import write_json
from ofa.reading import read_json
from ofa.supernet import Supernet
from tests.ofa.exporting import fake_tensorrt

has_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None and importlib.util.find_spec("tensorrt_rtx") is None,
    reason="needs the extra 'tensorrt-rtx'",
)
RESOLUTION = 32


@pytest.fixture(scope="module")
def onnx_path(tmp_path_factory):
    """A real subnet, extracted."""
    space = get_space("ofa-mbv3-tiny")
    arch = space.smallest(space.resolutions[0])
    network = Supernet(space, generator=torch.Generator().manual_seed(0)).extract(arch)
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    onnx_export.export(network, (1, 3, arch.resolution, arch.resolution), path)
    return path


@pytest.fixture
def open_batch_path(tmp_path):
    path = tmp_path / "open.onnx"
    onnx_export.export(nn.Conv2d(3, 4, 3), (1, 3, 8, 8), path, dynamic_batch=True)
    return path


# -- the real package -------------------------------------------------------------------------------------------------


@has_rtx
def test_a_real_engine_is_built_from_a_real_subnet_and_read_back(onnx_path, tmp_path):
    engine = tmp_path / "network.engine"
    steps = []
    built = build_engine(
        onnx_path, engine, flavour="tensorrt-rtx", gpus=("ampere", "8.9"), progress=lambda done, total, text="": steps.append((done, total))
    )
    resolution = get_space("ofa-mbv3-tiny").resolutions[0]
    assert built.inputs == (EngineTensor("images", (1, 3, resolution, resolution), "FLOAT"),)
    assert built.outputs == (EngineTensor("logits", (1, get_space("ofa-mbv3-tiny").num_classes), "FLOAT"),)
    assert built.compute_capabilities == ("8.0", "8.6", "8.9")
    assert built.network_layers is not None
    assert built.network_layers > 20
    assert steps == sorted(steps)
    assert 0 < len(steps) <= steps[-1][1]

    content = engine.read_bytes()
    assert built.engine_bytes == len(content)
    assert built.onnx_sha256 == hashlib.sha256(onnx_path.read_bytes()).hexdigest()
    assert b"accelerators={sm80 sm86 sm89 }" in content  # what the package itself wrote into the engine
    assert b"images" in content
    assert b"logits" in content

    read = inspect_engine(engine, "tensorrt-rtx")
    assert read.inputs == built.inputs
    assert read.outputs == built.outputs
    assert read.engine_sha256 == hashlib.sha256(content).hexdigest()


@has_rtx
def test_a_half_precision_engine_is_smaller_and_keeps_its_interface(onnx_path, tmp_path):
    sizes = {
        half: build_engine(onnx_path, tmp_path / "e", flavour="tensorrt-rtx", precision="fp16" if half else "fp32")
        for half in (False, True)
    }
    assert (sizes[False].precision, sizes[True].precision) == ("fp32", "fp16")
    assert sizes[True].inputs == sizes[False].inputs
    assert sizes[True].engine_bytes < sizes[False].engine_bytes


@has_rtx
def test_a_real_engine_with_an_open_batch(open_batch_path, tmp_path):
    built = build_engine(open_batch_path, tmp_path / "e", flavour="tensorrt-rtx", batches=(1, 4, 16))
    assert built.inputs[0].shape == (-1, 3, 8, 8)
    with pytest.raises(ExportError, match="smallest <= usual <= largest"):
        build_engine(open_batch_path, tmp_path / "e", flavour="tensorrt-rtx", batches=(4, 2, 16))


@has_rtx
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-100], "damaged"),
        (lambda content: b"", "empty"),
        (lambda content: b"no engine at all" * 10, "another format"),
    ],
)
def test_a_damaged_engine_is_found_by_the_package_itself(onnx_path, tmp_path, damage, words):
    engine = tmp_path / "network.engine"
    build_engine(onnx_path, engine, flavour="tensorrt-rtx")
    record_path(engine).unlink()
    engine.write_bytes(damage(engine.read_bytes()))
    with pytest.raises(ExportError, match=words):
        inspect_engine(engine, "tensorrt-rtx")


@has_rtx
def test_a_gpu_that_the_package_does_not_know_and_what_it_cannot_build(onnx_path, tmp_path):
    with pytest.raises(ExportError, match=r"9\.9; known: 7\.5"):
        build_engine(onnx_path, tmp_path / "e", flavour="tensorrt-rtx", gpus=["9.9"])
    with pytest.raises(ExportError, match="Turing"):
        build_engine(onnx_path, tmp_path / "e", flavour="tensorrt-rtx", gpus=["turing"])  # float32 there has no matrix product
    assert not list(tmp_path.iterdir())


@has_rtx
def test_a_cancelled_build_leaves_nothing_and_raises_what_cancelled_it(onnx_path, tmp_path):
    def cancel(done, total, text=""):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(onnx_path, tmp_path / "e", flavour="tensorrt-rtx", progress=cancel)
    assert not list(tmp_path.iterdir())


# -- one code path ----------------------------------------------------------------------------------------------------


def install(monkeypatch, **modules):
    """Make exactly these modules importable as TensorRT."""
    for name in ("tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, modules.get(name))


def test_the_flavour_only_selects_the_module(monkeypatch, onnx_path, tmp_path):
    seen = {}
    for flavour, name in (("tensorrt", "tensorrt"), ("tensorrt", "tensorrt_bindings"), ("tensorrt-rtx", "tensorrt_rtx")):
        module = fake_tensorrt.make()
        install(monkeypatch, **{name: module})
        info = build_engine(onnx_path, tmp_path / "e", flavour=flavour)
        assert (info.flavour, info.version) == (flavour, fake_tensorrt.VERSION)
        inspect_engine(tmp_path / "e", flavour)
        seen[name] = module.calls
    assert seen["tensorrt"] == seen["tensorrt_bindings"] == seen["tensorrt_rtx"]
    assert [call[0] for call in seen["tensorrt"]] == [
        "Builder",
        "create_network",
        "parse",
        "build_serialized_network",
        "Runtime",
        "deserialize_cuda_engine",
    ]


def test_named_gpus_are_set_where_the_package_has_them_and_refused_where_not(monkeypatch, onnx_path, tmp_path):
    module = fake_tensorrt.make(capabilities=("SM86", "SM89", "SM120"))
    install(monkeypatch, tensorrt=module)
    build_engine(onnx_path, tmp_path / "e", flavour="tensorrt", gpus=["8.6", "ada"])
    assert [call for call in module.calls if call[0] in ("set_compute_capability", "build_serialized_network")] == [
        ("set_compute_capability", "SM86", 0),
        ("set_compute_capability", "SM89", 1),
        ("build_serialized_network", 2),
    ]
    install(monkeypatch, tensorrt=fake_tensorrt.make())
    with pytest.raises(ExportError, match="tensorrt-rtx"):
        build_engine(onnx_path, tmp_path / "e", flavour="tensorrt", gpus=["ada"])


def test_an_open_batch_gets_a_profile(monkeypatch, open_batch_path, tmp_path):
    module = fake_tensorrt.make()
    install(monkeypatch, tensorrt=module)
    build_engine(open_batch_path, tmp_path / "e", flavour="tensorrt", batches=(1, 4, 16))
    assert ("set_shape", "images", (1, 3, 8, 8), (4, 3, 8, 8), (16, 3, 8, 8)) in module.calls
    assert ("add_optimization_profile",) in module.calls


def test_a_loaded_engine_speaks_for_itself(monkeypatch, onnx_path, tmp_path):
    install(monkeypatch, tensorrt=fake_tensorrt.make())
    built = build_engine(onnx_path, tmp_path / "e", flavour="tensorrt")
    loaded = inspect_engine(tmp_path / "e", "tensorrt")
    assert loaded.engine_layers == fake_tensorrt.Engine.num_layers
    assert (loaded.inputs, loaded.outputs, loaded.onnx_sha256) == (built.inputs, built.outputs, built.onnx_sha256)
    assert built.engine_precisions is None
    assert loaded.engine_precisions == {"INT8": 1, "HALF": 1, "FLOAT": 1}
    before = (tmp_path / "e").read_bytes()
    (tmp_path / "silent").write_bytes(before.replace(b"DETAILED", b"LAYER_NAMES_ONLY"))
    assert inspect_engine(tmp_path / "silent", "tensorrt").engine_precisions is None
    record_path(tmp_path / "e").unlink()
    alone = inspect_engine(tmp_path / "e", "tensorrt")
    assert (alone.inputs, alone.onnx_sha256, alone.precision) == (built.inputs, None, None)


def test_without_a_gpu_the_record_answers_and_building_says_why_not(monkeypatch, onnx_path, tmp_path):
    install(monkeypatch, tensorrt=fake_tensorrt.make())
    built = build_engine(onnx_path, tmp_path / "e", flavour="tensorrt")
    install(monkeypatch, tensorrt=fake_tensorrt.make(has_gpu=False))
    assert inspect_engine(tmp_path / "e", "tensorrt") == built
    assert built.engine_layers is None
    with pytest.raises(ExportError, match="CUDA initialization failure"):
        build_engine(onnx_path, tmp_path / "e2", flavour="tensorrt")
    record_path(tmp_path / "e").unlink()
    with pytest.raises(ExportError, match="copy the record too"):
        inspect_engine(tmp_path / "e", "tensorrt")


# -- what cannot be -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flavour", "extra"), [("tensorrt", r"ofa-nas\[tensorrt\]"), ("tensorrt-rtx", r"ofa-nas\[tensorrt-rtx\]")])
def test_a_missing_package_names_its_extra(monkeypatch, onnx_path, tmp_path, flavour, extra):
    install(monkeypatch)
    with pytest.raises(MissingExtraError, match=extra):
        build_engine(onnx_path, tmp_path / "e", flavour=flavour)


def test_a_package_that_does_not_load_says_so(monkeypatch, onnx_path, tmp_path):
    def broken(name):
        raise ImportError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr("ofa.exporting.tensorrt_package.importlib.import_module", broken)
    with pytest.raises(ExportError, match=r"libnvinfer\.so"):
        build_engine(onnx_path, tmp_path / "e", flavour="tensorrt")


def test_compute_capabilities():
    assert compute_capabilities([]) == ()
    assert compute_capabilities(["Ada", "8.9", "ampere"]) == ("8.9", "8.0", "8.6")
    with pytest.raises(ExportError, match="did you mean 'blackwell'"):
        compute_capabilities(["blackwel"])
    with pytest.raises(ExportError, match=r"such as 8\.9"):
        compute_capabilities(["sm_89"])


def test_files_that_are_no_networks(monkeypatch, tmp_path):
    install(monkeypatch, tensorrt=fake_tensorrt.make())
    with pytest.raises(FileError, match="readable"):
        build_engine(tmp_path / "absent.onnx", tmp_path / "e", flavour="tensorrt")
    for content, words in ((b"hello", "ONNX file"), (b"", "no operators")):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(ExportError, match=words):
            build_engine(tmp_path / "bad.onnx", tmp_path / "e", flavour="tensorrt")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy")
    save(helper.make_model(helper.make_graph([helper.make_node("Softmax", ["x"], ["y"])], "g", [x], [y])), tmp_path / "softmax.onnx")
    with pytest.raises(ExportError, match="no importer for Softmax"):
        build_engine(tmp_path / "softmax.onnx", tmp_path / "e", flavour="tensorrt")
    assert not (tmp_path / "e").exists()
    with pytest.raises(ExportError, match="did you mean 'tensorrt-rtx'"):
        build_engine(tmp_path / "bad.onnx", tmp_path / "e", flavour="tensorrt_rtx")


def test_an_engine_that_does_not_fit_its_record(monkeypatch, onnx_path, tmp_path):
    install(monkeypatch, tensorrt=fake_tensorrt.make(), tensorrt_rtx=fake_tensorrt.make())
    engine = tmp_path / "e"
    build_engine(onnx_path, engine, flavour="tensorrt")
    with pytest.raises(ExportError, match="tensorrt 99"):
        inspect_engine(engine, "tensorrt-rtx")
    content = engine.read_bytes()
    engine.write_bytes(content.replace(b"images", b"imagez"))
    with pytest.raises(ExportError, match="do not match the digest in its record"):
        inspect_engine(engine, "tensorrt")
    record = read_json(record_path(engine))
    for change, words in (({"version": "98.0"}, r"98\.0 built it"), ({"schema": 9}, "schema is 9"), ({"surprise": 1}, "surprise")):
        write_json({**record, **change}, record_path(engine))
        with pytest.raises(ExportError, match=words):
            inspect_engine(engine, "tensorrt")
    with pytest.raises(FileError, match="readable"):
        inspect_engine(tmp_path / "absent", "tensorrt")
