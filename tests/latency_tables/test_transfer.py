from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from scipy.stats import spearmanr
from typer.core import TyperGroup
from typer.testing import CliRunner

from devices import Device
from latency_tables import Correction, Estimator, LatencyTable
from latency_tables.calibrate import sample_across_range
from latency_tables.from_networks import measured_elsewhere, table_from_networks, units_of
from latency_tables.transfer import read_measurements, transfer_table
from ofa.arch import Arch
from ofa.blocks import InvertedResidual, Shape
from ofa.cli.exits import ending_well
from ofa.cli.table_transfer import transfer
from ofa.errors import ArchError, FileError, TableError
from ofa.families import get_space, lower
from ofa.interop import mit
from ofa.schema import to_json
from ofa.space import Space

Latency = Callable[[Arch], float]

ORIGIN = measured_elsewhere({"name": "new", "runtime": "imported", "precision": "fp32", "batch": 1})


@pytest.fixture(scope="module")
def ten(space: Space, table: LatencyTable) -> list[Arch]:
    return sample_across_range(space, Estimator(space, table), 10, np.random.default_rng(0))


@pytest.fixture(scope="module")
def unseen(space: Space, ten: list[Arch]) -> list[Arch]:
    rng = np.random.default_rng(1)
    return [arch for arch in (space.sample(rng) for _ in range(100)) if arch not in ten]


def latencies(space: Space, table: LatencyTable, archs: list[Arch]) -> np.ndarray:
    return Estimator(space, table).latencies_ms(archs)


def moved(table: LatencyTable, space: Space, ten: list[Arch], latency: Latency) -> LatencyTable:
    return transfer_table(table, space, ten, [latency(arch) for arch in ten], origin=ORIGIN)


def mean_error(space: Space, table: LatencyTable, archs: list[Arch], latency: Latency) -> float:
    return float(np.abs(latencies(space, table, archs) / [latency(arch) for arch in archs] - 1).mean())


def with_overhead(space: Space, table: LatencyTable) -> Latency:
    """Another device: three times as fast, but every block and every call costs something more."""
    per_block = float(table.rows["median_ms"].max())
    return lambda arch: latencies(space, table, [arch])[0] / 3 + per_block * len(lower(space, arch)) + 2 * per_block


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_device_that_is_a_factor_faster_is_met_exactly(
    space: Space, table: LatencyTable, ten: list[Arch], unseen: list[Arch], calibrated: bool
) -> None:
    if calibrated:
        correction = Correction(intercept_ms=0.1, slope=0.9, ms_per_weight_mib=0.2, half_width=0.1, coverage=0.9, nets=20)
        table = table.with_info(calibration=correction)
    found = moved(table, space, ten, lambda arch: 0.3 * latencies(space, table, [arch])[0])
    assert latencies(space, found, unseen) == pytest.approx(0.3 * latencies(space, table, unseen), rel=1e-9)
    assert found.info.estimated.times_source == pytest.approx(0.3)
    assert found.correction is not None
    assert found.correction.half_width < 1e-9


def test_overhead_that_the_known_device_does_not_have_is_learned(
    space: Space, table: LatencyTable, ten: list[Arch], unseen: list[Arch]
) -> None:
    latency = with_overhead(space, table)
    truth, known = [latency(arch) for arch in unseen], latencies(space, table, unseen)
    found = moved(table, space, ten, latency)
    naive = np.abs(known * np.median(np.array(truth) / known) / truth - 1).mean()
    assert mean_error(space, found, unseen, latency) < 0.02 < 0.1 < naive
    assert spearmanr(latencies(space, found, unseen), truth).statistic > 0.98 > spearmanr(known, truth).statistic
    assert found.info.estimated.shares["source"] < 0.8


def test_noise_alone_does_not_change_the_order(space: Space, table: LatencyTable, ten: list[Arch], unseen: list[Arch]) -> None:
    noise = dict(zip(ten, np.exp(0.05 * np.random.default_rng(2).standard_normal(len(ten))), strict=True))
    found = moved(table, space, ten, lambda arch: noise[arch] * latencies(space, table, [arch])[0])
    assert spearmanr(latencies(space, found, unseen), latencies(space, table, unseen)).statistic == pytest.approx(1)


