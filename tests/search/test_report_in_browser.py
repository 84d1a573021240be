"""The pages of reports as people meet them: opened as files by a real browser that has no network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ofa.cli.adopt import adopt_into_run
from ofa.data import LeftOut, scan_data
from ofa.data.overview import PlacedImage, overview
from ofa.data.sheet import contact_sheet
from ofa.families import get_space, lower
from search.front.columns import costs_of_front, floats_of
from search.report import read_source, save_report
from search.report.data_page import DataSource, save_data_page
from search.units import typed
from tests.browser import Browser, Tab, find_chromium
from tests.photos import write_photos
from tests.search.fronts import HOSTILE, arch_of, best_rows, make_front, verified
from tests.search.test_report import SPACES, TABLE, make_run

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed")

_CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_chromium()
    assert program is not None
    with Browser(program) as started:
        yield started


@pytest.fixture(scope="module")
def front() -> Any:
    made = make_front(networks=3000)
    made = made.with_verified(verified(made, "pi", [1.0, 1.04, 0.97, 1.2]))
    return made


@pytest.fixture(scope="module")
def pages(front: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    hostile = make_front(devices=(HOSTILE,), command=HOSTILE, study={HOSTILE: HOSTILE})
    hostile = hostile.with_verified(verified(hostile, HOSTILE, [1.0, 1.1]))
    sources = {"front": front, "hostile": hostile, "table": read_source(TABLE), "run": read_source(make_run(folder / "run-folder"))}
    sources |= {"one": type(front)(front.networks.iloc[:1], front.dominated.iloc[:0], front.info)}
    paths = {name: folder / f"{name}.html" for name in sources}
    for name, source in sources.items():
        save_report(source, paths[name], title=HOSTILE if name == "hostile" else None)
    paths["data"] = folder / "data.html"
    save_data_page(images_of(folder / "photos"), paths["data"])
    return paths


def images_of(folder: Path) -> DataSource:
    """What `ofa data` finds in a folder of photos, with names that try to be markup."""
    write_photos(folder, 16)
    scan = scan_data(str(folder))
    placed = [PlacedImage(facts, (HOSTILE,), "train") for facts in scan.facts]
    return DataSource(
        data=HOSTILE,
        resolution=32,
        overview=overview(placed, (HOSTILE,), 32),
        left_out=[*scan.left_out, LeftOut(HOSTILE, HOSTILE)],
        strips=contact_sheet(scan.images(unreadable="skip"), 32),
        rule=scan.rule,
    )


@pytest.fixture
def tab(browser: Browser, pages: dict[str, Path]) -> Iterator[Tab]:
    with browser.open(pages["front"]) as opened:
        yield opened


def set_budget(tab: Tab, column: str, value: float) -> None:
    """Type a budget, given in the column's own unit, into the field that shows it in its unit."""
    tab.run(
        f"""(() => {{
          const key = {json.dumps(column)}, fields = [...document.querySelectorAll("#limits [data-key]")];
          const field = fields.find((each) => each.dataset.key === key);
          field.value = String({value!r} / report.page.costs.find((cost) => cost.key === key).scale);
          field.dispatchEvent(new Event("input"));
        }})()"""
    )


def shown(tab: Tab) -> list[int]:
    """The rows of the table of the best."""
    return [int(row) for row in tab.run("[...document.querySelectorAll('#best tbody tr')].map((row) => row.dataset.row)")]


