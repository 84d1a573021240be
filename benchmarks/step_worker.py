"""One side of training_step.py: builds a supernet and makes one training step for every line it reads.

It runs in our environment, in one of the variants below, or in one that has MIT's package instead; both import it as ``ofa``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import time
import types
from collections.abc import Callable
from typing import Any

KERNELS, EXPANDS, DEPTHS = (3, 5, 7), (3, 4, 6), (2, 3, 4)
SEEDS = (200, 201, 202, 203)

SIDES = {
    "ofa": "as the command line trains",
    "plain": "without keeping freed memory",
    "contiguous": "with contiguous instead of channels-last images",
    "dense-gradients": "with torch's own weight gradients of depthwise convolutions",
    "unfolded": "with batch norms on their own",
    "huge-pages": "with huge pages besides",
    "mit": "MIT's package",
}


def settings(seed: int) -> dict[str, list[int]]:
    """A random subnet in MIT's notation."""
    rng = random.Random(seed)
    depths = [rng.choice(DEPTHS) for _ in range(5)]
    return {"d": depths, "ks": [rng.choice(KERNELS) for _ in range(20)], "e": [rng.choice(EXPANDS) for _ in range(20)]}


def ours() -> tuple[Any, Callable[[dict[str, list[int]]], Any], Any, Callable[[], None], list[Any]]:
    import torch

    from ofa.arch import Arch, Genes
    from ofa.blocks import build_network
    from ofa.families import get_space, lower
    from ofa.supernet import Supernet

    space = get_space("ofa-mbv3-w1.0")
    supernet = Supernet(space, generator=torch.Generator().manual_seed(0), dropout=0.1).train()
    teacher = build_network(lower(space, space.largest())).train()

    def pick(setting: dict[str, list[int]]) -> Any:
        stages = tuple(
            tuple(Genes(kernel=setting["ks"][4 * s + b], expand=setting["e"][4 * s + b]) for b in range(depth))
            for s, depth in enumerate(setting["d"])
        )
        return supernet.subnet(Arch(space.name, 224, stages))

    return supernet, pick, teacher, supernet.zero_grad, supernet.parameter_groups(3e-5)


def theirs() -> tuple[Any, Callable[[dict[str, list[int]]], Any], Any, Callable[[], None], list[Any]]:
    stand_ins()
    from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3
    from ofa.imagenet_classification.networks.mobilenet_v3 import MobileNetV3Large

    net = OFAMobileNetV3(width_mult=1.0, dropout_rate=0.1, ks_list=[*KERNELS], expand_ratio_list=[*EXPANDS], depth_list=[*DEPTHS]).train()
    teacher = MobileNetV3Large(n_classes=1000, bn_param=(0.1, 1e-5), dropout_rate=0, width_mult=1.0, ks=7, expand_ratio=6, depth_param=4)

    def pick(setting: dict[str, list[int]]) -> Any:
        net.set_active_subnet(**setting)
        return net

    groups = [{"params": net.get_parameters(["bn", "bias"], mode="exclude"), "weight_decay": 3e-5}]
    groups.append({"params": net.get_parameters(["bn", "bias"], mode="include"), "weight_decay": 0.0})
    return net, pick, teacher.train(), net.zero_grad, groups


def stand_ins() -> None:
    """MIT's package imports torchvision and gdown for data and downloads, which a training step does not need."""

    class Absent:
        def __init__(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("only a name: torchvision is not installed here")

    names = {
        "torchvision.transforms": [
            "RandomResizedCrop",
            "Resize",
            "Compose",
            "Normalize",
            "ToTensor",
            "ColorJitter",
            "RandomHorizontalFlip",
            "CenterCrop",
        ],
        "torchvision.transforms.functional": [],
        "torchvision.datasets": ["ImageFolder"],
        "torchvision": [],
        "gdown": ["download"],
    }
    for name, members in names.items():
        module = types.ModuleType(name)
        module.__path__ = []  # type: ignore[attr-defined]
        for member in members:
            setattr(module, member, Absent)
        sys.modules[name] = module
    sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]  # type: ignore[attr-defined]
    sys.modules["torchvision"].datasets = sys.modules["torchvision.datasets"]  # type: ignore[attr-defined]
    sys.modules["torchvision.transforms"].functional = sys.modules["torchvision.transforms.functional"]  # type: ignore[attr-defined]


def make_step(side: str, threads: int) -> Callable[[], None]:
    """The training step of one side: the teacher's soft labels, four subnets forward and backward, one SGD step."""
    if side not in ("plain", "mit"):
        from ofa.training.memory import keep_freed_memory

        keep_freed_memory()
    if side == "huge-pages":
        os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # read by torch when it is loaded
    import torch
    import torch.nn.functional as F

    if side == "dense-gradients":
        from ofa.depthwise import DepthwiseConv2d

        DepthwiseConv2d._conv_forward = torch.nn.Conv2d._conv_forward  # type: ignore[method-assign]
    if side == "unfolded":
        from ofa import folded

        folded.is_faster = lambda *_: False
    torch.set_num_threads(threads)
    _, pick, teacher, zero_grad, groups = theirs() if side == "mit" else ours()
    optimizer = torch.optim.SGD(groups, 0.01, momentum=0.9, nesterov=True)
    images = torch.randn(32, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    if side not in ("mit", "contiguous"):
        images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (32,), generator=torch.Generator().manual_seed(1))

    def step() -> None:
        with torch.no_grad():
            soft = F.softmax(teacher(images), dim=1)
        zero_grad()
        for seed in SEEDS:
            logits = pick(settings(seed))(images)
            loss = F.cross_entropy(logits, soft) + F.cross_entropy(logits, labels, label_smoothing=0.1)
            loss.backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=[*SIDES])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    step = make_step(arguments.side, arguments.threads)
    for line in sys.stdin:
        answer: dict[str, Any] = {"ready": True}
        if line.strip() == "step":
            start = time.perf_counter()
            step()
            peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            answer = {"seconds": time.perf_counter() - start, "peak_mib": peak_mib}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
