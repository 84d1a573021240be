from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest

import latency_tables
from devices import Device
from latency_tables import LatencyTable
from latency_tables.info import TableInfo
from ofa.blocks import make_divisible
from ofa.errors import FileError
from ofa.families import derive, get_space, lower
from ofa.training import demo_recipe
from ofa.training.checkpoint import append_metrics, begin_run
from ofa.training.metrics import EpochMetrics
from search.front.columns import best_along, costs_of_front, figures, floats_of
from search.report import page_of, read_source, save_report
from search.report.drawing import drawings
from search.report.front_page import heat_maps
from search.report.genes import main_effects, trends
from search.report.heat import LEVELS, heat_map
from search.report.measured import calibration_of, residuals_of, verified_of
from search.report.page import render
from search.report.pictures import save_pictures
from search.report.provenance import groups_of
from search.report.training import read_run
from tests.ofa.strategies import TINY_SPACES
from tests.search.fronts import HOSTILE, arch_of, make_front, verified

TABLE = Path(latency_tables.__file__).parent / "data" / "ofa-mbv3-32px_local-pytorch.parquet"
SPACES = TINY_SPACES


def make_run(folder: Path, epochs: int = 6) -> Path:
    begin_run(folder, demo_recipe())
    for epoch in range(1, epochs + 1):
        phase, accuracies = ("full", {}) if epoch < 4 else ("kernel", {"smallest_accuracy": 0.5, "largest_accuracy": 0.9})
        times = {"images_per_s": 900.0, "duration_s": 2.0}
        metrics = EpochMetrics(
            phase=phase, epoch=epoch, epochs=6, loss=3 / epoch, accuracy=0.1 * epoch, learning_rate=0.1, step=epoch, **times, **accuracies
        )
        append_metrics(folder, metrics)
    return folder


# -- numbers in words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "words"), [(12.3456, "12.3"), (0.001234, "0.00123"), (1234.5, "1,234"), (0.0, "0.00"), (-3.0, "-3.00"), (np.nan, "unknown")]
)
def test_numbers_have_three_digits_and_no_exponent(value: float, words: str) -> None:
    assert figures(value) == words


def test_costs_are_in_the_order_of_the_search_and_in_a_fitting_unit() -> None:
    front = make_front()
    costs = costs_of_front(front.networks, front.info)
    keys = ["latency_ms@pi", "latency_ms@phone", "energy_mj@phone", "macs", "params", "weight_bytes", "peak_activation_bytes"]
    assert [cost.key for cost in costs] == keys
    assert [(cost.low, cost.high) for cost in costs[:2]] == [("latency_low_ms@pi", "latency_high_ms@pi"), (None, None)]
    assert {cost.key: cost.unit for cost in costs}["weight_bytes"] in ("KiB", "MiB")
    assert costs[0].label == "latency on pi, ms"


def test_a_search_about_macs_alone_needs_no_device() -> None:
    front = make_front(devices=())
    assert costs_of_front(front.networks, front.info)[0].key == "macs"
    assert page_of(front).title == "ofa-mbv3-tiny"


def test_pages_say_what_latencies_hold_under() -> None:
    about = TableInfo(device=Device(name="pi", runtime="onnxruntime", pause_ms=100).to_json(), runtime_version="1.20.0")
    page = page_of(make_front(latency={"pi": about}))
    assert ("conditions on pi", "batch 1, fp32, 1 thread, 100 ms of pause before each call, onnxruntime 1.20.0") in page.facts
    (rows,) = [dict(rows) for title, rows in page.content["groups"] if title == "Latency on pi"]
    assert rows["conditions: pause ms"] == "100"
    table = page_of(LatencyTable.load(TABLE))
    assert "calls in a row" in dict(table.facts)["conditions"]


