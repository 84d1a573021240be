"""What was recorded of MIT's package (benchmarks/record_mit_reference.py), and what errors must look like."""

from __future__ import annotations

import importlib.util
import json
import types
from pathlib import Path
from typing import Any

import torch

from ofa.errors import OfaError

HERE = Path(__file__).parent
REFERENCE = json.loads((HERE / "mit_reference.json").read_text(encoding="utf-8"))


def load_recipe() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("record_mit_reference", HERE.parents[2] / "benchmarks" / "record_mit_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RECIPE = load_recipe()


def state_dict(recorded: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {key: RECIPE.recipe_tensor(key, shape) for key, shape in RECIPE.from_tree(recorded["tensors"]).items()}


def assert_one_sentence(error: OfaError, *words: str) -> None:
    text = str(error)
    assert "\n" not in text
    assert ";" in text, text
    for word in words:
        assert word in text, text
