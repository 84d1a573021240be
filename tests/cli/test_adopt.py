"""``ofa adopt``: a model of somebody's own becomes a run that all commands read, and what is said of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import ofa
from ofa.adopting.record import ADOPTION, AdoptionRecord
from ofa.cli.adopt import read_class_names
from ofa.cli.adopted_sheets import render as sheet
from ofa.errors import FileError, SpaceError
from ofa.families import AdoptedSpace, get_space
from ofa.files import write_json
from ofa.space import Space
from ofa.training import begin_run, demo_recipe, load_run, progressive_shrinking, single_stage
from ofa.training.start import Start, open_start
from search.front.front import Front
from search.report import page_of, read_source
from search.report.page import render
from tests.cli.own_model import model
from tests.commands import command_line
from tests.search.fronts import make_front

OWN = "tests.cli.own_model"
NAMES = ["ash", "birch", "cedar", "elm"]


def adopt(*arguments: object, name: str = f"{OWN}:model") -> Any:
    return command_line("adopt", name, *arguments)


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("adopted")
    (folder / "names.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    # Weights as a wrapped model leaves them, other than those that the module makes.
    weights = {f"module.{name}": tensor + 0.01 for name, tensor in model().state_dict().items() if tensor.is_floating_point()}
    torch.save({"state_dict": weights}, folder / "weights.pth")
    files = ("--weights", folder / "weights.pth", "--classes-from", folder / "names.txt")
    result = adopt("--input", "3x16x16", "--resolutions", 24, *files, "-o", folder / "mine.run", "--json")
    assert result.exit_code == 0, result.stderr
    return {**json.loads(result.stdout), "folder": folder}


def test_the_run_holds_the_model_and_all_its_parts(adopted: dict[str, Any]) -> None:
    run = load_run(adopted["run"])
    space = run.supernet.space
    assert (space.name, space.resolutions, space.num_classes) == ("adopted-plain", (16, 24), 4)
    assert get_space(f"{adopted['run']}/space.json") == space
    assert run.recipe.phases[0].restrict(space) == space
    wanted = model().eval()
    wanted.load_state_dict({name: tensor + 0.01 if tensor.is_floating_point() else tensor for name, tensor in wanted.state_dict().items()})
    x_BCHW = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(run.supernet.eval().extract(space.largest(16))(x_BCHW), wanted(x_BCHW))
    assert adopted["difference"] == 0


def test_the_report_says_what_is_elastic_and_what_stays_and_why(adopted: dict[str, Any]) -> None:
    groups = {group["name"]: group for group in adopted["groups"]}
    stem = groups["stem.weight[0]"]
    assert (stem["units"], stem["choices"], stem["stage"]) == (16, [8, 16], None)
    assert {"stem.weight[0]", "body.1.conv.weight[1]", "head.weight[1]"} <= set(stem["members"])
    assert [(depth["stage"], depth["choices"], depth["origins"]) for depth in adopted["depths"]] == [(0, [1, 2], ["body.0", "body.1"])]
    fixed = {(each["tensor"], each["dim"]): each["reason"] for each in adopted["fixed"]}
    assert fixed["head.weight", 0] == "is the number of classes"
    assert "own_model.py" in fixed["stem.weight", 1]
    assert adopted["smallest"]["macs"] < adopted["largest"]["macs"]
    assert adopted["largest"]["params"] == sum(tensor.numel() for tensor in model().parameters())
    assert 0.9 < adopted["elastic_share"] < 1


def test_people_read_it_in_80_columns(adopted: dict[str, Any]) -> None:
    many = [{"tensor": f"layers.{n}.attention.scale", "dim": 0, "size": 7, "reason": "must be 7 (here)"} for n in range(40)]
    for fixed in (adopted["fixed"], many):
        screen = Console(width=80, record=True)
        with screen.capture() as shown:
            screen.print(sheet({**adopted, "run": "mine.run", "fixed": fixed}))
        text = shown.get()
        assert all(len(line) <= 80 for line in text.splitlines())
        assert "what the model does, bit for bit" in " ".join(text.replace("│", " ").split())
        assert "ofa train adopt --from mine.run --set data=DATA -o TRAINED" in text
    assert "layers.2.attention.scale[0] of 7 and 37 more" in " ".join(text.split())


def test_a_start_knows_the_classes_and_an_overwritten_run_forgets_the_adoption(adopted: dict[str, Any], tmp_path: Path) -> None:
    space = load_run(adopted["run"]).supernet.space
    opened = open_start(Start(path=adopted["run"]), space)
    assert opened is not None
    assert opened.class_names == tuple(NAMES)
    shutil.copytree(adopted["run"], tmp_path / "run")
    assert AdoptionRecord.load(tmp_path / "run") is not None
    begin_run(tmp_path / "run", demo_recipe())
    assert AdoptionRecord.load(tmp_path / "run") is None
    write_json({"kind": "adoption", "schema": 9}, tmp_path / "run" / ADOPTION)
    with pytest.raises(FileError, match="adopt the model anew"):
        AdoptionRecord.load(tmp_path / "run")


def test_pages_show_what_networks_of_an_adopted_model_may_choose(adopted: dict[str, Any]) -> None:
    text = render(page_of(read_source(adopted["run"])))
    assert "What networks of the adopted model may choose" in text
    assert "1: body.0" in text
    assert "is the number of classes" in text
    assert "body.1.conv.weight[1]" in text
    space = load_run(adopted["run"]).supernet.space
    front = make_front(f"{adopted['run']}/space.json", networks=60, devices=())
    info = replace(front.info, space=space.name, space_json=space.to_json())
    page = page_of(Front(front.networks, front.dominated, info))
    assert page.data["drawings"]["blocks"][1]["words"] == ["body.0 of the model"]
    text = render(page)
    assert "1: body.0" in text
    assert "are on the page of the run that" in text


def test_python_gives_the_same_space_and_leaves_the_model(adopted: dict[str, Any]) -> None:
    own = model()
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    space, supernet = ofa.adopt(own, torch.zeros(1, 3, 16, 16), resolutions=[24])
    assert space == load_run(adopted["run"]).supernet.space == supernet.space
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())


def test_each_step_is_told_and_how_far_the_search_for_groups_is() -> None:
    told: list[tuple[int, int, str]] = []
    ofa.adopt(model(), (3, 16, 16), resolutions=[], progress=lambda done, total, text="": told.append((done, total, text)))
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1][0] == told[-1][1]
    *_, last = [text for _, _, text in told if text.startswith("finding coupled dimensions: ")]
    done, of, total, _ = last.split()[-4:]
    assert (done, of) == (total, "of")


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("nowhere:model", (), "model 'nowhere:model' must be importable as module:attribute"),
        ("model", (), "must be named module:attribute, but is 'model'"),
        (f"{OWN}:absent", (), "has no attribute 'absent'"),
        (f"{OWN}:number", (), "must be a torch.nn.Module"),
        (f"{OWN}:broken", (), "must be made without arguments, but: no such weights"),
        (f"{OWN}:model", ("--weights", "absent.pth"), "check the path"),
        (f"{OWN}:model", ("--widths", "0,0.5"), "above 0 and at most 1"),
        (f"{OWN}:model", ("--min-depth", 0), "at least 1"),
        (f"{OWN}:model", ("--keep", "layer9.*"), "'layer9.*' matches none; names are for example body.0.conv"),
        (f"{OWN}:model", ("--input", "1x16x16"), "a model must run on its example"),
        (f"{OWN}:model", ("-o", "absent/mine.run"), "in a folder that exists"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(name: str, arguments: tuple[object, ...], words: str, tmp_path: Path) -> None:
    result = adopt("--input", "3x16x16", "-o", tmp_path / "mine.run", *arguments, name=name)
    assert (result.exit_code, result.stdout) == (1, "")
    sentences = [line for line in result.stderr.splitlines() if not line.startswith("adopting ")]
    assert len(sentences) == 1
    assert words in sentences[0]
    assert not (tmp_path / "mine.run").exists()


@pytest.mark.parametrize("arguments", [("--input", "224"), ("--input", "3x0x16"), ("--input", "3x16x16", "--widths", "wide")])
def test_wrong_usage_ends_with_status_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert adopt(*arguments, "-o", tmp_path / "mine.run").exit_code == 2


def test_names_of_classes_are_lines_or_json_and_each_is_there_once(adopted: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(json.dumps(NAMES))
    assert read_class_names(tmp_path / "names.json") == NAMES
    (tmp_path / "names.json").write_text('{"0": "ash"}')
    with pytest.raises(FileError, match="a JSON list of texts"):
        read_class_names(tmp_path / "names.json")
    (tmp_path / "names.txt").write_text("ash\nash\n")
    with pytest.raises(FileError, match="'ash' twice"):
        read_class_names(tmp_path / "names.txt")
    assert "add --overwrite" in adopt("--input", "3x16x16", "-o", adopted["run"]).stderr


def test_a_model_without_stages_gets_a_recipe(adopted: dict[str, Any]) -> None:
    space = load_run(adopted["run"]).supernet.space
    assert isinstance(space, AdoptedSpace)
    genes = {gene.name for gene in space.network}
    sizes = tuple(size if size.gene in genes else replace(size, gene="") for size in space.sizes)
    blocks = tuple(replace(block, place=f"stem.{number}") for number, block in enumerate(space.blocks))
    plain = replace(space, stages=(), sizes=sizes, blocks=blocks)
    for phases in (progressive_shrinking(plain, epochs=10), single_stage(plain, epochs=1)):
        assert phases[-1].restrict(plain) == plain


@pytest.mark.parametrize("place", ["", "body.0", "stages", "stages.1.0", "stages.0.two", "stages.0.7", "head.0", f"stem.{'9' * 5000}"])
def test_a_block_in_a_place_that_is_none_is_refused(adopted: dict[str, Any], place: str) -> None:
    value = load_run(adopted["run"]).supernet.space.to_json()
    blocks = value["fields"]["blocks"]
    assert [block["place"] for block in blocks] == ["stem.0", "stages.0.0", "stages.0.1", "head.0"]
    blocks[1]["place"] = place
    with pytest.raises(SpaceError, match=r"one at each place, but this fails at .*; adopt the model anew") as caught:
        Space.from_json(value)
    assert len(str(caught.value)) < 300