def test_two_disturbed_networks_do_little_harm(space: Space, table: LatencyTable, ten: list[Arch], unseen: list[Arch]) -> None:
    disturbed = {ten[2]: 1.8, ten[7]: 1.4}
    same = moved(table, space, ten, lambda arch: disturbed.get(arch, 1.0) * latencies(space, table, [arch])[0])
    assert mean_error(space, same, unseen, lambda arch: latencies(space, table, [arch])[0]) < 1e-4
    assert same.correction is not None
    assert same.correction.half_width > 0.4  # it says that some networks are far off
    other = with_overhead(space, table)
    found = moved(table, space, ten, lambda arch: disturbed.get(arch, 1.0) * other(arch))
    assert mean_error(space, found, unseen, other) < 0.1


def test_intervals_hold_nine_in_ten_new_networks(space: Space, table: LatencyTable, unseen: list[Arch]) -> None:
    rng, estimator = np.random.default_rng(3), Estimator(space, table)
    inside = []
    for _ in range(20):
        archs = sample_across_range(space, estimator, 10, rng)
        times = estimator.latencies_ms(archs) * np.exp(0.1 * rng.standard_normal(len(archs)))
        found = transfer_table(table, space, archs, times.tolist(), origin=ORIGIN)
        truth = estimator.latencies_ms(unseen) * np.exp(0.1 * rng.standard_normal(len(unseen)))
        low, high = Estimator(space, found).estimates_of_rows(np.array([space.encode(arch) for arch in unseen]))[1:]
        inside.append(((low <= truth) & (truth <= high)).mean())
    assert 0.85 < np.mean(inside) < 0.97


def test_the_table_says_what_it_is(space: Space, table: LatencyTable, device: Device, ten: list[Arch], tmp_path: Path) -> None:
    moved(table, space, ten, with_overhead(space, table)).save(tmp_path / "new.parquet")
    found = LatencyTable.load(tmp_path / "new.parquet")
    estimated = found.info.estimated
    assert found.device_name == "new"
    assert (estimated.by, estimated.nets) == ("transfer", 10)
    assert estimated.source["device"]["name"] == table.device_name
    assert sum(estimated.shares.values()) == pytest.approx(1, abs=0.01)
    assert found.info.spaces == table.info.spaces
    assert [network.arch for network in found.info.networks] == ten
    assert len(found) == len(table)
    assert (found.rows["median_ms"] >= 0).all()
    assert set(found.rows["repeats"]) == {0}
    assert found.rows[["p90_ms", "min_ms", "std_ms", "energy_mj", "peak_memory_bytes"]].isna().all(axis=None)
    with pytest.raises(TableError, match="must be of the device that it is used with"):
        found.require_device(device)


def test_a_table_of_some_resolutions_gives_one_of_these(space: Space, table: LatencyTable) -> None:
    small = space.restrict(resolution=[16, 24])
    part = table.with_info(spaces={space.name: (16, 24)})
    archs = sample_across_range(small, Estimator(space, part), 10, np.random.default_rng(0))
    found = moved(part, space, archs, lambda arch: latencies(space, table, [arch])[0])
    assert found.info.spaces == {space.name: (16, 24)}
    assert len(found) < len(table)


def test_what_cannot_be_transferred_is_refused(space: Space, table: LatencyTable, ten: list[Arch]) -> None:
    times = latencies(space, table, ten).tolist()
    with pytest.raises(TableError, match="at least 5 different networks must be measured, but there are 4"):
        transfer_table(table, space, ten[:4], times[:4], origin=ORIGIN)
    with pytest.raises(TableError, match="at least 5 different networks must be measured, but there are 1"):
        transfer_table(table, space, ten[:1] * 10, times, origin=ORIGIN)
    with pytest.raises(TableError, match="10 networks and 9 times"):
        transfer_table(table, space, ten, times[:9], origin=ORIGIN)
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(TableError, match="network 10 of 10"):
            transfer_table(table, space, ten, [*times[:9], wrong], origin=ORIGIN)
    with pytest.raises(TableError, match="of ofa-mbv3-tiny and not of ofa-resnet50-tiny"):
        transfer_table(table, get_space("ofa-resnet50-tiny"), ten, times, origin=ORIGIN)
    with pytest.raises(TableError, match=r"lacks 1 of .* classifier"):
        transfer_table(table, get_space("ofa-mbv3-tiny", 7), ten, times, origin=ORIGIN)
    other = get_space("ofa-resnet50-tiny").largest()
    with pytest.raises(ArchError, match="ofa-mbv3-tiny"):
        transfer_table(table, space, [*ten[:9], other], times, origin=ORIGIN)


