from __future__ import annotations

import copy
import importlib.util
import json
import pickle
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ofa.arch import Arch
from ofa.blocks import make_divisible
from ofa.cost import macs, params
from ofa.errors import ArchError, FileError, OfaError, SpaceError, WeightsError
from ofa.families import get_space, lower, resnet
from ofa.families.inverted_residuals import StagePlan
from ofa.families.mobilenet_v3 import MobileNetV3Space
from ofa.families.proxyless import ProxylessSpace
from ofa.interop import mit
from ofa.space import Gene, Space, Stage
from ofa.supernet import Supernet

HERE = Path(__file__).parent
REFERENCE = json.loads((HERE / "mit_reference.json").read_text(encoding="utf-8"))
SUPERNETS = REFERENCE["supernets"]
NAMES = [f"{s['family']}-{s['arguments'].get('width_mult', s['arguments'].get('width_mult_list'))}" for s in SUPERNETS]
TINY_MOBILENET, TINY_PROXYLESS, TINY_RESNET = SUPERNETS[5], SUPERNETS[6], SUPERNETS[8]


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


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["ofa-mbv3-w1.2", "ofa-proxyless-w1.3", "ofa-resnet50", "ofa-mbv3-tiny", "ofa-proxyless-tiny", "ofa-resnet50-tiny"]
)
def test_settings_round_trip(name: str) -> None:
    space = get_space(name)
    rng = np.random.default_rng(5)
    for arch in [space.largest(), space.smallest(), *(space.sample(rng) for _ in range(50))]:
        assert mit.arch(space, mit.config(space, arch), arch.resolution) == arch


def test_single_values_tuples_and_arrays_stand_for_lists() -> None:
    space = get_space("ofa-proxyless-w1.3")
    assert mit.arch(space, {"ks": 7, "e": 6, "d": 4}, 224) == space.largest()
    lists = {"ks": np.full(21, 7), "e": (6.0,) * 21, "d": np.array([4, 4, 4, 4, 4]), "wid": None}
    arch = mit.arch(space, lists, 224)
    assert arch == space.largest()
    assert arch.to_json() == space.largest().to_json()
    resnet = get_space("ofa-resnet50")
    assert mit.arch(resnet, {"d": 2, "e": 0.35, "w": 2}, 224) == resnet.largest()
    assert mit.arch(resnet, {"d": 0, "e": 0.2, "w": 0}, 128) == resnet.smallest()


def test_stem_of_resnets_is_deep_only_at_the_largest_d() -> None:
    space = get_space("ofa-resnet50")
    depths = [mit.arch(space, {"d": [d, 0, 0, 0, 0], "e": 0.2, "w": 0}, 128).network["stem_depth"] for d in (0, 1, 2)]
    assert depths == [2, 2, 3]


GOOD = {"ks": [3] * 20, "e": [4] * 20, "d": [2] * 5}


@pytest.mark.parametrize(
    ("name", "settings", "resolution", "words"),
    [
        ("ofa-mbv3-w1.0", {"ks": 3, "e": 4}, 224, "must have the key 'd'"),
        ("ofa-mbv3-w1.0", {**GOOD, "ks": [3] * 19}, 224, "'ks' must have 20 values, one for a block, but has 19"),
        ("ofa-mbv3-w1.0", {**GOOD, "ks": [4] * 20}, 224, "kernel must be one of [3, 5, 7]"),
        ("ofa-mbv3-w1.0", {**GOOD, "d": [5] * 5}, 224, "depth of stages.0 must be one of [2, 3, 4]"),
        ("ofa-mbv3-w1.0", {**GOOD, "d": [-1] * 5}, 224, "depth of stages.0 must be one of [2, 3, 4]"),
        ("ofa-mbv3-w1.0", {**GOOD, "d": [2.5] * 5}, 224, "'d' must hold whole numbers, but has 2.5"),
        ("ofa-mbv3-w1.0", {**GOOD, "d": "22222"}, 224, "'d' must hold whole numbers, but has '22222'"),
        ("ofa-mbv3-w1.0", GOOD, 230, "resolution must be one of"),
        ("ofa-proxyless-w1.3", {"ks": 3, "e": 4, "d": [2] * 4}, 224, "'d' must have 6 values"),
        ("ofa-resnet50", {"d": 0, "e": 0.2, "w": 3}, 224, "w must be indices"),
        ("ofa-resnet50", {"d": [3, 0, 0, 0, 0], "e": 0.2, "w": 0}, 224, "the stem's d must be within 0..2"),
        ("ofa-resnet50", {"d": 0, "e": 0.2, "w": [0] * 5}, 224, "'w' must have 6 values"),
    ],
)
def test_wrong_settings_are_told_in_one_sentence(name: str, settings: dict[str, Any], resolution: int, words: str) -> None:
    with pytest.raises(ArchError) as caught:
        mit.arch(get_space(name), settings, resolution)
    assert_one_sentence(caught.value, words)


