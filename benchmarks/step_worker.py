"""One side of training_step.py and of gpu/speed.py: builds a supernet and makes training steps when it is asked to.

It runs in our environment, in one of the variants below, or in one that has MIT's package instead; both import it as ``ofa``. Each line
that it reads is the JSON of a Burst, and so is each answer.
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
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

KERNELS, EXPANDS, DEPTHS = (3, 5, 7), (3, 4, 6), (2, 3, 4)
SEEDS = (200, 201, 202, 203)
WARM_STEPS = 3

SIDES = {
    "ofa": "as the command line trains",
    "plain": "without keeping freed memory",
    "contiguous": "with contiguous instead of channels-last images, and so with torch's own kernels",
    "dense-gradients": "with torch's own weight gradients of depthwise convolutions",
    "unfolded": "with batch norms on their own",
    "huge-pages": "with huge pages besides",
    "eager": "on a GPU, kernel by kernel instead of by CUDA graphs of blocks",
    "separate": "each subnet by itself (and eager), without sharing the blocks that they begin with",
    "torch-kernels": "on a GPU, with torch's kernels on channels-last images",
    "eager-torch-kernels": "both",
    "own-depthwise": "on a GPU, with our kernels for depthwise convolutions in every precision",
    "cudnn-depthwise": "on a GPU, with cuDNN's in every precision",
    "unfused-optimizer": "on a GPU, with torch's default implementation of SGD",
    "tuned": "with cuDNN choosing its algorithms by trying them",
    "graph": "the whole step as one CUDA graph, which only one fixed choice of subnets allows: how much launches cost",
    "streams": "each subnet on a stream of its own; gradients may then meet, so this is a bound, not a way to train",
    "one": "one subnet, no teacher",
    "one-compiled": "the same by torch.compile",
    "mit": "MIT's package",
    "mit-tuned": "MIT's package, with cuDNN choosing its algorithms by trying them",
}
EAGER = ("contiguous", "eager", "eager-torch-kernels", "graph", "one-compiled", "separate", "streams")
"""Sides that use no graphs of blocks."""


@dataclass(frozen=True)
class Burst:
    """A few steps in a row.

    Attributes:
        steps: how many are timed; the first burst of a kind warms up before.
        batch, resolution: images, and their side in pixels.
        precision: float32, bfloat16 or float16, by autocast.
        profile: whether one more step is made under torch's profiler.
    """

    steps: int = 1
    batch: int = 32
    resolution: int = 128
    precision: str = "float32"
    profile: bool = False


def settings(seed: int) -> dict[str, list[int]]:
    """A random subnet in MIT's notation."""
    rng = random.Random(seed)
    depths = [rng.choice(DEPTHS) for _ in range(5)]
    return {"d": depths, "ks": [rng.choice(KERNELS) for _ in range(20)], "e": [rng.choice(EXPANDS) for _ in range(20)]}


def arch_of(space: Any, setting: dict[str, list[int]]) -> Any:
    """The arch of a subnet in MIT's notation, at 224 pixels."""
    from ofa.arch import Arch, Genes

    stages = tuple(
        tuple(Genes(kernel=setting["ks"][4 * s + b], expand=setting["e"][4 * s + b]) for b in range(depth))
        for s, depth in enumerate(setting["d"])
    )
    return Arch(space.name, 224, stages)


def ours(side: str, device: str) -> Callable[[Any, Any, str], None]:
    import torch

    from ofa.blocks import build_network
    from ofa.families import get_space, lower
    from ofa.supernet import Supernet
    from ofa.training.optimizer import SGD
    from ofa.training.recorded import CudaGraphs, Recorder
    from ofa.training.step import Objective, gradient_scaler, training_step

    space = get_space("ofa-mbv3-w1.0")
    supernet = Supernet(space, generator=torch.Generator().manual_seed(0), dropout=0.1).to(device).train()
    # In training mode, as MIT's teacher is.
    teacher = (
        build_network(lower(space, space.largest()), generator=torch.Generator().manual_seed(1)).to(device).train().requires_grad_(False)
    )
    optimizer = SGD().make(supernet.parameter_groups(3e-5), 0.01)
    archs = [arch_of(space, settings(seed)) for seed in SEEDS]
    alone = side.startswith("one")
    objective = Objective(label_smoothing=0.1) if alone else Objective(label_smoothing=0.1, teacher=teacher, distillation_weight=1.0)
    chosen = archs[:1] if alone else archs

    recorder = Recorder(CudaGraphs()) if device != "cpu" and side not in EAGER else None

    def step(x_BCHW: Any, y_B: Any, precision: str) -> None:
        scaler = gradient_scaler(precision, x_BCHW.device) if precision == "float16" else None  # type: ignore[arg-type]
        batch = (x_BCHW, y_B)
        training_step(supernet, chosen, batch, optimizer, objective, precision=precision, scaler=scaler, recorder=recorder)  # type: ignore[arg-type]

    return step


