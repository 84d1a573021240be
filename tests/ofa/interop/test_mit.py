"""Supernets of MIT's package: costs, logits, spellings of weights, and weights that are not of them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ofa.blocks import make_divisible
from ofa.cost import macs, params
from ofa.errors import FileError, SpaceError, WeightsError
from ofa.families import get_space, lower, resnet
from ofa.families.inverted_residuals import StagePlan
from ofa.families.mobilenet_v3 import MobileNetV3Space
from ofa.families.proxyless import ProxylessSpace
from ofa.interop import mit
from ofa.space import Gene, Space, Stage
from tests.ofa.interop.recorded import RECIPE, REFERENCE, assert_one_sentence, state_dict

SUPERNETS = REFERENCE["supernets"]
NAMES = [f"{s['family']}-{s['arguments'].get('width_mult', s['arguments'].get('width_mult_list'))}" for s in SUPERNETS]
TINY_MOBILENET, TINY_PROXYLESS, TINY_RESNET = SUPERNETS[5], SUPERNETS[6], SUPERNETS[8]


# -- the spaces of MIT's constructors ---------------------------------------------------------------------------------


def space_of(recorded: dict[str, Any]) -> Space:
    """The space that MIT's class and arguments mean: a named one where there is one."""
    builders = {"OFAMobileNetV3": mobilenet_space, "OFAProxylessNASNets": proxyless_space, "OFAResNets": resnet_space}
    arguments = recorded["arguments"]
    named = {
        ("OFAMobileNetV3", 1.0): "ofa-mbv3-w1.0",
        ("OFAMobileNetV3", 1.2): "ofa-mbv3-w1.2",
        ("OFAProxylessNASNets", 1.3): "ofa-proxyless-w1.3",
        ("OFAResNets", None): "ofa-resnet50",
    }
    if arguments["n_classes"] == 1000:
        return get_space(named[recorded["family"], arguments.get("width_mult")])
    return builders[recorded["family"]](arguments, recorded["resolution"])


def mobile_stages(arguments: dict[str, Any], count: int) -> tuple[Stage, ...]:
    genes = (Gene("kernel", tuple(arguments["ks_list"])), Gene("expand", tuple(arguments["expand_ratio_list"])))
    return (Stage(tuple(arguments["depth_list"]), genes),) * count


def mobilenet_space(arguments: dict[str, Any], resolution: int) -> Space:
    base = get_space("ofa-mbv3-w1.0")
    assert isinstance(base, MobileNetV3Space)
    w = arguments["width_mult"]
    return replace(
        base,
        name="mbv3-of-mit",
        resolutions=(resolution,),
        stages=mobile_stages(arguments, 5),
        num_classes=arguments["n_classes"],
        stem_width=make_divisible(16 * w),
        plans=tuple(replace(plan, width=make_divisible(width * w)) for plan, width in zip(base.plans, (24, 40, 80, 112, 160), strict=True)),
        head_widths=(make_divisible(960 * w), make_divisible(1280 * w)),
    )


def proxyless_space(arguments: dict[str, Any], resolution: int) -> Space:
    w = arguments["width_mult"]
    widths, strides = (24, 40, 80, 96, 192, 320), (2, 2, 2, 1, 2, 1)
    stages = mobile_stages(arguments, 5)
    return ProxylessSpace(
        name="proxyless-of-mit",
        resolutions=(resolution,),
        stages=(*stages, Stage((1,), stages[0].genes)),
        num_classes=arguments["n_classes"],
        stem_widths=(make_divisible(32 * w), make_divisible(16 * w)),
        plans=tuple(StagePlan(make_divisible(width * w), stride, "relu6") for width, stride in zip(widths, strides, strict=True)),
        head_width=make_divisible(1280 * w),
    )


def resnet_space(arguments: dict[str, Any], resolution: int) -> Space:
    return resnet.make_space(
        "resnet-of-mit",
        (resolution,),
        depths=tuple(tuple(least + more for more in arguments["depth_list"]) for least in (2, 2, 4, 2)),
        expands=tuple(arguments["expand_ratio_list"]),
        multipliers=tuple(arguments["width_mult_list"]),
        num_classes=arguments["n_classes"],
    )


