"""MIT's accuracy predictor gives MIT's predictions."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ofa.errors import ArchError, SpaceError, WeightsError
from ofa.families import get_space
from ofa.interop import mit
from ofa.supernet import Supernet
from tests.ofa.interop.recorded import REFERENCE, assert_one_sentence, state_dict

# -- the predictor ----------------------------------------------------------------------------------------------------


@pytest.fixture
def predictor_file(tmp_path: Path) -> Path:
    path = tmp_path / "acc_predictor.pth"
    torch.save(state_dict(REFERENCE["predictor"]), path)
    return path


@pytest.mark.parametrize("name", ["ofa-mbv3-w1.0", "ofa-mbv3-w1.2"])
def test_predictions_equal_those_of_mit(predictor_file: Path, tmp_path: Path, name: str) -> None:
    space = get_space(name)
    predictor = mit.load_predictor(predictor_file, space)
    archs = [mit.arch(space, sample, sample["r"][0]) for sample in REFERENCE["predictor"]["samples"]]
    expected = np.array(REFERENCE["predictor"]["predictions"])
    np.testing.assert_allclose(predictor.predict(archs), expected, atol=2e-6)
    np.testing.assert_allclose(predictor(archs[:3]), expected[:3], atol=2e-6)
    assert predictor.space_name == name
    assert len(predictor.predict([])) == 0
    predictor.save(tmp_path / "predictor.safetensors")
    again = mit.load_predictor(tmp_path / "predictor.safetensors")
    assert again.space_name == name
    np.testing.assert_array_equal(again.predict(archs), predictor.predict(archs))


def test_predictor_of_a_part_of_the_space(predictor_file: Path) -> None:
    space = get_space("ofa-mbv3-w1.2")
    part = space.restrict(resolution=[160, 224], depth=[0, 1], kernel=[5, 7], expand=[6])
    archs = [part.sample(np.random.default_rng(seed)) for seed in range(20)]
    np.testing.assert_array_equal(
        mit.load_predictor(predictor_file, part).predict(archs), mit.load_predictor(predictor_file, space).predict(archs)
    )


def test_what_the_predictor_does_not_know_is_told(predictor_file: Path, tmp_path: Path) -> None:
    predictor = mit.load_predictor(predictor_file)
    with pytest.raises(SpaceError) as caught:
        predictor.predict([get_space("ofa-mbv3-w1.2").largest(resolution=132)])
    assert_one_sentence(caught.value, "but a network has 132")
    with pytest.raises(ArchError) as wrong:
        predictor.predict([get_space("ofa-mbv3-w1.0").largest()])
    assert_one_sentence(wrong.value, "the arch says ofa-mbv3-w1.0")
    for name in ("ofa-proxyless-w1.3", "ofa-mbv3-32px", "ofa-resnet50", "ofa-mbv3-tiny"):
        with pytest.raises(SpaceError) as other:
            mit.load_predictor(predictor_file, get_space(name))
        assert_one_sentence(other.value, name)
    torch.save({"0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError) as few:
        mit.load_predictor(tmp_path / "other.pth")
    assert_one_sentence(few.value, "holds 1 entries (0.weight ..)")
    torch.save({key: tensor[..., :1] for key, tensor in state_dict(REFERENCE["predictor"]).items()}, tmp_path / "other.pth")
    with pytest.raises(WeightsError) as small:
        mit.load_predictor(tmp_path / "other.pth")
    assert_one_sentence(small.value, "128-400-400-400-1")
    Supernet(get_space("ofa-mbv3-tiny")).save(tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="must hold a mit-predictor"):
        mit.load_predictor(tmp_path / "other.safetensors")
