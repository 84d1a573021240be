"""A space may be named by the run that was trained in it: it has the classes of the run's data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ofa.errors import OfaError, SpaceError
from ofa.families import get_space
from ofa.supernet import Supernet
from ofa.training.spaces import find_space

TINY = get_space("ofa-mbv3-tiny")


def test_a_run_has_the_classes_of_its_data(tmp_path: Path) -> None:
    Supernet(replace(TINY, num_classes=3), generator=torch.Generator().manual_seed(0)).save(tmp_path / "supernet.safetensors")
    assert find_space(str(tmp_path)) == replace(TINY, num_classes=3)
    assert find_space(str(tmp_path), 5) == replace(TINY, num_classes=5)


def test_other_texts_name_what_they_named(tmp_path: Path) -> None:
    TINY.save(tmp_path / "space.json")
    assert find_space("ofa-mbv3-tiny", 4) == replace(TINY, num_classes=4)
    assert find_space(str(tmp_path / "space.json")) == TINY
    with pytest.raises(SpaceError, match="did you mean 'ofa-mbv3-tiny'"):
        find_space("ofa-mbv3-tyni")


def test_a_folder_that_is_no_trained_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"must be a trained run with supernet\.safetensors, but .* has none"):
        find_space(str(tmp_path))
    (tmp_path / "supernet.safetensors").write_bytes(b"nonsense")
    with pytest.raises(OfaError):
        find_space(str(tmp_path))
