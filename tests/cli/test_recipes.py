from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from ofa.cli import recipes
from ofa.errors import RecipeError
from ofa.training import Recipe
from ofa.training.presets import preset_names, preset_text


def ofa(*arguments: str) -> str:
    app = typer.Typer()
    recipes.register(app)
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_recipes_and_keys_are_listed() -> None:
    shown = ofa()
    assert all(name in shown for name in preset_names())
    assert "progressive_shrinking.shrinking_learning_rate" in shown


def test_a_recipe_is_printed_so_that_it_can_be_a_file() -> None:
    text = ofa("small-budget")
    assert text == preset_text("small-budget")
    assert Recipe.from_toml(text).space == "ofa-mbv3-32px"
    assert json.loads(ofa("small-budget", "--json"))["toml"] == text


def test_a_key_is_told_with_type_default_and_meaning() -> None:
    (key,) = json.loads(ofa("phases.sandwich", "--json"))["keys"]
    assert (key["key"], key["type"], key["default"]) == ("phases.sandwich", "true or false", "false")
    assert "largest and the smallest network" in key["meaning"]
    assert "by default false" in ofa("phases.sandwich")


def test_the_page_is_markdown() -> None:
    assert "| `batch_size` | a whole number | `64` |" in ofa("--markdown")


def test_what_is_neither_is_told() -> None:
    with pytest.raises(RecipeError, match="did you mean 'batch_size'"):
        ofa("batchsize")