@pytest.mark.parametrize("name", ["front", "hostile", "table", "run", "one", "data"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_a_page_opens_without_a_complaint_or_a_request(browser: Browser, pages: dict[str, Path], name: str, width: int, dark: bool) -> None:
    with browser.open(pages[name], width=width, dark=dark) as tab:
        assert tab.complaints() == []
        assert tab.requests() == []
        assert tab.run("document.documentElement.scrollWidth") <= width, "nothing may stick out to the side"
        shown = ".strip img" if name == "data" else ".plot svg"
        assert tab.run(f"document.querySelectorAll('{shown}').length") > 0
        assert (
            tab.run(
                "[...document.querySelectorAll('.plot svg path')].some((path) => /NaN|Infinity|undefined/.test(path.getAttribute('d')))"
            )
            is False
        )
        assert tab.run("document.querySelectorAll('h1').length") == 1
        assert tab.run(_CONTRAST) == []


def test_names_of_others_are_inert(browser: Browser, pages: dict[str, Path]) -> None:
    with browser.open(pages["hostile"]) as tab:
        assert tab.run("window.ran") is None
        assert tab.run("document.querySelectorAll('img').length") == 0
        assert tab.run("document.title") == HOSTILE
        assert tab.run("document.querySelector('h1').textContent") == HOSTILE
        assert HOSTILE in tab.run("document.querySelector('#limits label').textContent")
        assert HOSTILE in tab.run("document.querySelector('#provenance').textContent")


def test_whatever_gets_in_cannot_run(browser: Browser, pages: dict[str, Path]) -> None:
    """The page's policy is the second wall: even markup that somebody managed to insert does nothing."""
    with browser.open(pages["front"]) as tab:
        tab.run("document.body.insertAdjacentHTML('beforeend', '<img src=\"http://127.0.0.1:9/x.png\" onerror=\"window.ran=1\">')")
        tab.run("document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.ran = 1' }))")
        tab.run("new Promise((done) => setTimeout(done, 100))")
        assert tab.run("window.ran") is None
        assert "Content Security Policy" in " ".join(tab.complaints())


def test_budgets_pick_what_the_front_picks(tab: Tab, front: Any) -> None:
    rng = np.random.default_rng(3)
    costs = costs_of_front(front.networks, front.info)
    met = 0
    for _ in range(20):
        chosen = rng.choice(len(costs), size=rng.integers(1, 4), replace=False)
        limits = {costs[c].key: 0.97 * float(np.quantile(floats_of(front.networks, costs[c].key), rng.uniform(0.0, 0.8))) for c in chosen}
        tab.run("document.getElementById('clear').click()")
        for column, limit in limits.items():
            set_budget(tab, column, limit)
        expected = best_rows(front, limits)
        assert shown(tab) == expected, limits
        words = tab.run("document.getElementById('answer').textContent")
        assert words.startswith("No network" if not expected else tuple("123456789"))
        met += bool(expected)
    assert 5 < met < 20, "some budgets must be possible and some not"
    assert tab.complaints() == []


def test_latencies_can_be_compared_as_expected(tab: Tab, front: Any) -> None:
    limit = float(np.median(floats_of(front.networks, "latency_ms@pi")))
    set_budget(tab, "latency_ms@pi", limit)
    assert shown(tab) == best_rows(front, {"latency_ms@pi": limit})
    tab.run("document.getElementById('expected').click()")
    assert shown(tab) == best_rows(front, {"latency_ms@pi": limit}, expected=True)


def test_a_budget_that_cannot_be_kept_is_said_in_words(tab: Tab, front: Any) -> None:
    set_budget(tab, "latency_ms@pi", 1e-3)
    words = tab.run("document.getElementById('answer').textContent")
    least = floats_of(front.networks, "latency_high_ms@pi").min()
    assert words.startswith("No network of this front keeps that budget: the least is a latency on pi (upper end of its interval) of ")
    # What it says can be typed, and is then met.
    raised = float(words.split(" of ")[-1].split(" ms")[0])
    assert least <= raised <= 1.002 * least
    assert shown(tab) == []
    assert tab.run("document.getElementById('picked').hidden") is True
    set_budget(tab, "latency_ms@pi", raised)
    assert len(shown(tab)) >= 1


def test_limits_that_exclude_each_other_are_told(tab: Tab, front: Any) -> None:
    size, latency = floats_of(front.networks, "weight_bytes"), floats_of(front.networks, "latency_high_ms@pi")
    smallest, fastest = size.min(), latency[np.argmin(size)]
    set_budget(tab, "weight_bytes", float(smallest))
    set_budget(tab, "latency_ms@pi", float((latency.min() + fastest) / 2))
    words = tab.run("document.getElementById('answer').textContent")
    assert not best_rows(front, {"weight_bytes": float(smallest), "latency_ms@pi": float((latency.min() + fastest) / 2)})
    assert "With the others as they are, the least is a" in words


def test_a_slider_and_its_number_agree(tab: Tab, front: Any) -> None:
    tab.run("(() => { const s = document.getElementById('limit-0-slider'); s.value = 400; s.dispatchEvent(new Event('input')); })()")
    limit = float(tab.run("document.getElementById('limit-0').value"))
    assert shown(tab) == best_rows(front, {"latency_ms@pi": limit})
    assert tab.run("document.getElementById('limit-0-slider').getAttribute('aria-valuetext')").endswith(" ms")
    tab.run("(() => { const s = document.getElementById('limit-0-slider'); s.value = 1000; s.dispatchEvent(new Event('input')); })()")
    assert tab.run("document.getElementById('limit-0').value") == ""
    assert shown(tab) == best_rows(front, {})


def test_nonsense_in_a_budget_is_marked_and_sets_no_limit(tab: Tab, front: Any) -> None:
    set_budget(tab, "macs", -3.0)
    assert tab.run("document.querySelector('[data-key=\"macs\"]').getAttribute('aria-invalid')") == "true"
    assert shown(tab) == best_rows(front, {})


def test_clicking_a_point_picks_its_network(tab: Tab, front: Any) -> None:
    row = len(front.networks) // 2
    place = tab.run(
        f"(() => {{ const {{ plot }} = report.explorer.plots[0]; document.getElementById('pick').scrollIntoView({{ behavior: 'instant' }});"
        f" const box = plot.area.getBoundingClientRect(), x = report.explorer.columns['latency_ms@pi'][{row}];"
        f" return [box.left + plot.X(x), box.top + plot.Y(report.explorer.accuracy[{row}])]; }})()"
    )
    tab.click(*place)
    picked = tab.run("report.explorer.picked")
    nearby = [arch_of(front, picked).to_json(), arch_of(front, row).to_json()]
    assert tab.run(f"report.archOf({picked})") == nearby[0]
    near = floats_of(front.networks, "latency_ms@pi")
    assert near[picked] == pytest.approx(near[row], rel=0.02)
    assert tab.run("document.querySelector('#picked h3').textContent") == "The network you picked"
    assert "accuracy" in tab.run("document.querySelector('#hero .tip').textContent")


@pytest.mark.parametrize("name", SPACES)
def test_a_drawing_has_a_box_for_every_block(browser: Browser, tmp_path: Path, name: str) -> None:
    front = make_front(name, networks=300)
    save_report(front, tmp_path / "report.html")
    space = get_space(name)
    with browser.open(tmp_path / "report.html") as tab:
        for row in range(0, len(front.networks), 7):
            tab.run(f"report.explorer.pick({row})")
            arch = arch_of(front, row)
            tab.wait("document.querySelector('#picked .drawing svg') !== null")
            boxes = tab.run("[...document.querySelectorAll('#picked [data-block]')].map((box) => box.dataset.block)")
            assert boxes == [placed.name for placed in lower(space, arch)]
            missing = sum(stage.depths[-1] - len(blocks) for stage, blocks in zip(space.stages, arch.stages, strict=True))
            assert tab.run("document.querySelectorAll('#picked .empty').length") == missing
            assert tab.run(f"report.archOf({row})") == arch.to_json()
        tab.wait("document.querySelectorAll('#chosen .drawing svg').length === report.page.chosen.length")
        tab.run("document.querySelector('#picked details').open = true")
        tab.wait("document.querySelectorAll('#picked table.blocks tbody tr').length > 0")
        assert tab.run("document.querySelectorAll('#picked table.blocks tbody tr').length") == len(boxes)
        assert tab.complaints() == []


def test_everything_can_be_reached_and_done_by_keyboard(tab: Tab, front: Any) -> None:
    seen = []
    for _ in range(60):
        tab.press("Tab")
        seen.append(tab.run("(() => { const a = document.activeElement; return a.id || a.dataset.key || a.className || a.tagName; })()"))
        if seen[-1] == "BODY":
            break
    costs = len(costs_of_front(front.networks, front.info))
    assert seen[0] == "skip"
    assert {f"limit-{c}" for c in range(costs)} | {f"limit-{c}-slider" for c in range(costs)} | {"clear", "plot"} <= set(seen)
    # Along the chart with arrows: the facts are said aloud, and Enter picks.
    tab.run("document.querySelector('#hero .plot').focus()")
    tab.press("ArrowRight", "ArrowRight")
    assert "accuracy" in tab.run("document.getElementById('announce').textContent")
    tab.press("Enter")
    picked = tab.run("report.explorer.picked")
    assert picked is not None
    tab.press("End", "Enter")
    assert tab.run("report.explorer.accuracy[report.explorer.picked]") == pytest.approx(floats_of(front.networks, "accuracy").max())
    named = "(each) => each.labels?.length || each.getAttribute('aria-label') || each.textContent"
    assert tab.run(f"""[...document.querySelectorAll('input, button, [tabindex="0"]')].every({named})""")


def test_a_chart_has_its_points_and_its_budget(tab: Tab, front: Any) -> None:
    set_budget(tab, "latency_ms@pi", float(np.median(floats_of(front.networks, "latency_ms@pi"))))
    d = tab.run("document.querySelector('#hero .dots.inside').getAttribute('d')")
    assert 0 < d.count("M") <= len(front.networks) // 2
    assert tab.run("document.querySelector('#hero .border').getAttribute('d')").startswith("M")
    assert tab.run("document.querySelectorAll('#multiples .plot').length") == len(costs_of_front(front.networks, front.info))


def test_a_page_without_its_script_still_has_its_words(pages: dict[str, Path]) -> None:
    text = pages["front"].read_text(encoding="utf-8")
    assert "<noscript>" in text
    assert "Effect on accuracy, points" in text


def test_a_page_of_thousands_of_networks_is_small(tmp_path: Path) -> None:
    front = make_front("ofa-mbv3-32px", networks=3000)
    frame = front.networks.iloc[np.arange(5000) % len(front.networks)].reset_index(drop=True)
    save_report(type(front)(frame, front.dominated, front.info), tmp_path / "big.html")
    assert (tmp_path / "big.html").stat().st_size < 12e6


LONG = "a-raspberry-pi-5-in-the-cellar-with-a-fan-that-somebody-named-with-more-care-than-charts-have-room-for"

_OUTSIDE = """[...document.querySelectorAll('.names text')].filter((text) => {
  const own = text.getBoundingClientRect(), around = text.closest('.plot').getBoundingClientRect();
  return own.left < around.left - 1 || own.right > around.right + 1 || own.top < around.top - 1 || own.bottom > around.bottom + 1;
}).map((text) => text.textContent)"""


@pytest.mark.parametrize("width", [390, 1280])
def test_names_beside_axes_are_whole_and_within_the_chart(browser: Browser, tmp_path: Path, width: int) -> None:
    made = make_front(networks=200, devices=(LONG,))
    made = made.with_verified(verified(made, LONG, [1.0, 1.1]))
    save_report(made, tmp_path / "long.html")
    with browser.open(tmp_path / "long.html", width=width) as tab:
        names = tab.run("[...document.querySelectorAll('#hero .names text')].map((text) => text.textContent)")
        assert names[0].replace(" ", "") == f"latencyon{LONG}(ms)"
        assert names[1] == "accuracy, predicted (%)"
        assert tab.run(_OUTSIDE) == []
        assert "…" not in tab.run("document.body.textContent")


def test_a_saved_arch_comes_with_the_next_command_and_accuracies_say_how_they_are_known(tab: Tab) -> None:
    assert tab.run("document.querySelector('#picked pre').textContent") == "ofa specialize RUN --arch arch.json -o network.bundle"
    assert "accuracy, predicted" in tab.run("document.querySelector('#best thead').textContent")
    assert "% (predicted) at" in tab.run("document.getElementById('answer').textContent")


def test_only_resolutions_that_exist_are_drawn(tab: Tab) -> None:
    charts = "Object.values(report.page.charts).filter((chart) => chart.y.words === 'median resolution')"
    drawn = tab.run(f"{charts}.flatMap((chart) => chart.layers.flatMap((layer) => Array.from(layer.y)))")
    assert drawn
    assert set(drawn) <= set(get_space("ofa-mbv3-tiny").resolutions)


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``ofa adopt`` said, and the pages of its run and of a front of its networks."""
    folder = tmp_path_factory.mktemp("adopted")
    said = adopt_into_run("tests.cli.own_model:model", (3, 16, 16), folder / "mine.run", resolutions=[24])
    space = get_space(f"{said['run']}/space.json")
    front = make_front(f"{said['run']}/space.json", networks=60, devices=())
    front = type(front)(front.networks, front.dominated, replace(front.info, space=space.name, space_json=space.to_json()))
    save_report(read_source(said["run"]), folder / "run.html")
    save_report(front, folder / "front.html")
    return {**said, "pages": {"run": folder / "run.html", "front": folder / "front.html"}}


_STICKS_OUT = """[...document.querySelectorAll('#adopted *')].filter((each) => !each.closest('.wide table')
  && each.getBoundingClientRect().right > document.documentElement.clientWidth).map((each) => each.outerHTML.slice(0, 80))"""
_SMALL = """[...document.querySelectorAll('#adopted :is(th, td, dt, dd, h2, h3, summary)')]
  .filter((each) => each.checkVisibility() && (parseFloat(getComputedStyle(each).fontSize) < 12 || each.clientHeight === 0)).length"""


@pytest.mark.parametrize("name", ["run", "front"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, True)])
def test_the_section_on_an_adopted_model_tells_groups_choices_and_costs(
    browser: Browser, adopted: dict[str, Any], name: str, width: int, dark: bool
) -> None:
    with browser.open(adopted["pages"][name], width=width, dark=dark) as tab:
        assert tab.complaints() == []
        assert tab.requests() == []
        assert tab.run("document.querySelector('nav a[href=\"#adopted\"]').textContent") == "Elastic sizes"
        rows = tab.run("[...document.querySelectorAll('#adopted tr')].map((row) => [...row.cells].map((cell) => cell.textContent))")
        (group,) = [each for each in adopted["groups"] if each["units"] == 16]
        assert ["width", "all: stem", "16", "8, 16", str(group["tensors"])] in rows
        assert ["depth", "1: body.0", "2 blocks", "1, 2", ""] in rows
        for end, input_size in (("smallest", "16 px"), ("largest", "24 px")):
            costs = [typed(key, adopted[end][key], up=True) for key in ("macs", "params", "weight_bytes", "peak_activation_bytes")]
            assert [end, input_size, *costs] in rows
        tab.run("document.querySelectorAll('#adopted details').forEach((each) => { each.open = true; })")
        members = tab.run("[...document.querySelectorAll('#adopted dd')].map((each) => each.textContent)")
        assert members == ([", ".join(group["members"])] if name == "run" else [])
        assert ("is the number of classes" in tab.run("document.getElementById('adopted').textContent")) is (name == "run")
        assert tab.run(_STICKS_OUT) == []
        assert tab.run(_SMALL) == 0
        assert tab.run("[...document.querySelectorAll('#adopted .wide')].every((each) => each.tabIndex === 0 && each.ariaLabel)")
        assert tab.run(_CONTRAST) == []


def test_a_front_of_several_precisions_says_that_of_each_network(browser: Browser, tmp_path: Path) -> None:
    made = make_front(devices=("pi",), precisions={"pi": {"fp32": "pi", "int8": "pi-int8"}})
    networks = made.networks.assign(precision=["int8", "fp32"] * (len(made) // 2) + ["int8"] * (len(made) % 2))
    save_report(type(made)(networks, made.dominated, made.info), tmp_path / "front.html")
    with browser.open(tmp_path / "front.html") as tab:
        assert tab.complaints() == []
        assert "image, precision" in tab.run("document.querySelector('#best thead').textContent")
        texts = tab.run("[...document.querySelectorAll('#best tbody tr')].map((row) => row.textContent)")
        assert [f"px, {networks['precision'].iloc[row]}" in text for row, text in zip(shown(tab), texts, strict=True)] == [True] * len(
            texts
        )
