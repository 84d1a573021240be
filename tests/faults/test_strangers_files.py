"""Files of strangers: nothing is unpickled or executed, and what they name lies in their own folder."""

from __future__ import annotations

import ast
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

import latency_tables
from devices import Settings
from devices.runtimes import get_runtime
from latency_tables import LatencyTable
from ofa.data import load_data
from ofa.errors import DeviceError, WeightsError
from ofa.interop.checkpoints import open_checkpoint
from search.report.pictures import save_pictures
from tests.faults.cli import ofa, said
from tests.search.fronts import make_front
from tests.sources import sources

LATENCIES = Path(latency_tables.__file__).parent / "data" / "ofa-mbv3-32px_local-pytorch.parquet"

# -- what is never unpickled or executed ----------------------------------------------------------------------------------


class _Evil:
    """Writes the mark as soon as it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._mark),)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "nested", "numpy"])
def test_no_weights_are_unpickled(kind: str, tmp_path: Path) -> None:
    ran, path = tmp_path / "it ran", tmp_path / "evil.pth"
    evil: Any = _Evil(ran)
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": evil}))
    else:
        value = {"nested": {"state_dict": {"a": torch.ones(1)}, "best": [evil]}, "numpy": {"a": np.array([evil], dtype=object)}}.get(
            kind, evil
        )
        torch.save(value, path, _use_new_zipfile_serialization=kind != "legacy")
    with pytest.raises(WeightsError, match=r"never unpickled|must be a whole file"):
        open_checkpoint(path)
    for words in (
        ("import", "mit-weights", path, "-o", tmp_path / "run"),
        ("import", "mit-predictor", path, "-o", tmp_path / "p.safetensors"),
    ):
        assert ofa(*words, "--space", "ofa-mbv3-w1.0").exit_code in (1, 2)
    assert not ran.exists()
    if kind == "pickle":
        pickle.loads(path.read_bytes())
        assert ran.exists(), "a reader that unpickles would"


def test_scalars_of_numpy_make_numbers_and_nothing_else(tmp_path: Path) -> None:
    numbers = {"a": np.float64(0.5), "b": np.float32(2), "c": np.int64(-3), "d": np.bool_(True)}
    torch.save(numbers, tmp_path / "fine.pth")
    assert dict(open_checkpoint(tmp_path / "fine.pth").tensors) == {"a": 0.5, "b": 2.0, "c": -3, "d": True}
    for other in (np.void(b"12345678"), np.str_("x"), np.datetime64("2026-01-01"), np.dtype([("a", "O")])):
        torch.save({"a": other}, tmp_path / "other.pth")
        with pytest.raises(WeightsError):
            open_checkpoint(tmp_path / "other.pth")


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    ran, path = tmp_path / "it ran", tmp_path / "evil.yaml"
    path.write_text(f"a: !!python/object/apply:os.mkdir ['{ran}']\n")
    result = ofa("table", "import", "mit-yaml", path, "--space", "ofa-mbv3-w1.2", "--device", "fake", "-o", tmp_path / "table")
    said(result)
    assert not ran.exists()


DOORS = {
    *("ofa.registry", "ofa.lazy", "ofa.telemetry"),
    *("ofa.exporting.tensorrt_package", "ofa.space_json"),  # names of a fixed list
}


def test_what_is_imported_by_name_is_a_name_in_the_code_or_goes_through_a_door() -> None:
    for source in sources():
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Call):
                continue
            call, keywords = ast.unparse(node.func), {each.arg: each.value for each in node.keywords}
            if call.endswith("import_module") and source.module not in DOORS:
                assert isinstance(node.args[0], ast.Constant), f"{source.path}:{node.lineno} imports what a text says"
            if call == "torch.load":
                assert ast.unparse(keywords.get("weights_only", ast.Constant(None))) == "True", f"{source.path}:{node.lineno}"
            assert ast.unparse(keywords.get("shell", ast.Constant(None))) != "True", f"{source.path}:{node.lineno} starts a shell"
            assert ast.unparse(keywords.get("allow_pickle", ast.Constant(None))) != "True", f"{source.path}:{node.lineno} unpickles"


# -- files that name other files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("location", ["../secret.bin", "{folder}/secret.bin", "link.bin"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "pytorch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_network_reads_no_file_outside_its_folder(runtime: str, location: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location.format(folder=tmp_path)), ("offset", "0"), ("length", "16")):
        weights.external_data.add(key=key, value=value)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=7)
    (folder / "evil.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(DeviceError):
        get_runtime(runtime).load(folder / "evil.onnx", Settings(runtime=runtime))


@pytest.mark.slow
def test_names_with_paths_in_them_write_nothing_elsewhere(tmp_path: Path) -> None:
    names = ("../../up", "/tmp/up", "a\\..\\b")
    written = save_pictures(make_front(networks=50, devices=names), tmp_path / "pictures")
    assert {path.parent for path in written} == {tmp_path / "pictures"}
    assert {path.name for path in tmp_path.iterdir()} == {"pictures"}


def test_a_study_that_a_front_names_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_front(networks=50, study={"storage": "sqlite:///evil.db", "name": "'; DROP TABLE studies; --", "journal": "evil.log"}).save(
        "front"
    )
    for words in (("query", "front", "--macs", "1G"), ("report", "front", "-o", "page.html")):
        assert ofa(*words).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"front", "page.html"}


@pytest.mark.parametrize(
    "path", ["../secret.png", "{folder}/secret.png", "a/../../secret.png", r"\\evil\share\x.png", "//evil/x.png", "C:x.png"]
)
def test_a_parquet_file_names_images_in_its_folder_alone(path: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for place in (tmp_path / "secret.png", folder / "own.png"):
        Image.new("RGB", (8, 8)).save(place)
    table = pa.table({"image": ["own.png", "own.png", path.format(folder=tmp_path)], "label": [0, 1, 1]})
    pq.write_table(table, folder / "data.parquet")
    left = load_data(str(folder), unreadable="skip").left_out
    assert [each.reason for each in left] == ["is named outside of the folder of its Parquet file"]


def test_no_cell_of_a_csv_file_is_a_formula(tmp_path: Path) -> None:
    table = LatencyTable.load(LATENCIES)
    table.rows["kind"] = ["=cmd|' /C calc'!A0", "@SUM(1)", *table.rows["kind"][2:]]
    table.save(tmp_path / "table.csv")
    cells = (tmp_path / "table.csv").read_text().splitlines()[1:3]
    assert [line[:2] for line in cells] == ["'=", "'@"]