# -- equal to MIT's package -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recorded", SUPERNETS, ids=NAMES)
def test_macs_and_params_equal_those_of_mit(recorded: dict[str, Any]) -> None:
    space = space_of(recorded)
    for case in recorded["cases"]:
        lowered = lower(space, mit.arch(space, case["settings"], recorded["resolution"]))
        assert (macs(lowered), params(lowered)) == (case["macs"], case["params"])


@pytest.mark.parametrize("recorded", SUPERNETS, ids=NAMES)
def test_logits_equal_those_of_mit(recorded: dict[str, Any]) -> None:
    space = space_of(recorded)
    supernet = mit.load_supernet(state_dict(recorded), space).eval()
    exact = copy.deepcopy(supernet).double()
    images = RECIPE.recipe_images(recorded["resolution"])
    cases = [case for case in recorded["cases"] if "logits" in case]
    assert cases
    for case in cases:
        arch = mit.arch(space, case["settings"], recorded["resolution"])
        expected = torch.tensor(case["logits"], dtype=torch.float64)
        scale = expected.abs().max()
        with torch.no_grad():
            assert (RECIPE.shown_logits(exact.subnet(arch)(images.double())) - expected).abs().max() <= 1e-10 * scale
            assert (RECIPE.shown_logits(supernet.extract(arch)(images)) - expected).abs().max() <= 1e-4 * scale


def test_reference_tells_images_apart() -> None:
    for recorded in SUPERNETS:
        for case in recorded["cases"]:
            if "logits" in case:
                first, second = torch.tensor(case["logits"])
                assert (first - second).abs().max() > 1e-3 * first.abs().max()


# -- spellings --------------------------------------------------------------------------------------------------------


def published(key: str) -> str:
    return key.replace(".conv.", ".mobile_inverted_conv.", 1) if key.startswith("blocks.") else key


def without_elastic_wrappers(key: str) -> str:
    for twice, once in ((".bn.bn.", ".bn."), (".conv.conv.weight", ".conv.weight"), (".linear.linear.", ".linear.")):
        key = key.replace(twice, once)
    return key