def test_the_best_along_a_cost_are_a_staircase() -> None:
    cost, accuracy = np.array([3.0, 1.0, 2.0, 2.0, 4.0, np.nan]), np.array([0.5, 0.1, 0.4, 0.3, 0.5, 0.9])
    assert best_along(cost, accuracy).tolist() == [1, 2, 0]


# -- genes ------------------------------------------------------------------------------------------------------------


def test_effects_that_are_there_are_found() -> None:
    space = get_space("ofa-mbv3-tiny")
    rows = space.sample_rows(600, np.random.default_rng(0))
    column = [gene.name for gene in space.columns].index("resolution")
    effects = main_effects(space, rows, 0.7 + 0.05 * rows[:, column].astype(float))
    assert effects is not None
    assert effects.explained > 0.99
    assert effects.by_gene["resolution"].size == pytest.approx(0.05 * rows[:, column].std(), rel=0.02)
    others = [effect.size for name, effect in effects.by_gene.items() if name != "resolution"]
    assert max(others) < 0.002
    deltas = [delta for _, _, delta in effects.by_gene["resolution"].values]
    assert np.diff(deltas) == pytest.approx(0.05, rel=0.02)


def test_an_effect_names_height_and_width() -> None:
    space = derive(get_space("ofa-mbv3-tiny"), "wide", resolutions=["16x24", 24])
    rows = space.sample_rows(200, np.random.default_rng(0))
    effects = main_effects(space, rows, rows[:, 0].astype(float))
    assert effects is not None
    others = dict(heat_map(space, effects, words="accuracy", unit="points", scale=0.01).others)
    assert [line.partition(":")[0] for line in others["resolution"].title.split("\n")] == ["resolution", "16x24", "24"]


def test_effects_of_noise_explain_nothing() -> None:
    space, rng = get_space("ofa-mbv3-tiny"), np.random.default_rng(0)
    effects = main_effects(space, space.sample_rows(300, rng), rng.normal(size=300))
    assert effects is not None
    assert effects.explained < 0.1


def test_few_or_equal_networks_have_no_effects() -> None:
    space = get_space("ofa-mbv3-tiny")
    rows = space.sample_rows(40, np.random.default_rng(0))
    assert main_effects(space, rows[:29], np.arange(29.0)) is None
    assert main_effects(space, rows, np.ones(40)) is None
    assert main_effects(space, np.repeat(rows[:1], 40, axis=0), np.arange(40.0)) is None


@pytest.mark.parametrize("name", SPACES)
def test_the_heat_map_has_a_cell_for_every_gene(name: str) -> None:
    front = make_front(name)
    maps = heat_maps(front)
    assert [each.words for each in maps] == ["accuracy", "latency on pi"]
    space = get_space(name)
    for each in maps:
        assert len(each.stages) == len(space.stages)
        assert {gene.name.replace("_", " ") for gene in space.network} | {"resolution"} == {words for words, _ in each.others}
        cells = [cell for row in each.stages for cell in row] + [cell for _, cell in each.others]
        assert max(cell.level for cell in cells) == LEVELS - 1
        assert all(cell.title.count("\n") >= 2 for cell in cells if cell.text)


def test_trends_follow_the_genes_along_the_front() -> None:
    space = get_space("ofa-mbv3-tiny")
    rows = space.canonical(np.array([[i] * len(space.columns) for i in (0, 1)], dtype=np.int8))
    found = {trend.kind: trend for trend in trends(space, rows, np.array([1.0, 2.0]), np.array([0.5, 0.6]))}
    assert set(found) == {"resolution", "depth", "kernel", "expand"}
    assert found["resolution"].means["resolution"].tolist() == list(space.resolutions[:2])
    assert found["kernel"].costs.tolist() == [1.0, 2.0]
    assert trends(space, rows[:1], np.array([1.0]), np.array([0.5])) == ()


