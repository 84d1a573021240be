"""What int8 costs in accuracy: networks of a run by every way to quantize them, and with layers left in float32.

    python benchmarks/int8_accuracy.py trained.run arch-75.json arch-50.json --test test.parquet --out benchmarks/results/int8_accuracy.json

Ranges are fitted to 128 of the run's held-out images, and the best way is chosen on the others, as `ofa export --precision int8` does; all
ways are judged on the test images too, which choose nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import onnx
import torch
from machine import describe_machine

from ofa.arch import Arch
from ofa.calibrate import calibrate
from ofa.data import Images, load_data
from ofa.data.batches import batches
from ofa.exporting.onnx import to_model
from ofa.exporting.quantization.bundles import FileNetwork, instructions
from ofa.exporting.quantization.choosing import best_quantized, candidates
from ofa.exporting.quantization.repair import repaired
from ofa.exporting.quantization.static import quantize
from ofa.resolution import sides
from ofa.training import evaluate, load_run

_FITTED = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("archs", type=Path, nargs="+")
    parser.add_argument("--test", required=True, help="Parquet file or folder that the run was not trained on")
    parser.add_argument("--most-loss", type=float, default=0.01)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    run = load_run(arguments.run)
    splits = run.recipe.load_splits()
    test = load_data(arguments.test, rule=splits.train.rule, classes=splits.train.class_names).normalized(splits.train.normalization)
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "instructions": instructions(),
        "space": run.supernet.space.name,
        "networks": {},
    }
    for path in arguments.archs:
        arch = Arch.load(path)
        network = run.supernet.extract(arch)
        calibrate(network, splits.train, resolution=arch.resolution)
        found = report["networks"][path.stem] = judged(network, arch, splits.selection, test, arguments.most_loss)
        print(path.stem, json.dumps(found))
        if arguments.out:
            arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def judged(network: torch.nn.Module, arch: Arch, held_out: Images, test: Images, most_loss: float) -> dict[str, Any]:
    """Test accuracies of a network in float32, by each way, and of the file that is chosen."""
    side = arch.resolution
    order = torch.arange(len(held_out))
    fitting = [x.contiguous().numpy() for x, _ in batches(held_out.subset(order[:_FITTED]), batch_size=1, resolution=side)]
    judging = held_out.subset(order[_FITTED:])
    model = to_model(network.eval(), (1, fitting[0].shape[1], *sides(side)), dynamic_batch=True)

    def score(file: onnx.ModelProto, data: Images) -> float:
        return evaluate(FileNetwork(file), data, resolution=side)

    chosen = best_quantized(model, fitting, lambda file: score(file, judging), most_loss=most_loss)
    ways = {str(how): round(score(quantize(repaired(model, fitting), fitting, how), test), 4) for how in candidates()}
    return {
        "float32": round(score(model, test), 4),
        "by_way": ways,
        "chosen": round(score(chosen.model, test), 4),
        "how": str(chosen.best.how),
        "float_layers": len(chosen.best.floats),
        "layers": chosen.layers,
    }


if __name__ == "__main__":
    main()