SPELLINGS: dict[str, Callable[[str], str]] = {
    "published": published,
    "static": without_elastic_wrappers,
    "published-static": lambda key: published(without_elastic_wrappers(key)),
    "parallel": lambda key: f"module.{key}",
    "compiled": lambda key: f"_orig_mod.{key}",
    "compiled-parallel": lambda key: f"_orig_mod.module.{key}",
    "parallel-compiled-framework": lambda key: f"model.module._orig_mod.model.{key}",
    "parts-compiled": lambda key: ".".join([*key.split(".")[:2], "_orig_mod", *key.split(".")[2:]]),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("recorded", [TINY_MOBILENET, TINY_PROXYLESS, TINY_RESNET], ids=["mobilenet", "proxyless", "resnet"])
def test_every_spelling_gives_the_same_supernet(recorded: dict[str, Any], spelling: Callable[[str], str]) -> None:
    space, state = space_of(recorded), state_dict(recorded)
    expected = mit.load_supernet(state, space).named_tensors()
    found = mit.load_supernet({spelling(key): tensor for key, tensor in state.items()}, space).named_tensors()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_checkpoint_files_of_mits_run_manager(tmp_path: Path, zipped: bool) -> None:
    state = state_dict(TINY_MOBILENET)
    space = space_of(TINY_MOBILENET)
    checkpoint = {"epoch": 3, "best_acc": np.float64(71.2), "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}, "state_dict": state}
    torch.save(checkpoint, tmp_path / "model_best.pth.tar", _use_new_zipfile_serialization=zipped)
    expected = mit.load_supernet(state, space).named_tensors()
    found = mit.load_supernet(tmp_path / "model_best.pth.tar", space).named_tensors()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_without_any_kernel_matrix_small_kernels_are_centres() -> None:
    space = space_of(TINY_MOBILENET)
    state = {key: tensor for key, tensor in state_dict(TINY_MOBILENET).items() if not key.endswith("_matrix")}
    tensors = mit.load_supernet(state, space).named_tensors()
    matrices = [tensor for name, tensor in tensors.items() if name.endswith("_7to3")]
    assert len(matrices) == 15
    assert all(torch.equal(matrix, torch.eye(9)) for matrix in matrices)


# -- bad weights ------------------------------------------------------------------------------------------------------


def changed(**changes: Any) -> dict[str, torch.Tensor]:
    state = state_dict(TINY_MOBILENET)
    for key, value in changes.items():
        if value is None:
            del state[key]
        else:
            state[key] = value
    return state


def refused(state: Any, space: Space | None = None) -> str:
    with pytest.raises(WeightsError) as caught:
        mit.load_supernet(state, space or space_of(TINY_MOBILENET))
    assert_one_sentence(caught.value)
    return str(caught.value)


def test_missing_and_unknown_tensors_are_counted_and_named() -> None:
    sentence = refused(changed(**{"classifier.linear.bias": None, "extra.weight": torch.zeros(1)}))
    assert "but 1 are missing (first classifier.linear.bias) and 1 are unknown (first extra.weight)" in sentence
    assert "2 are missing" in refused(changed(**{"first_conv.bn.running_var": None, "first_conv.bn.running_mean": None}))
    matrix = "blocks.1.conv.depth_conv.conv.7to3_matrix"
    assert "1 are missing (first blocks.1.conv.depth_conv.conv.7to3_matrix)" in refused(changed(**{matrix: None}))


def test_another_family_is_told_with_the_space_that_fits() -> None:
    shapes = RECIPE.from_tree(SUPERNETS[3]["tensors"])
    sentence = refused({key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}, get_space("ofa-mbv3-w1.0"))
    assert "are of OFAResNets (first input_stem.0.conv.weight); it matches ofa-resnet50 with num_classes=1000" in sentence
    sentence = refused(state_dict(TINY_MOBILENET), get_space("ofa-proxyless-w1.3"))
    assert "must be of OFAProxylessNASNets for ofa-proxyless-w1.3" in sentence
    assert "it matches no named space" in sentence


def test_another_width_is_told_with_the_space_that_fits() -> None:
    shapes = RECIPE.from_tree(SUPERNETS[1]["tensors"])
    state = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
    sentence = refused(state, get_space("ofa-mbv3-w1.0"))
    assert (
        "first first_conv.conv.weight with [24, 3, 3, 3] instead of [16, 3, 3, 3]; it matches ofa-mbv3-w1.2 with num_classes=1000"
        in sentence
    )


def test_another_number_of_classes_is_told() -> None:
    space = replace(space_of(TINY_MOBILENET), num_classes=100)
    assert "its classifier has 10; take the space with num_classes=10" in refused(state_dict(TINY_MOBILENET), space)


def test_what_is_no_state_dict_is_told() -> None:
    assert "must map names to tensors, but 'epoch' is a int" in refused({"epoch": 3})
    assert "in two spellings" in refused(changed(**{"module.classifier.linear.bias": torch.zeros(10)}))
    assert "are missing" in refused({})


class Executed:
    def __reduce__(self) -> Any:
        return eval, ("1 / 0",)


def test_files_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"state_dict": Executed()}, protocol=2))
    assert "never unpickled" in refused(path)
    torch.save({"state_dict": Executed()}, path)
    assert "never unpickled" in refused(path)


def test_damaged_and_absent_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    with pytest.raises(FileError, match="no such file"):
        mit.load_supernet(path, space_of(TINY_MOBILENET))
    torch.save(state_dict(TINY_MOBILENET), path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not a checkpoint"):
        path.write_bytes(damaged)
        refused(path)
    torch.save([torch.zeros(3)], path)
    assert "must hold a state dict, but holds a list" in refused(path)


def test_a_foreign_family_has_no_counterpart() -> None:
    space = Space(name="mine", resolutions=(32,), stages=())
    with pytest.raises(SpaceError, match="but mine is a Space"):
        mit.load_supernet({}, space)
