"""Weights on disk: what is written comes back, and what is damaged or foreign is refused with nothing half done."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ofa.errors import DamagedError, FileError, OfaError, SpaceError, WeightsError
from ofa.families import get_space
from ofa.files import replacing, write_json
from ofa.reading import read_json
from ofa.seal import BLANK_SEAL, SEAL_KEY
from ofa.supernet import Supernet
from ofa.weights import SPACE_KEY
from tests.ofa.strategies import TINY_SPACES, randomized


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "supernet.safetensors"
    randomized(Supernet(get_space("ofa-mbv3-tiny", num_classes=7), dropout=0.2)).save(path, {"recipe": "none"})
    return path


@pytest.mark.parametrize("name", TINY_SPACES)
def test_a_loaded_supernet_is_the_saved_one(name: str, tmp_path: Path) -> None:
    supernet = randomized(Supernet(get_space(name, num_classes=5), dropout=0.25))
    supernet.save(tmp_path / "s.safetensors")
    loaded = Supernet.load(tmp_path / "s.safetensors")
    assert loaded.space == supernet.space
    assert loaded.dropout == 0.25
    for key, tensor in supernet.named_tensors().items():
        assert torch.equal(loaded.named_tensors()[key], tensor)


def test_the_header_says_what_the_file_is(saved: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        header = file.metadata()
    assert header["space"] == "ofa-mbv3-tiny"
    assert header["recipe"] == "none"
    assert {"ofa_version", "torch_version", "schema"} <= set(header)


def test_a_truncated_file_is_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(DamagedError, match="must be as it was written"):
        Supernet.load(saved)


def test_a_file_of_noise_and_no_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(os.urandom(1000))
    with pytest.raises(WeightsError, match="must be a whole safetensors file"):
        Supernet.load(tmp_path / "noise")
    with pytest.raises(FileError, match="no such file"):
        Supernet.load(tmp_path / "none")


def rewritten(path: Path, header: dict[str, str | None], drop: str | None = None, reshape: str | None = None) -> Path:
    with safe_open(path, framework="pt") as file:
        metadata = {key: value for key, value in {**file.metadata(), **header}.items() if value is not None}
        tensors = {name: file.get_tensor(name) for name in file.keys() if name != drop}  # noqa: SIM118
    if reshape:
        tensors[reshape] = tensors[reshape][:-1].contiguous()
    with replacing(path) as temporary:
        save_file(tensors, temporary, {**metadata, SEAL_KEY: BLANK_SEAL})
    return path


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"schema": "99"}, "schema 99"),
        ({"kind": "network"}, "must hold a supernet"),
        ({"kind": None}, "says nothing"),
        ({"space": "ofa-proxyless-tiny", SPACE_KEY: None}, "are missing"),
        ({SPACE_KEY: "{"}, "must be JSON"),
        ({"num_classes": "8"}, "classifier.linear.weight has shape"),
        ({"schema": "new"}, "must have a whole header"),
        ({"num_classes": None}, "must have a whole header"),
        ({"dropout": "{}"}, "must have a dropout in 0..1"),
        ({"dropout": "nan"}, "must have a dropout in 0..1"),
    ],
)
def test_a_foreign_header_is_refused(saved: Path, header: dict[str, str | None], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        Supernet.load(rewritten(saved, header))


def test_a_file_that_only_names_its_space_is_read_by_name(saved: Path) -> None:
    assert Supernet.load(rewritten(saved, {SPACE_KEY: None})).space == get_space("ofa-mbv3-tiny", num_classes=7)


def test_a_file_that_names_another_space_than_it_carries_is_refused(saved: Path) -> None:
    with pytest.raises(SpaceError, match="names ofa-proxyless-tiny and carries ofa-mbv3-tiny"):
        Supernet.load(rewritten(saved, {"space": "ofa-proxyless-tiny"}))


def test_weights_are_not_read_for_another_space_of_their_name(saved: Path) -> None:
    other = replace(get_space("ofa-mbv3-tiny", num_classes=7), head_widths=(96, 128 + 8))  # type: ignore[call-arg]
    with pytest.raises(WeightsError, match="must be of the space given"):
        Supernet.load(saved, other)


def test_no_memory_is_taken_for_a_space_that_is_not_that_of_the_tensors(saved: Path) -> None:
    """A header may say more than any machine has."""
    blocks = [{"place": "stem.0", "code": 0, "sizes": [], "origin": ""}]
    codes = [["Parameter('x', [16777216, 16777216])", "v1 = aten.relu.default(v0)"]]
    fields = {"codes": codes, "sizes": [], "blocks": blocks}
    space = {**get_space("ofa-mbv3-tiny", num_classes=3).to_json(), "family": "AdoptedSpace", "stages": [], "network": {}, "fields": fields}
    with pytest.raises(WeightsError, match=r"must hold the 1 tensors of this space, but 1 are missing \(first stem\.0\.x\)"):
        Supernet.load(rewritten(saved, {SPACE_KEY: json.dumps(space), "num_classes": "3"}))


def test_an_unknown_space_is_refused_unless_it_is_given(saved: Path) -> None:
    rewritten(saved, {"space": "mine", SPACE_KEY: None})
    with pytest.raises(SpaceError, match="'mine' must be the name of a space"):
        Supernet.load(saved)
    assert Supernet.load(saved, get_space("ofa-mbv3-tiny", num_classes=7)).space.num_classes == 7


def test_missing_and_misshapen_tensors_are_named(saved: Path) -> None:
    name = "stages.0.0.depthwise.conv.weight"
    with pytest.raises(WeightsError, match=rf"1 are missing \(first {name}\)"):
        Supernet.load(rewritten(saved, {}, drop=name))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_loaded(value: float, tmp_path: Path) -> None:
    supernet = Supernet(get_space("ofa-mbv3-tiny"), generator=torch.Generator().manual_seed(0))
    supernet.named_tensors()["classifier.linear.bias"][2] = value
    supernet.save(tmp_path / "supernet.safetensors")
    with pytest.raises(WeightsError, match=rf"first classifier.linear.bias with {value}; take an earlier checkpoint"):
        Supernet.load(tmp_path / "supernet.safetensors")


def test_a_misshapen_tensor_is_named(saved: Path) -> None:
    with pytest.raises(WeightsError, match=r"head\.expand\.conv\.conv\.weight has shape"):
        Supernet.load(rewritten(saved, {}, reshape="head.expand.conv.conv.weight"))


def test_saving_where_one_may_not_leaves_nothing(tmp_path: Path) -> None:
    supernet = Supernet(get_space("ofa-mbv3-tiny"))
    with pytest.raises(FileError, match="must be writable"):
        supernet.save(tmp_path / "none" / "s.safetensors")
    assert list(tmp_path.iterdir()) == []


def write_half(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json({"a": 1}, path)
    with pytest.raises(RuntimeError):
        write_half(path)
    assert read_json(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["value.json"]


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no space left"), replacing(tmp_path / "x"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_files_have_the_permissions_of_the_user(tmp_path: Path) -> None:
    write_json([], tmp_path / "ours")
    (tmp_path / "plain").write_text(json.dumps([]))
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_every_error_is_an_ofa_error() -> None:
    assert issubclass(WeightsError, OfaError)
    assert issubclass(FileError, OfaError)