# -- tables from whole networks alone -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sampled(space: Space) -> list[Arch]:
    rng = np.random.default_rng(5)
    return list(dict.fromkeys(space.sample(rng) for _ in range(200)))


def test_networks_tell_what_their_blocks_cost(space: Space, table: LatencyTable, sampled: list[Arch], unseen: list[Arch]) -> None:
    found = table_from_networks(space, sampled, latencies(space, table, sampled).tolist(), origin=ORIGIN)
    truth = latencies(space, table, unseen)
    assert np.abs(latencies(space, found, unseen) / truth - 1).mean() < 0.01
    assert (found.rows["median_ms"] >= 0).all()
    assert set(found.rows["repeats"]) == {0}
    assert found.info.estimated.by == "networks"
    assert found.info.spaces == {space.name: space.resolutions}


def test_intervals_of_a_table_from_networks_hold(space: Space, table: LatencyTable, sampled: list[Arch], unseen: list[Arch]) -> None:
    rng = np.random.default_rng(6)
    times = latencies(space, table, sampled) * np.exp(0.1 * rng.standard_normal(len(sampled)))
    found = table_from_networks(space, sampled, times.tolist(), origin=ORIGIN)
    truth = latencies(space, table, unseen) * np.exp(0.1 * rng.standard_normal(len(unseen)))
    assert found.correction is not None
    assert 0.8 < (np.abs(truth / latencies(space, found, unseen) - 1) <= found.correction.half_width).mean() < 0.99


def test_a_table_from_networks_has_the_resolutions_asked_for(space: Space, table: LatencyTable, sampled: list[Arch]) -> None:
    small = [arch for arch in sampled if arch.resolution <= 24]
    times = latencies(space, table, small).tolist()
    assert table_from_networks(space, small, times, origin=ORIGIN).info.spaces == {space.name: (16, 24)}
    one = table_from_networks(space, small, times, origin=ORIGIN, resolutions=[32])
    assert one.info.spaces == {space.name: (32,)}
    assert latencies(space, one, [space.largest(32)])[0] > 0
    with pytest.raises(TableError, match="at least 20 different networks must be measured, but there are 19"):
        table_from_networks(space, sampled[:19], [1.0] * 19, origin=ORIGIN)


def test_units_are_those_of_the_layers() -> None:
    block = InvertedResidual(in_channels=8, mid_channels=24, out_channels=16, kernel=3, stride=2)
    # expand 8->24 at 10x10, depthwise to 5x5, project 24->16
    macs, depthwise, written, weights = 8 * 24 * 100 + 24 * 16 * 25, 24 * 9 * 25, 24 * 100 + 24 * 25 + 16 * 25, 8 * 24 + 24 * 9 + 24 * 16
    assert units_of(block, Shape(8, 10, 10)) == (1, 3, macs, depthwise, written, weights)


# -- files and the command ------------------------------------------------------------------------------------------------


def write(path: Path, archs: list[Arch], times: np.ndarray) -> Path:
    pd.DataFrame({"measured_ms": times, "arch": [json.dumps(arch.to_json()) for arch in archs]}).to_csv(path, index=False)
    return path


def test_measurements_are_read(space: Space, table: LatencyTable, ten: list[Arch], tmp_path: Path) -> None:
    times = latencies(space, table, ten)
    archs, read = read_measurements(write(tmp_path / "ten.csv", ten, times), space)
    assert archs == ten
    assert read == times.tolist()


def test_measurements_that_cannot_be_read_are_refused(space: Space, ten: list[Arch], tmp_path: Path) -> None:
    path = tmp_path / "wrong.csv"
    with pytest.raises(FileError, match="no such file"):
        read_measurements(path, space)
    path.write_text("network,measured_ms\n", encoding="utf-8")
    with pytest.raises(TableError, match="lacks arch"):
        read_measurements(path, space)
    for row in ("{},1.0", '"{]",1.0', ",1.0"):
        path.write_text(f"arch,measured_ms\n{row}\n", encoding="utf-8")
        with pytest.raises(TableError, match="line 2 of"):
            read_measurements(path, space)
    write(path, ten, np.ones(len(ten)))
    path.write_text(path.read_text(encoding="utf-8").replace("1.0,", "fast,", 1), encoding="utf-8")
    with pytest.raises(TableError, match=r"line 2 of .*fast"):
        read_measurements(path, space)
    with pytest.raises(TableError, match="each row must be a network of ofa-resnet50-tiny"):
        read_measurements(write(path, ten, np.ones(len(ten))), get_space("ofa-resnet50-tiny"))