def theirs(side: str, device: str) -> Callable[[Any, Any, str], None]:
    stand_ins()
    import torch
    import torch.nn.functional as F

    from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3
    from ofa.imagenet_classification.networks.mobilenet_v3 import MobileNetV3Large

    net = OFAMobileNetV3(width_mult=1.0, dropout_rate=0.1, ks_list=[*KERNELS], expand_ratio_list=[*EXPANDS], depth_list=[*DEPTHS])
    teacher = MobileNetV3Large(n_classes=1000, bn_param=(0.1, 1e-5), dropout_rate=0, width_mult=1.0, ks=7, expand_ratio=6, depth_param=4)
    net, teacher = net.to(device).train(), teacher.to(device).train()
    groups = [{"params": net.get_parameters(["bn", "bias"], mode="exclude"), "weight_decay": 3e-5}]
    groups.append({"params": net.get_parameters(["bn", "bias"], mode="include"), "weight_decay": 0.0})
    optimizer = torch.optim.SGD(groups, 0.01, momentum=0.9, nesterov=True)

    def step(x_BCHW: Any, y_B: Any, precision: str) -> None:
        mixed = nullcontext() if precision == "float32" else torch.autocast(x_BCHW.device.type, getattr(torch, precision))
        with mixed, torch.no_grad():
            soft = F.softmax(teacher(x_BCHW).float(), dim=1)
        net.zero_grad()
        for seed in SEEDS:
            net.set_active_subnet(**settings(seed))
            with mixed:
                logits = net(x_BCHW).float()
                loss = F.cross_entropy(logits, soft) + F.cross_entropy(logits, y_B, label_smoothing=0.1)
            loss.backward()
        optimizer.step()

    return step


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


def make_step(side: str, device: str) -> Callable[[Any, Any, str], None]:
    """The training step of one side: the teacher's soft labels, four subnets forward and backward, one SGD step."""
    if side == "huge-pages":
        os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # read by torch when it is loaded
    import torch

    torch.backends.cudnn.benchmark = side.endswith("tuned")
    if side.startswith("mit"):
        return theirs(side, device)
    if side != "plain":
        from ofa.training.memory import keep_freed_memory

        keep_freed_memory()
    patch(side)
    return ours(side, device)


def patch(side: str) -> None:
    """Put back what a variant leaves out."""
    import torch

    from ofa import folded, kernels
    from ofa.depthwise import DepthwiseConv2d
    from ofa.training import optimizer, step

    if side == "dense-gradients":
        DepthwiseConv2d._conv_forward = torch.nn.Conv2d._conv_forward  # type: ignore[method-assign]
    elif side == "unfolded":
        folded.is_faster = lambda *_: False
    elif side in ("contiguous", "torch-kernels", "eager-torch-kernels", "one-compiled"):
        kernels.available = lambda: False  # type: ignore[assignment]
    elif side in ("separate", "streams"):
        step.run_together = separately if side == "separate" else on_streams  # type: ignore[assignment]
    elif side in ("own-depthwise", "cudnn-depthwise"):
        kernels.takes_depthwise = kernels.takes if side == "own-depthwise" else lambda x_BCHW: False  # type: ignore[assignment]
    elif side == "unfused-optimizer":
        optimizer.has_fused_kernel = lambda groups: False  # type: ignore[assignment]
    if side == "one-compiled":
        step.run_together = compiled  # type: ignore[assignment]


def separately(networks: Any, x_BCHW: Any, finish: Any) -> None:
    for number, pieces in enumerate(networks):
        run_alone(number, [piece.module for piece in pieces], x_BCHW, finish)


