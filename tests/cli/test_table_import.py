from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from latency_tables import LatencyTable, blocks_of_space
from ofa.blocks import Classifier, ConvBlock, FeatureMix, InvertedResidual, PlacedBlock
from ofa.cli.exits import ending_well
from ofa.cli.table_import import import_group
from ofa.families import get_space

SPACE = "ofa-mbv3-tiny"


class Roof(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        with ending_well():
            return super().invoke(ctx)


def run(*arguments: object) -> Any:
    app = typer.Typer(cls=Roof)
    app.callback()(lambda: None)
    app.add_typer(import_group(), name="import")
    return CliRunner().invoke(app, ["import", *map(str, arguments)])


def entries(placed: PlacedBlock) -> list[str]:
    """What a publisher would call a block."""
    block, size, after = placed.block, placed.input.height, placed.block.output(placed.input).height
    if isinstance(block, ConvBlock):
        return [
            f"Conv{'' if block.kernel == 3 else '_1'}-input:{size}x{size}x{block.in_channels}-output:{after}x{after}x{block.out_channels}"
        ]
    if isinstance(block, FeatureMix):
        pooled = f"1x1x{block.in_channels}"
        return [
            f"AvgPool2D-input:{size}x{size}x{block.in_channels}-output:{pooled}",
            f"Conv_2-input:{pooled}-output:1x1x{block.out_channels}",
        ]
    if isinstance(block, Classifier):
        return [f"Logits-input:1x1x{block.in_channels}-output:{block.out_channels}"]
    assert isinstance(block, InvertedResidual)
    flags = f"idskip:{int(block.residual)}-se:{int(block.squeeze_excite)}-hs:{int(block.activation == 'h_swish')}"
    sizes = f"input:{size}x{size}x{block.in_channels}-output:{after}x{after}x{block.out_channels}"
    return [f"expanded_conv-{sizes}-expand:{block.mid_channels}-kernel:{block.kernel}-stride:{block.stride}-{flags}"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, paths = tmp_path_factory.mktemp("published"), []
    for size in (16, 32):
        names = [name for placed in blocks_of_space(get_space(SPACE), [size]) for name in entries(placed)]
        paths.append(folder / f"{size}.yaml")
        paths[-1].write_text("".join(f"{name}: {{mean: 0.5, std: 0.01, count: 20}}\n" for name in names), encoding="utf-8")
    return paths


def test_published_files_become_a_table(files: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "phone.parquet"
    result = run("mit-yaml", *files, "--space", SPACE, "--device", "phone", "--precision", "int8", "-o", output, "--json")
    assert result.exit_code == 0, result.stderr
    report, table = json.loads(result.stdout), LatencyTable.load(output)
    assert report["blocks"] == len(table) == len(blocks_of_space(get_space(SPACE), [16, 32]))
    assert report["spaces"] == {SPACE: [16, 32]}
    assert report["device"]["name"] == table.device_name == "phone"
    assert report["device"]["precision"] == "int8"
    assert [source["name"] for source in report["sources"]] == ["16.yaml", "32.yaml"]
    assert sum(report["kinds"].values()) == report["blocks"]


def test_people_get_a_table_and_what_is_there_is_kept(files: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "phone.parquet"
    arguments = ("mit-yaml", files[0], "--space", SPACE, "--device", "phone", "-o", output)
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert "phone, measured by others: fp32, batch 1" in result.stdout
    before = output.read_bytes()
    again = run(*arguments)
    assert again.exit_code == 1
    assert "add --overwrite" in again.stderr
    assert output.read_bytes() == before
    assert run(*arguments, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("none.yaml", "--space", SPACE, "--device", "phone", "-o", "t.parquet"), 1, "no such file"),
        (("FILE", "--space", "ofa-mbv3-w1.0", "--device", "phone", "-o", "t.parquet"), 1, "is of 16 px"),
        (("FILE", "--space", "ofa-mbv3-tinny", "--device", "phone", "-o", "t.parquet"), 1, "did you mean"),
        (("FILE", "--space", SPACE, "--classes", "7", "--device", "phone", "-o", "t.parquet"), 1, "first 'Logits-input:1x1x128-output:10'"),
        (("FILE", "--space", SPACE, "--device", "phone", "-o", "no/folder/t.parquet"), 1, "folder that exists"),
        (("FILE", "--space", SPACE, "-o", "t.parquet"), 2, "--device"),
        (("--space", SPACE, "--device", "phone", "-o", "t.parquet"), 2, "FILES"),
    ],
)
def test_bad_input_is_one_sentence(
    files: list[Path], arguments: tuple[str, ...], status: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("mit-yaml", *(str(files[0]) if word == "FILE" else word for word in arguments))
    assert result.exit_code == status
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
