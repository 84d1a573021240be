from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ofa.errors import WeightsError
from ofa.interop.own_weights import load_weights


def make(seed: int, outputs: int = 3) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, outputs))
    for tensor in model.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape, generator=generator))
    return model


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for (name, a), b in pairs if "num_batches" not in name)


@pytest.mark.parametrize("front", ["", "module.", "_orig_mod.module."])
def test_weights_fit_behind_what_wrappers_put_before_their_keys(front: str, tmp_path: Path) -> None:
    source, target = make(1), make(2)
    state = {f"{front}{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "weights.pth")
    load_weights(target, tmp_path / "weights.pth")
    assert same(source, target)


def test_counters_of_batch_norms_may_be_missing(tmp_path: Path) -> None:
    source, target = make(1), make(2)
    save_file({name: tensor for name, tensor in source.state_dict().items() if "num_batches" not in name}, tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors")
    assert same(source, target)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"0.bias": None}, "1 are missing (first 0.bias)"),
        ({"9.bias": torch.zeros(2)}, "1 are unknown (first 9.bias)"),
        ({"3.weight": torch.zeros(5, 4)}, "1 has another shape (first 3.weight, [5, 4] in place of [3, 4])"),
        ({"0.bias": torch.full((4,), torch.nan)}, "must hold finite weights"),
        ({"0.bias": [0.0]}, "must map names to tensors"),
    ],
)
def test_what_does_not_fit_changes_nothing(change: dict[str, Any], words: str) -> None:
    state: dict[str, Tensor] = {**make(1).state_dict(), **change}
    target = make(2)
    with pytest.raises(WeightsError) as error:
        load_weights(target, {name: tensor for name, tensor in state.items() if tensor is not None})
    assert words in str(error.value)
    assert same(target, make(2))