def run_alone(number: int, modules: Any, x_BCHW: Any, finish: Any) -> None:
    for module in modules[:-1]:
        x_BCHW = module(x_BCHW)
    finish(number, modules[-1], x_BCHW).backward()


def on_streams(networks: Any, x_BCHW: Any, finish: Any) -> None:
    import torch

    here = torch.cuda.current_stream()
    if not STREAMS:
        STREAMS.extend(torch.cuda.Stream() for _ in networks)
    for number, (stream, pieces) in enumerate(zip(STREAMS, networks, strict=True)):
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            run_alone(number, [piece.module for piece in pieces], x_BCHW, finish)
    for stream in STREAMS:
        here.wait_stream(stream)


STREAMS: list[Any] = []


def compiled(networks: Any, x_BCHW: Any, finish: Any) -> None:
    import torch

    if not COMPILED:
        COMPILED.append(torch.compile(torch.nn.Sequential(*(piece.module for piece in networks[0][:-1])), dynamic=False))
    finish(0, networks[0][-1].module, COMPILED[0](x_BCHW)).backward()


COMPILED: list[Any] = []


def as_graph(step: Callable[[], None]) -> Callable[[], None]:
    """The step captured once and replayed."""
    import torch

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    return graph.replay


class Side:
    """A side's network, and the steps that it has warmed up."""

    def __init__(self, side: str, device: str) -> None:
        self.side, self.device = side, device
        self.step = make_step(side, device)
        self.warm: dict[tuple[Any, ...], Callable[[], None]] = {}

    def burst(self, burst: Burst) -> dict[str, Any]:
        """Make a few steps; the answer has their seconds, and the peak memory in MiB."""
        import torch

        on_gpu = self.device != "cpu"
        wait = torch.cuda.synchronize if on_gpu else lambda: None
        once = self.ready(burst)
        if on_gpu:
            once()  # fetches the memory that was given back
            wait()
        seconds = []
        for _ in range(burst.steps):
            start = time.perf_counter()
            once()
            wait()
            seconds.append(time.perf_counter() - start)
        answer: dict[str, Any] = {"seconds": seconds, "profile": profiled(once) if burst.profile and on_gpu else None}
        if on_gpu:
            answer["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.empty_cache()  # others take turns on this card
        else:
            answer["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return answer

    def ready(self, burst: Burst) -> Callable[[], None]:
        """One step of a kind, warmed up."""
        import torch

        key = (burst.batch, burst.resolution, burst.precision)
        if key in self.warm:
            return self.warm[key]
        shape = (burst.batch, 3, burst.resolution, burst.resolution)
        x_BCHW = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device)
        if self.side not in ("mit", "mit-tuned", "contiguous"):
            x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        y_B = torch.randint(0, 1000, (burst.batch,), generator=torch.Generator().manual_seed(1)).to(self.device)

        def once() -> None:
            self.step(x_BCHW, y_B, burst.precision)

        for _ in range(WARM_STEPS):
            once()
        self.warm[key] = as_graph(once) if self.side == "graph" else once
        return self.warm[key]


def profiled(once: Callable[[], None]) -> dict[str, Any]:
    """One step under torch's profiler: how long the card was busy and idle between the first kernel and the last, and with what."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        once()
        torch.cuda.synchronize()
    spans = [(event.time_range.start, event.time_range.end, event.name) for event in recorded.events() if event.device_type.name == "CUDA"]
    spans.sort()
    busy, end = 0.0, spans[0][0]
    by_name: dict[str, list[float]] = {}
    for start, stop, name in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
        by_name.setdefault(name.split("(")[0].split("<")[0][:80], []).append(stop - start)
    total = end - spans[0][0]
    most = sorted(by_name.items(), key=lambda item: -sum(item[1]))[:25]
    kernels = [{"name": name, "ms": round(sum(times) / 1e3, 3), "calls": len(times)} for name, times in most]
    return {"kernels": len(spans), "busy_ms": busy / 1e3, "idle_ms": (total - busy) / 1e3, "most": kernels}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=[*SIDES])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    side = None
    for line in sys.stdin:
        asked = json.loads(line)
        if side is None:
            side = Side(arguments.side, arguments.device)
            import torch

            torch.set_num_threads(arguments.threads)
        answer = side.burst(Burst(**asked)) if asked else {"ready": True}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
