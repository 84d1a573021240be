"""Record what MIT's once-for-all package computes, as the small reference that tests/ofa/interop compares with.

It runs in an environment of its own, because the package is imported as `ofa` too:

    python -m venv PEER && PEER/bin/pip install torch numpy pyyaml tqdm && PEER/bin/pip install --no-deps ofa==0.1.0.post202307202001
    PEER/bin/python benchmarks/record_mit_reference.py --out tests/ofa/interop/mit_reference.json

The weights follow from each tensor's name and shape, so that the reference needs none: it has the names and shapes of each supernet,
and for some subnets MACs, parameters and logits. The predictor is recorded in the same way.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import random
import sys
import types
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

MOBILE = {"ks_list": [3, 5, 7], "expand_ratio_list": [3, 4, 6], "depth_list": [2, 3, 4]}
RESNET = {"depth_list": [0, 1, 2], "expand_ratio_list": [0.2, 0.25, 0.35], "width_mult_list": [0.65, 0.8, 1.0]}

# (class, arguments of its constructor, random subnets whose logits are recorded, resolution). The first four are what MIT publishes.
SUPERNETS: list[tuple[str, dict[str, Any], int, int]] = [
    ("OFAMobileNetV3", {"n_classes": 1000, "width_mult": 1.0, **MOBILE}, 2, 128),
    ("OFAMobileNetV3", {"n_classes": 1000, "width_mult": 1.2, **MOBILE}, 1, 128),
    ("OFAProxylessNASNets", {"n_classes": 1000, "width_mult": 1.3, **MOBILE}, 2, 128),
    ("OFAResNets", {"n_classes": 1000, **RESNET}, 2, 128),
    ("OFAMobileNetV3", {"n_classes": 10, "width_mult": 0.35, **MOBILE}, 6, 100),
    ("OFAMobileNetV3", {"n_classes": 10, "width_mult": 0.5, "ks_list": [3, 7], "expand_ratio_list": [4, 6], "depth_list": [1, 3]}, 4, 64),
    ("OFAProxylessNASNets", {"n_classes": 10, "width_mult": 0.35, **MOBILE}, 6, 100),
    ("OFAResNets", {"n_classes": 10, **RESNET, "width_mult_list": [0.1, 0.15, 0.25]}, 6, 100),
    ("OFAResNets", {"n_classes": 10, "depth_list": [0, 1], "expand_ratio_list": [0.25, 0.35], "width_mult_list": [0.2, 0.25]}, 4, 75),
]
BATCH = 2
LOGITS = 20
PREDICTIONS = 40


# -- the recipe -------------------------------------------------------------------------------------------------------


def recipe_uniform(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [0, 1) that follow from a name and a shape; the raw stream of PCG64 is the same in every version of NumPy."""
    count = int(np.prod(shape))
    raw = np.random.PCG64(zlib.crc32(key.encode())).random_raw(-(-count // 4))
    return (raw.astype("<u8").view("<u2")[:count].astype(np.float32) / np.float32(65536)).reshape(shape)


def recipe_tensor(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor of a state dict, such that signals neither die nor explode and every tensor shows in the output."""
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return torch.tensor(7)
    u = recipe_uniform(key, shape)
    if leaf.endswith("_matrix"):
        values = np.eye(shape[0], dtype=np.float32) + np.float32(0.3) * (u - np.float32(0.5))
    elif len(shape) > 1:
        values = (2 * u - 1) * np.float32(np.sqrt(6 / np.prod(shape[1:])))
    elif leaf in ("running_var", "weight"):
        values = np.float32(0.6) + np.float32(0.8) * u
    else:
        values = np.float32(0.4) * (u - np.float32(0.5))
    return torch.from_numpy(values)


def recipe_images(resolution: int) -> torch.Tensor:
    """The images [BATCH, 3, resolution, resolution] that every subnet sees; they differ in contrast and colour, not in noise alone."""
    noise = 4 * recipe_uniform("images", (BATCH, 3, resolution, resolution)) - 2
    contrast = np.float32(0.5) + recipe_uniform("contrast", (BATCH, 3, 1, 1))
    colour = 4 * recipe_uniform("colour", (BATCH, 3, 1, 1)) - 2
    return torch.from_numpy(noise * contrast + colour)


def shown_logits(logits: torch.Tensor) -> torch.Tensor:
    """The logits that are recorded: at most LOGITS of each image, evenly spread over the classes."""
    return logits[:, :: max(1, logits.shape[1] // LOGITS)]


# -- names and shapes, compactly --------------------------------------------------------------------------------------


def to_tree(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Keys nested by their dots, with shapes as leaves, so that common beginnings are written once."""
    tree: dict[str, Any] = {}
    for key, shape in shapes.items():
        *path, leaf = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = list(shape)
    return tree


def from_tree(tree: dict[str, Any], prefix: str = "") -> dict[str, tuple[int, ...]]:
    """What ``to_tree`` made a tree of."""
    shapes: dict[str, tuple[int, ...]] = {}
    for key, value in tree.items():
        shapes |= from_tree(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: tuple(value)}
    return shapes


# -- MIT's package ----------------------------------------------------------------------------------------------------


def stand_in_for_absent_packages() -> None:
    """MIT's package imports torchvision, gdown and thop for data, downloads and counting; what is not installed is not used."""

    class Absent:
        def __init__(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("this is only a stand-in")

    names = ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional", "gdown", "thop")
    absent = [name for name in names if importlib.util.find_spec(name.partition(".")[0]) is None]
    for name in absent:
        module = types.ModuleType(name)
        module.__path__ = []  # type: ignore[attr-defined]
        module.__getattr__ = lambda attribute: Absent  # type: ignore[method-assign]
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


def largest(arguments: dict[str, Any]) -> dict[str, Any]:
    return _uniform(arguments, max, -1)


def smallest(arguments: dict[str, Any]) -> dict[str, Any]:
    return _uniform(arguments, min, 0)


def _uniform(arguments: dict[str, Any], choose: Any, width: int) -> dict[str, Any]:
    settings = {"e": choose(arguments["expand_ratio_list"]), "d": choose(arguments["depth_list"])}
    if "ks_list" in arguments:
        return {"ks": choose(arguments["ks_list"]), **settings}
    return {**settings, "w": width % len(arguments["width_mult_list"])}


def draw(family: str, arguments: dict[str, Any], rng: random.Random, slots: int) -> dict[str, Any]:
    """Random settings, with values for the slots of skipped blocks too."""
    settings = {"e": [rng.choice(arguments["expand_ratio_list"]) for _ in range(slots)]}
    depths = arguments["depth_list"]
    if family == "OFAResNets":
        width = len(arguments["width_mult_list"])
        d = [rng.choice([min(depths), max(depths)]), *(rng.choice(depths) for _ in range(4))]
        return {"d": d, **settings, "w": [rng.randrange(width) for _ in range(6)]}
    stages = 5 if family == "OFAMobileNetV3" else rng.choice([5, 6])
    return {"ks": [rng.choice(arguments["ks_list"]) for _ in range(slots)], **settings, "d": [rng.choice(depths) for _ in range(stages)]}


def exact_macs(static: torch.nn.Module, resolution: int) -> int:
    """What MIT's counter counts; it adds float32 numbers, which are rounded beyond 2**24, unless the default is another."""
    from ofa.utils import count_net_flops

    torch.set_default_dtype(torch.float64)
    try:
        return int(count_net_flops(copy.deepcopy(static).double(), (1, 3, resolution, resolution)))
    finally:
        torch.set_default_dtype(torch.float32)


def record_supernet(family: str, arguments: dict[str, Any], subnets: int, resolution: int) -> dict[str, Any]:
    from ofa.imagenet_classification.elastic_nn import networks
    from ofa.utils import count_parameters

    net = getattr(networks, family)(dropout_rate=0, **copy.deepcopy(arguments)).eval()
    shapes = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}
    net.load_state_dict({key: recipe_tensor(key, shape) for key, shape in shapes.items()})
    rng = random.Random(f"{family} {arguments}")
    slots = len(net.blocks) - (family != "OFAResNets")
    # The largest of the small supernets shows the blocks that no random subnet happens to have.
    wanted = [(largest(arguments), arguments["n_classes"] == 10), (smallest(arguments), False)]
    wanted += [(draw(family, arguments, rng, slots), True) for _ in range(subnets)]
    cases = []
    for settings, with_logits in wanted:
        if family == "OFAProxylessNASNets" and isinstance(settings["d"], list) and len(settings["d"]) == 5:
            net.set_active_subnet(**{**settings, "d": [*settings["d"], 1]})
        else:
            net.set_active_subnet(**settings)
        static = net.get_active_subnet().eval()
        case = {
            "settings": settings,
            "macs": exact_macs(static, resolution),
            "params": count_parameters(static),
        }
        if with_logits:
            # In float64, because what float32 rounds off (as the extracted kernels do) grows to 1e-5 of the logits in deep networks.
            with torch.no_grad():
                images = recipe_images(resolution).double()
                logits = net.double()(images)
                extracted = static.double()(images)
            net.float()
            assert (logits - extracted).abs().max() <= 1e-4 * logits.abs().max()
            case["logits"] = [[float(f"{value:.12g}") for value in row] for row in shown_logits(logits).tolist()]
        cases.append(case)
    scale = max(abs(value) for case in cases for row in case.get("logits", []) for value in row)
    print(f"{family} {arguments}: {len(shapes)} tensors, {len(cases)} subnets, largest logit {scale:.3g}", file=sys.stderr)
    return {"family": family, "arguments": arguments, "resolution": resolution, "cases": cases, "tensors": to_tree(shapes)}


def record_predictor() -> dict[str, Any]:
    from ofa.tutorial.accuracy_predictor import AccuracyPredictor

    predictor = AccuracyPredictor(pretrained=False, device="cpu")
    shapes = {key: tuple(tensor.shape) for key, tensor in predictor.model.state_dict().items()}
    predictor.model.load_state_dict({key: recipe_tensor(key, shape) for key, shape in shapes.items()})
    rng = random.Random("predictor")
    samples = [draw("OFAMobileNetV3", MOBILE, rng, 20) | {"r": [rng.randrange(128, 225, 16)]} for _ in range(PREDICTIONS)]
    predictions = [float(str(value)) for value in predictor.predict_accuracy(samples)[:, 0].numpy()]
    return {"tensors": to_tree(shapes), "samples": samples, "predictions": predictions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    stand_in_for_absent_packages()
    torch.set_num_threads(1)
    recorded = {
        "package": "ofa 0.1.0.post202307202001",
        "torch": torch.__version__,
        "supernets": [record_supernet(*supernet) for supernet in SUPERNETS],
        "predictor": record_predictor(),
    }
    # A line for each subnet and each supernet's tensors: small, and yet a change shows where it is.
    lines = json.dumps(recorded, separators=(",", ":")).replace('{"settings"', '\n{"settings"').replace('"tensors"', '\n"tensors"')
    out.write_text(lines.replace('{"family"', '\n{"family"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