# -- bad weights ------------------------------------------------------------------------------------------------------


def assert_one_sentence(error: OfaError, *words: str) -> None:
    text = str(error)
    assert "\n" not in text
    assert ";" in text, text
    for word in words:
        assert word in text, text


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
    assert "are of OFAResNets (first input_stem.0.conv.weight); it fits ofa-resnet50 with num_classes=1000" in sentence
    sentence = refused(state_dict(TINY_MOBILENET), get_space("ofa-proxyless-w1.3"))
    assert "must be of OFAProxylessNASNets to fit ofa-proxyless-w1.3" in sentence
    assert "it fits no named space" in sentence


def test_another_width_is_told_with_the_space_that_fits() -> None:
    shapes = RECIPE.from_tree(SUPERNETS[1]["tensors"])
    state = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
    sentence = refused(state, get_space("ofa-mbv3-w1.0"))
    assert (
        "first first_conv.conv.weight with [24, 3, 3, 3] instead of [16, 3, 3, 3]; it fits ofa-mbv3-w1.2 with num_classes=1000" in sentence
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
    with pytest.raises(FileError, match="there is none"):
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


# -- published networks -----------------------------------------------------------------------------------------------


def mobile_layer(block: Any, **extra: Any) -> dict[str, Any]:
    return {
        "name": "MBInvertedConvLayer",
        "in_channels": block.in_channels,
        "out_channels": block.out_channels,
        "kernel_size": block.kernel,
        "stride": block.stride,
        "expand_ratio": block.mid_channels / block.in_channels if block.expand else 1,
        "mid_channels": block.mid_channels if block.expand else None,
        "act_func": block.activation,
        "use_se": block.squeeze_excite,
        **extra,
    }


def conv_layer(block: Any, *, norm: bool = True) -> dict[str, Any]:
    sizes = {"kernel_size": getattr(block, "kernel", 1), "stride": getattr(block, "stride", 1)}
    channels = {"in_channels": block.in_channels, "out_channels": block.out_channels}
    usual = {
        "dilation": 1,
        "groups": 1,
        "bias": False,
        "has_shuffle": False,
        "use_bn": norm,
        "dropout_rate": 0,
        "ops_order": "weight_bn_act",
    }
    return {"name": "ConvLayer", **sizes, **channels, **usual, "act_func": block.activation}


def net_config(arch: Arch, key: str = "conv") -> dict[str, Any]:
    """The net.config that MIT's package writes for a network of the MobileNet families."""
    blocks = {placed.name: placed.block for placed in lower(get_space(arch.space), arch)}
    inner = [block for name, block in blocks.items() if name == "stem.block" or name.startswith("stages.")]
    residual = [
        {"name": "ResidualBlock", key: mobile_layer(block), "shortcut": {"name": "IdentityLayer"} if block.residual else None}  # type: ignore[attr-defined]
        for block in inner
    ]
    classifier = {"name": "LinearLayer", "in_features": blocks["classifier"].in_channels, "out_features": 1000}
    mobilenet = "mbv3" in arch.space
    network = {
        "name": "MobileNetV3" if mobilenet else "ProxylessNASNets",
        "first_conv": conv_layer(blocks["stem.conv"]),
        "blocks": residual,
    }
    if mobilenet:
        network["final_expand_layer"] = conv_layer(blocks["head.expand"])
    return {**network, "feature_mix_layer": conv_layer(blocks["head.mix"], norm=not mobilenet), "classifier": classifier}


def resnet_config(arch: Arch) -> dict[str, Any]:
    blocks = {placed.name: placed.block for placed in lower(get_space(arch.space), arch)}
    stem = [conv_layer(blocks["stem.first"]), conv_layer(blocks["stem.last"])]
    if "stem.middle" in blocks:
        middle = {**conv_layer(blocks["stem.middle"]), "name": "ConvLayer"}
        stem.insert(1, {"name": "ResidualBlock", "conv": middle, "shortcut": {"name": "IdentityLayer"}})
    bottlenecks: list[Any] = [block for name, block in blocks.items() if name.startswith("stages.")]
    body = [
        {
            "name": "ResNetBottleneckBlock",
            "in_channels": block.in_channels,
            "out_channels": block.out_channels,
            "kernel_size": 3,
            "stride": block.stride,
            "expand_ratio": 0.25,
            "mid_channels": block.mid_channels,
            "act_func": "relu",
            "groups": 1,
            "downsample_mode": "avgpool_conv",
        }
        for block in bottlenecks
    ]
    classifier = {"name": "LinearLayer", "in_features": blocks["classifier"].in_channels, "out_features": 1000}
    return {"name": "ResNets", "input_stem": stem, "blocks": body, "classifier": classifier}


@pytest.mark.parametrize("name", ["ofa-mbv3-w1.0", "ofa-mbv3-w1.2", "ofa-proxyless-w1.3"])
@pytest.mark.parametrize("key", ["conv", "mobile_inverted_conv"])
def test_networks_of_the_mobile_families_are_found(name: str, key: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    for arch in [get_space(name).sample(rng) for _ in range(5)]:
        path = tmp_path / "net.config"
        path.write_text(json.dumps(net_config(arch, key)), encoding="utf-8")
        assert mit.arch_from_net_config(path, arch.resolution) == arch


def test_networks_of_resnets_are_found() -> None:
    space = get_space("ofa-resnet50")
    rng = np.random.default_rng(12)
    for arch in [space.largest(), space.smallest(), *(space.sample(rng) for _ in range(5))]:
        found = mit.arch_from_net_config(resnet_config(arch), arch.resolution)
        assert found == arch


def test_blocks_that_do_nothing_are_skipped_ones() -> None:
    arch = get_space("ofa-proxyless-w1.3").sample(np.random.default_rng(3))
    network = net_config(arch)
    network["blocks"].insert(3, {"name": "ResidualBlock", "conv": {"name": "ZeroLayer"}, "shortcut": {"name": "IdentityLayer"}})
    assert mit.arch_from_net_config(network, arch.resolution) == arch


def test_networks_of_no_space_are_told_with_the_first_difference() -> None:
    arch = get_space("ofa-mbv3-w1.2").largest()

    def sentence(change: Callable[[dict[str, Any]], Any], resolution: int = 224, space: Space | None = None) -> str:
        network = net_config(arch)
        change(network)
        with pytest.raises(OfaError) as caught:
            mit.arch_from_net_config(network, resolution, space)
        assert_one_sentence(caught.value)
        return str(caught.value)

    assert "of which ofa-mbv3-w1.2 is the nearest, but stages.1.2 has kernel 9 instead of" in sentence(
        lambda network: network["blocks"][7]["conv"].update(kernel_size=9)
    )
    assert "stages.0 has 5 blocks instead of 2 or 3 or 4" in sentence(lambda network: network["blocks"].insert(2, network["blocks"][2]))
    assert "head.expand has out_channels 8 instead of 1152" in sentence(
        lambda network: network["final_expand_layer"].update(out_channels=8)
    )
    assert "stages.0.0 has in_channels 24 instead of 16" in sentence(lambda network: None, space=get_space("ofa-mbv3-w1.0"))
    assert "with groups 2" in sentence(lambda network: network["first_conv"].update(groups=2))
    assert "met KeyError: 'classifier'" in sentence(lambda network: network.pop("classifier"))
    assert "must have a name among MobileNetV3" in sentence(lambda network: network.update(name="VGG"))
    assert "resolution must be one of" in sentence(lambda network: None, resolution=230)
    assert "it is of OFAMobileNetV3" in sentence(lambda network: None, space=get_space("ofa-resnet50"))


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