def test_trends_of_a_network_s_own_genes_go_with_their_kind() -> None:
    space = get_space("ofa-resnet50-tiny")
    rows = space.encode_all([space.smallest(), space.largest()])
    found = {trend.kind: set(trend.means) for trend in trends(space, rows, np.array([1.0, 2.0]), np.array([0.5, 0.6]))}
    assert found["depth"] == {"stem", "stage 1", "stage 2"}
    assert found["width"] >= {"stem", "stage 1", "stage 2"}


# -- drawings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_every_network_can_be_drawn_from_the_blocks(name: str) -> None:
    front = make_front(name, networks=100)
    space = get_space(name)
    archs = [arch_of(front, row) for row in range(len(front.networks))]
    drawn = drawings(space, archs)
    for row, arch in enumerate(archs):
        blocks = [drawn["blocks"][i] for i in drawn["networks"][row]]
        placed = lower(space, arch)
        assert [block["name"] for block in blocks] == [each.name for each in placed]
        assert sum(block["macs"] for block in blocks) == front.networks["macs"].iloc[row]
        assert sum(block["params"] for block in blocks) == front.networks["params"].iloc[row]
        genes = [block["genes"] for block in blocks if block["name"].startswith("stages")]
        assert genes == [dict(each) for stage in arch.stages for each in stage]
        assert drawn["resolutions"][row] == arch.resolution
    assert len(drawn["blocks"]) < sum(map(len, drawn["networks"])) / 2


def test_a_block_says_what_it_is() -> None:
    space = get_space("ofa-mbv3-tiny")
    drawn = drawings(space, [space.largest()])
    (block,) = [block for block in drawn["blocks"] if block["name"] == "stages.1.1"]
    assert block["mid"] == make_divisible(block["in"] * block["genes"]["expand"])
    assert (block["kernel"], block["stride"], "residual" in block["words"]) == (5, 1, True)


# -- predicted and measured -------------------------------------------------------------------------------------------


def test_a_verification_is_summed_up() -> None:
    front = make_front()
    entries = [*verified(front, "pi", [1.0, 1.05, 1.2, 0.95]), *verified(front, "phone", [1.1])]
    by_device = {each.device: each for each in verified_of(front.with_verified(entries).info)}
    assert by_device["pi"].mean_error == pytest.approx(0.075)
    assert by_device["pi"].inside == pytest.approx(0.75)
    assert np.isnan(by_device["phone"].inside)
    assert np.isnan(by_device["phone"].kendall)


def test_networks_of_a_calibration_are_compared() -> None:
    table = LatencyTable.load(TABLE)
    found, left = calibration_of(table), residuals_of(table.info)
    assert found is not None
    assert left is not None
    assert len(found.names) == len(left.shares) == 20
    assert found.mean_error < left.half_width
    bare = table.with_info(calibration=None)
    assert (calibration_of(bare), residuals_of(bare.info)) == (None, None)


# -- pages ------------------------------------------------------------------------------------------------------------


def data_of(html: str) -> dict[str, object]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert match
    data: dict[str, object] = json.loads(match[1])
    return data


