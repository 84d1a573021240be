"""What int8 costs in accuracy: networks of a run by every way to quantize them, with layers left in float32, and with tuned weights.

    python benchmarks/int8_accuracy.py trained.run arch-75.json arch-50.json --test test.parquet --tune-epochs 3 --out int8_accuracy.json

Ranges are fitted to 128 of the run's held-out images, and the best way is chosen on the others, as `ofa export --precision int8` does; all
ways are judged on the test images too, which choose nothing. Weights are tuned on the images that the run was trained on, from the best way
of ONNX Runtime's, whether that loses much or not.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import onnx
import torch
from machine import describe_machine

from ofa.arch import Arch
from ofa.calibrate import calibrate
from ofa.data import Images, load_data
from ofa.data.batches import batches
from ofa.errors import ExportError
from ofa.exporting.onnx import to_model
from ofa.exporting.quantization.bundles import FileNetwork
from ofa.exporting.quantization.choosing import best_quantized, candidates
from ofa.exporting.quantization.processor import instructions
from ofa.exporting.quantization.repair import repaired
from ofa.exporting.quantization.static import Quantization, quantize
from ofa.exporting.quantization.tuning import LEARNING_RATE, Tuning
from ofa.resolution import sides
from ofa.training import evaluate, load_run

_FITTED = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("archs", type=Path, nargs="+")
    parser.add_argument("--test", required=True, help="Parquet file or folder that the run was not trained on")
    parser.add_argument("--most-loss", type=float, default=0.01)
    parser.add_argument("--tune-epochs", type=int, default=0, help="passes of tuning over the training images; 0 tunes nothing")
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE, help="of tuning")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    run = load_run(arguments.run)
    splits = run.recipe.load_splits()
    test = load_data(arguments.test, rule=splits.train.rule, classes=splits.train.class_names).normalized(splits.train.normalization)
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "instructions": instructions(),
        "space": run.supernet.space.name,
        "tune_epochs": arguments.tune_epochs,
        "learning_rate": arguments.learning_rate,
        "networks": {},
    }
    for path in arguments.archs:
        arch = Arch.load(path)
        network = run.supernet.extract(arch)
        calibrate(network, splits.train, resolution=arch.resolution)
        judge = Judge(network, arch, splits.selection, test)
        found = report["networks"][path.stem] = {
            "float32": judge.tested(judge.model),
            "by_way": {str(how): judge.tested_as(judge.model, how) for how in candidates()},
            "repaired": {str(how): judge.tested_as(judge.repaired, how) for how in candidates()},
            "chosen": judge.chosen(arguments.most_loss),
        }
        if arguments.tune_epochs:
            generator = torch.Generator().manual_seed(0)
            tuning = Tuning(data=splits.train, generator=generator, epochs=arguments.tune_epochs, learning_rate=arguments.learning_rate)
            found["tuned"] = judge.tuned(tuning)
        print(path.stem, json.dumps(found))
        if arguments.out:
            arguments.out.write_text(json.dumps(report, indent=1) + "\n")


class Judge:
    """Files of one network, judged on the images that choose and on those that test."""

    def __init__(self, network: torch.nn.Module, arch: Arch, held_out: Images, test: Images) -> None:
        self._side, self._test, order = arch.resolution, test, torch.arange(len(held_out))
        first = held_out.subset(order[:_FITTED])
        self.fitting = [x.contiguous().numpy() for x, _ in batches(first, batch_size=1, resolution=self._side)]
        self._judging = held_out.subset(order[_FITTED:])
        self.model = to_model(network.eval(), (1, self.fitting[0].shape[1], *sides(self._side)), dynamic_batch=True)
        self.repaired = repaired(self.model, self.fitting)

    def tested_as(self, model: onnx.ModelProto, how: Quantization) -> float | str:
        """The same of a float32 model in a way to quantize, or why that is not possible."""
        try:
            return self.tested(quantize(model, self.fitting, how))
        except ExportError as error:
            return str(error)

    def tested(self, file: onnx.ModelProto) -> float:
        """The accuracy on the test images, which choose nothing."""
        return round(evaluate(FileNetwork(file), self._test, resolution=self._side), 4)

    def chosen(self, most_loss: float) -> dict[str, Any]:
        """The file that is chosen without tuning, or why none is."""
        try:
            found = best_quantized(self.model, self.fitting, self._judged, most_loss=most_loss)
        except ExportError as refusal:
            return {"refused": str(refusal)}
        about = {"how": str(found.best.how), "float_layers": len(found.best.floats), "layers": found.layers}
        return {"test": self.tested(found.model), **about}

    def tuned(self, tuning: Tuning) -> dict[str, Any]:
        """The file of tuned weights, quantized as they were before."""
        ways = [each for each in candidates() if each.library == "onnxruntime"]
        before = best_quantized(self.model, self.fitting, self._judged, ways=ways, most_loss=1.0)
        begun = time.perf_counter()
        trained = tuning.tune(self.repaired, before.model)
        seconds = round(time.perf_counter() - begun, 1)
        file = quantize(repaired(trained, self.fitting), self.fitting, before.best.how)
        return {"test": self.tested(file), "how": str(before.best.how), "images": len(tuning.data), "tuning_s": seconds}

    def _judged(self, file: onnx.ModelProto) -> float:
        return evaluate(FileNetwork(file), self._judging, resolution=self._side)


if __name__ == "__main__":
    main()