class Roof(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        with ending_well():
            return super().invoke(ctx)


def run(*arguments: object) -> Any:
    app = typer.Typer(cls=Roof)
    app.callback()(lambda: None)
    app.command("transfer")(transfer)
    return CliRunner().invoke(app, ["transfer", *map(str, arguments)])


@pytest.fixture(scope="module")
def source(table: LatencyTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "known.parquet"
    table.save(path)
    return path


def test_the_command_measures_networks_of_the_new_device(source: Path, space: Space, table: LatencyTable, tmp_path: Path) -> None:
    output = tmp_path / "new.parquet"
    result = run(source, "--space", space.name, "--device", "fake", "-o", output, "--nets", 6, "--json")
    assert result.exit_code == 0, result.stderr
    report, found = json.loads(result.stdout), LatencyTable.load(output)
    assert report["estimated"] == to_json(found.info.estimated)
    assert report["estimated"]["nets"] == len(found.info.networks) == 6
    assert report["estimated"]["source"]["file"] == source.name
    assert report["blocks"] == len(found) == len(table)
    assert report["runtime_version"] == "1"


def test_the_command_takes_measurements(source: Path, space: Space, table: LatencyTable, ten: list[Arch], tmp_path: Path) -> None:
    output, csv = tmp_path / "new.parquet", write(tmp_path / "ten.csv", ten, 2 * latencies(space, table, ten))
    arguments = (source, "--space", space.name, "--device", "local-cpu", "-o", output, "--measurements", csv)
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert "10 networks and the table of fake" in result.stdout
    found = LatencyTable.load(output)
    assert found.device_name == "local-cpu"
    assert found.info.runtime_version == "unknown"
    assert latencies(space, found, ten) == pytest.approx(2 * latencies(space, table, ten))
    before = output.read_bytes()
    again = run(*arguments)
    assert again.exit_code == 1
    assert "add --overwrite" in again.stderr
    assert output.read_bytes() == before
    assert run(*arguments, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--device", "fake", "--nets", "4"), 1, "at least 5 networks"),
        (("--device", "fakke"), 1, "did you mean"),
        (("--device", "fake", "--measurements", "none.csv"), 1, "no such file"),
        ((), 2, "--device"),
    ],
)
def test_bad_input_of_the_command_is_one_sentence(
    source: Path, space: Space, arguments: tuple[str, ...], status: int, words: str, tmp_path: Path
) -> None:
    result = run(source, "--space", space.name, "-o", tmp_path / "new.parquet", *arguments)
    assert result.exit_code == status
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "new.parquet").exists()


FOLDER = os.environ.get("OFA_PUBLISHED")
PUBLISHED = Path(FOLDER or ".") / "ofa_mbv3_w1.2_gpu_latency.csv"


@pytest.mark.skipif(FOLDER is None, reason="set OFA_PUBLISHED to the folder of published files")
@pytest.mark.parametrize(("known", "new", "least"), [("titan_rtx_1", "2080ti_1", 0.72), ("2080ti_64", "titan_rtx_64", 0.999)])
def test_published_networks_rank_on_a_card_of_which_ten_were_measured(known: str, new: str, least: float) -> None:
    space, data = get_space("ofa-mbv3-w1.2"), pd.read_csv(PUBLISHED)
    keys = {"depths": "d", "kernels": "ks", "expands": "e"}
    archs = [
        mit.arch(space, {key: [int(value) for value in row[name].split("-")] for name, key in keys.items()}, row["resolution"])
        for row in data.to_dict(orient="records")
    ]
    source = table_from_networks(space, archs[:1000], data[f"lat_ms_{known}"].tolist()[:1000], origin=ORIGIN)
    measured = data[f"lat_ms_{new}"].tolist()
    found = transfer_table(source, space, archs[1000:1010], measured[1000:1010], origin=ORIGIN)
    assert spearmanr(latencies(space, found, archs[1010:]), measured[1010:]).statistic > least
