"""``ofa data``: everything that lies in a folder is counted, and nothing vanishes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ofa.training import begin_run, first_data
from ofa.training.presets import load_recipe
from tests.commands import command_line
from tests.photos import CLASSES, Dirt, photo, write_photos


def invoke(*arguments: object) -> Any:
    return command_line("data", *arguments)


def answer(*arguments: object) -> Any:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dirt]:
    folder = tmp_path_factory.mktemp("day") / "photos"
    return folder, write_photos(folder, 16)


def test_every_file_is_an_image_or_left_out_with_a_reason(photos: tuple[Path, Dirt]) -> None:
    folder, dirt = photos
    found = answer(folder)
    assert found["images"] == dirt.whole
    kinds = [each["kind"] for each in found["left_out"]]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "unreadable": dirt.broken,
        "no image": dirt.others,
        "hidden": dirt.hidden,
    }
    assert all(each["reason"] for each in found["left_out"])
    assert sum(found["formats"].values()) == sum(found["modes"].values()) == found["images"]
    assert sum(sum(counts.values()) for counts in found["classes"].values()) == found["images"]
    assert sum(found["parts"].values()) == found["images"]
    assert sum(len(group["names"]) - 1 for group in found["copies"]) == dirt.copies
    assert any("cut.jpg" in sentence for sentence in found["warnings"])


def test_the_screen_fits_80_columns_and_names_what_is_left_out(photos: tuple[Path, Dirt], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = invoke(photos[0])
    assert result.exit_code == 0
    for name in (*CLASSES, "GIF", "I;16", "train", "selection", "test"):
        assert name in result.stdout
    assert "ofa: warning: 4 images cannot be read" in result.stderr


def test_a_page_shows_the_images_and_asks_before_it_replaces(photos: tuple[Path, Dirt], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert answer(photos[0], "-o", page, "--resolution", 32, "--each", 3)["page"] == str(page)
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") == 2 * len(CLASSES)
    assert "notes.txt" in text
    before = page.read_bytes()
    assert invoke(photos[0], "-o", page).exit_code == 1
    assert page.read_bytes() == before
    assert invoke(photos[0], "-o", page, "--overwrite").exit_code == 0


def test_images_that_are_also_tested_on_are_told(photos: tuple[Path, Dirt], tmp_path: Path) -> None:
    test = tmp_path / "test"
    for label, name in enumerate(CLASSES[:2]):  # a test set may lack a class
        (test / name).mkdir(parents=True)
        photo(label, 70_000 + label).save(test / name / "new.png")
    shutil.copy(photos[0] / CLASSES[0] / "000.jpg", test / CLASSES[0] / "leaked.jpg")
    found = answer(photos[0], "--set", f'test_data="{test}"')
    assert found["parts"]["test"] == 3
    assert any("leaked.jpg" in sentence and "more than one part" in sentence for sentence in found["warnings"])
    assert any("test part has no images" in sentence and CLASSES[2] in sentence for sentence in found["warnings"])


def test_a_run_tells_what_was_added_since(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write_photos(folder, 16, dirt=False)
    recipe = load_recipe("small-budget", [f'data="{folder}"', "space=ofa-mbv3-tiny"])
    begin_run(tmp_path / "run", recipe, first_data(recipe).record)
    before = answer(tmp_path / "run")
    photo(0, 99_000).save(folder / CLASSES[0] / "new.png")
    after = answer(tmp_path / "run")
    assert sum(after["parts"].values()) == sum(before["parts"].values()) + 1
    assert all(after["parts"][part] - before["parts"][part] in (0, 1) for part in before["parts"])
    assert any("new" in sentence for sentence in after["warnings"])
    assert not any("new" in sentence for sentence in before["warnings"])


def test_too_few_images_to_train_on_are_counted_all_the_same(tmp_path: Path) -> None:
    for label, name in enumerate(("a", "b")):
        (tmp_path / "few" / name).mkdir(parents=True)
        photo(label, label).save(tmp_path / "few" / name / "one.png")
    found = answer(tmp_path / "few")
    assert found["images"] == 2
    assert any("cannot be trained on as they are" in sentence for sentence in found["warnings"])


@pytest.mark.parametrize("name", ["absent", "empty", "file.txt"])
def test_what_is_no_data_set_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("no images", encoding="utf-8")
    result = invoke(tmp_path / name)
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert "should not have happened" not in result.stderr


def test_a_set_in_memory_has_no_files(tmp_path: Path) -> None:
    found = answer("digits", "-o", tmp_path / "digits.html")
    assert found["images"] == 1797
    assert found["left_out"] == []


def test_alpha_and_arrays_are_shown_as_colours(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.random.default_rng(number).integers(0, 255, (20, 20, 4)).astype(np.uint8)
            Image.fromarray(pixels, "RGBA").save(tmp_path / "set" / name / f"{number}.png")
    assert answer(tmp_path / "set", "-o", tmp_path / "page.html")["modes"] == {"RGBA": 20}
