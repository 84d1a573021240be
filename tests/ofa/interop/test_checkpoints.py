"""Weights as other programs leave them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ofa.errors import FileError, WeightsError
from ofa.families import get_space
from ofa.interop import mit
from ofa.interop.checkpoints import open_checkpoint, unwrapped_key
from ofa.interop.mit_keys import key_names
from ofa.supernet import Supernet

PLAIN, AVERAGE = {"a.weight": torch.zeros(2)}, {"a.weight": torch.ones(2)}


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "module", "net"])
def test_weights_are_found_under_the_keys_that_programs_use(key: str) -> None:
    found = open_checkpoint({"epoch": 3, "optimizer": {"state": {}}, key: PLAIN})
    assert found.tensors == PLAIN
    assert (found.entry, found.others, found.averaged) == (key, (), False)
    nested = open_checkpoint({"state_dict": {key: PLAIN}})
    assert (nested.tensors, nested.entry) == (PLAIN, f"state_dict.{key}")


@pytest.mark.parametrize("key", ["ema", "state_dict_ema", "ema_state_dict", "model_ema"])
def test_a_moving_average_is_taken_if_asked_for_or_alone(key: str) -> None:
    both: dict[str, Any] = {"state_dict": PLAIN, key: AVERAGE}
    found = open_checkpoint(both)
    assert (found.tensors, found.others, found.averaged) == (PLAIN, (key,), False)
    found = open_checkpoint(both, ema=True)
    assert (found.tensors, found.entry, found.others, found.averaged) == (AVERAGE, key, ("state_dict",), True)
    alone = open_checkpoint({"epoch": 1, key: {"module": {**AVERAGE, "n_averaged": torch.tensor(5)}}})
    assert (alone.tensors, alone.entry, alone.averaged) == (AVERAGE, f"{key}.module", True)
    with pytest.raises(WeightsError, match="must hold a moving average of weights"):
        open_checkpoint({"state_dict": PLAIN}, ema=True)


def test_a_state_dict_is_taken_as_it_is() -> None:
    found = open_checkpoint(PLAIN)
    assert (found.tensors, found.entry, found.others) == (PLAIN, "", ())


@pytest.mark.parametrize(
    "key", ["a.b", "module.a.b", "_orig_mod.a.b", "model.a.b", "module._orig_mod.module.a.b", "model._orig_mod.a.b", "a._orig_mod.b"]
)
def test_wrappers_leave_the_key_as_it_was(key: str) -> None:
    assert unwrapped_key(key) == "a.b"


def test_a_key_is_never_unwrapped_to_nothing() -> None:
    assert unwrapped_key("model") == "model"


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(PLAIN, tmp_path / "model.safetensors")
    assert torch.equal(open_checkpoint(tmp_path / "model.safetensors").tensors["a.weight"], PLAIN["a.weight"])
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(WeightsError, match="must be a whole safetensors file"):
        open_checkpoint(tmp_path / "model.safetensors")
    with pytest.raises(FileError, match="no such file"):
        open_checkpoint(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    space = get_space("ofa-mbv3-tiny")
    names = key_names(space)
    tensors = Supernet(space, generator=torch.Generator().manual_seed(0)).named_tensors()
    state = {names[name]: tensor.clone() for name, tensor in tensors.items()}
    state["classifier.linear.weight"][3, 1] = value
    with pytest.raises(WeightsError, match=rf"but 1 of \d+ tensors do not, first classifier.linear.weight with {value}"):
        mit.load_supernet(state, space)
