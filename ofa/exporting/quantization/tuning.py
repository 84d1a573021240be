"""Quantization-aware distillation: the weights of a quantized network are trained to give the answers of the network in float32.

The network's numbers are rounded as its file rounds them, norms are folded as in the file, ranges of activations are those of the file,
and nothing but the teacher's answers is learned from, so that the images' labels do not count (LLM-QAT and PACT have the same scheme for
other networks; Nagel et al., "A White Paper on Neural Network Quantization", 2021, section 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx
import torch

from ofa.data import Images
from ofa.exporting.quantization.fake import FakeQuantized
from ofa.progress import Progress, silent
from ofa.resolution import Resolution
from ofa.tasks import CLASSIFICATION, Task
from ofa.training.optimizer import AdamW
from ofa.training.single import FineTuning, train_network

__all__ = ["EPOCHS", "LEARNING_RATE", "Tuning"]

EPOCHS = 3
LEARNING_RATE = 3e-4


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How the weights of a quantized network are trained.

    Attributes:
        data: images to train on, normalized as for the network; those that it was trained on will do, those that judge it will not.
        resolution: height and width of the input in pixels.
        task: what the network is for.
        epochs: passes over the images, at least 1.
        learning_rate: of the first step; from there it falls to zero along a cosine.
        batch_size: images a step.
        generator: of the order of the images, on the CPU.
    """

    data: Images
    resolution: Resolution
    task: Task = CLASSIFICATION
    epochs: int = EPOCHS
    learning_rate: float = LEARNING_RATE
    batch_size: int = 64
    generator: torch.Generator

    def tune(self, model: onnx.ModelProto, quantized: onnx.ModelProto, progress: Progress = silent) -> onnx.ModelProto:
        """A copy of a float32 model with weights that lose less when they are rounded as in a file that was made of it.

        Args:
            model: in float32, the teacher.
            quantized: made of it.
            progress: told of every epoch.

        Raises:
            ExportError: the network has an operator that torch does not compute here.
            RecipeError: an impossible value, or a loss that is no longer finite.
        """
        network, teacher = FakeQuantized(quantized, model), FakeQuantized(model, model)
        train_network(
            network,
            self.data,
            resolution=self.resolution,
            epochs=self.epochs,
            generator=self.generator,
            settings=FineTuning(
                learning_rate=self.learning_rate,
                batch_size=min(self.batch_size, len(self.data)),
                optimizer=AdamW(weight_decay=0.0),
                task=self.task,
                label_smoothing=0.0,
                distillation_weight=math.inf,
            ),
            teacher=teacher,
            progress=lambda done, total, text="": progress(done, total, f"tuning the weights in int8, {text}"),
        )
        return network.trained()