def test_a_page_asks_for_nothing_and_is_the_same_every_time(tmp_path: Path) -> None:
    front = make_front()
    html = render(page_of(front, title="Ours"))
    assert html == render(page_of(front, title="Ours"))
    assert "<title>Ours</title>" in html
    assert "default-src 'none'; script-src 'sha256-" in unescape(html)
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg"}, "the name of SVG is no address; nothing else may be there"
    assert not re.search(r"\sstyle=|\son[a-z]+=|innerHTML|insertAdjacentHTML|eval\(", html)
    assert data_of(html)["kind"] == "front"
    save_report(front, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_names_of_others_stay_text() -> None:
    front = make_front(devices=(HOSTILE,), command=HOSTILE)
    front = front.with_verified(verified(front, HOSTILE, [1.0, 1.1, 0.9]))
    html = render(page_of(front, title=HOSTILE))
    assert "<img" not in html
    assert html.count("</script>") == 2


def test_a_front_says_what_it_lacks() -> None:
    front = make_front(networks=30)
    html = render(page_of(front))
    assert "ofa query FRONT --verify" in html
    assert "at least 30 networks" in html
    single = type(front)(front.networks.iloc[:1], front.dominated.iloc[:0], front.info)
    assert "too few networks" in render(page_of(single))


def test_a_front_shows_calibrations_and_verifications() -> None:
    front = make_front(latency={"pi": LatencyTable.load(TABLE).info})
    assert "Calibration on local-pytorch" in render(page_of(front))
    front = front.with_verified(verified(front, "pi", [1.0, 1.1, 0.9]))
    html = render(page_of(front))
    assert "3 networks on pi" in html
    assert "--verify" not in html


def test_provenance_lists_everything_and_counts_what_is_long() -> None:
    metadata = {"ofa": "1.0", "study": {"seed": 3, "deep": {"er": True}}, "many": [{"a": 1}] * 9, "list": list(range(20)), "none": None}
    groups = dict(groups_of(metadata, "File"))
    assert groups["File"] == [("ofa", "1.0"), ("many", "9"), ("list", "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 ... (20 in all)")]
    assert groups["study"] == [("seed", "3"), ("deep: er", "yes")]


def test_a_table_and_a_run_have_pages(tmp_path: Path) -> None:
    table = render(page_of(read_source(TABLE)))
    assert "Calibration on local-pytorch" in table
    assert "The slowest blocks" in table
    run = render(page_of(read_source(make_run(tmp_path / "run"))))
    assert "so far, the run has not ended" in run
    assert "images not trained on" in run
    (tmp_path / "run" / "metrics.jsonl").write_bytes((tmp_path / "run" / "metrics.jsonl").read_bytes().replace(b"kernel", b"kernal", 1))
    assert "1 lines of the metrics, left out" in render(page_of(read_source(tmp_path / "run")))
    assert "no epochs on record" in render(page_of(read_run(make_run(tmp_path / "empty", epochs=0))))


def test_pictures_of_everything_are_written(tmp_path: Path) -> None:
    front = make_front()
    front = front.with_verified(verified(front, "pi", [1.0, 1.1, 0.9]))
    names = {path.stem for path in save_pictures(front, tmp_path / "front")}
    assert names >= {"front", "costs", "measured-1", "genes", "along-the-front-1"}
    assert {path.stem for path in save_pictures(LatencyTable.load(TABLE), tmp_path)} >= {"blocks", "measured-1", "calibration-1"}
    paths = save_pictures(read_run(make_run(tmp_path / "run")), tmp_path)
    assert {path.stem for path in paths} == {"loss", "accuracy", "rate", "speed"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    with pytest.raises(FileError, match="must be a folder that can be made"):
        save_pictures(front, tmp_path / "absent" / "folder")


# -- what cannot be read ----------------------------------------------------------------------------------------------


def test_other_things_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist; check the path"):
        read_source(tmp_path / "absent")
    with pytest.raises(FileError, match=r"lacks config\.toml and metrics\.jsonl; make a run with: ofa train"):
        read_source(tmp_path)
    (tmp_path / "words").write_text("words")
    with pytest.raises(FileError, match="no complete Parquet file"):
        read_source(tmp_path / "words")
    make_front(networks=30).save(tmp_path / "front")
    run = make_run(tmp_path / "run")
    (run / "config.toml").write_text("space = ")
    with pytest.raises(FileError, match="must be TOML, but"):
        read_source(run)


def test_a_front_keeps_its_numbers(tmp_path: Path) -> None:
    """Budgets are compared in the page, so it must have every digit."""
    front = make_front()
    networks = data_of(render(page_of(front)))["networks"]
    assert isinstance(networks, dict)
    for column in ("accuracy", "latency_high_ms@pi", "weight_bytes"):
        assert networks[column] == floats_of(front.networks, column).tolist()
