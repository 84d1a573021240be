from __future__ import annotations

from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest

from ofa.data import Augmentation
from ofa.errors import RecipeError
from ofa.training import OPTIMIZERS, Phase, Recipe, Start
from ofa.training.methods import METHODS
from ofa.training.presets import preset_about, preset_names
from ofa.training.reference import argument_docs, recipe_reference, reference_markdown, tables_of

PAGE = Path(__file__).parents[3] / "docs" / "recipes.md"


def test_every_key_of_every_table_is_there() -> None:
    found = {doc.path for doc in recipe_reference()}
    expected = {field.name for field in fields(Recipe)} | {f"phases.{field.name}" for field in fields(Phase)}
    expected |= {f"augmentation.{field.name}" for field in fields(Augmentation)} | {f"start.{field.name}" for field in fields(Start)}
    expected |= {f"{name}.{key}" for name, method in METHODS.items() for key in signature(method).parameters if key != "space"}
    expected |= {f"optimizer.{field.name}" for name in OPTIMIZERS.own for field in fields(OPTIMIZERS.get(name))}
    assert found == expected


@pytest.mark.parametrize("doc", recipe_reference(), ids=lambda doc: doc.path)
def test_every_key_has_a_type_a_default_and_a_meaning(doc: object) -> None:
    assert all(getattr(doc, name) for name in ("type", "default", "meaning"))


def test_every_table_has_a_meaning() -> None:
    assert all(table.meaning for table in tables_of())


def test_the_page_is_up_to_date() -> None:
    known = {name: preset_about(name) for name in preset_names()}
    assert all(known.values())
    assert PAGE.read_text(encoding="utf-8") == reference_markdown(known), "write it anew with: make pages"


def test_keys_are_found_by_path_by_name_and_by_table() -> None:
    (sandwich,) = recipe_reference("phases.sandwich")
    assert recipe_reference("phases.full.sandwich") == (sandwich,)
    assert (sandwich.type, sandwich.default) == ("true or false", "false")
    assert {doc.path for doc in recipe_reference("warmup_epochs")} >= {"phases.warmup_epochs", "compound.warmup_epochs"}
    assert {doc.table for doc in recipe_reference("augmentation")} == {"", "augmentation"}
    with pytest.raises(RecipeError, match="did you mean 'batch_size'"):
        recipe_reference("batchsize")


def test_arguments_are_read_from_a_docstring() -> None:
    def documented(one: int, two: int, three: int) -> None:
        """First line: with a colon.

        Args:
            one: in one line, with a colon: here.
            two, three: in two lines,
                the second indented.

        Raises:
            ValueError: never.
        """

    assert argument_docs(documented) == {
        "one": "in one line, with a colon: here.",
        "two": "in two lines, the second indented.",
        "three": "in two lines, the second indented.",
    }
