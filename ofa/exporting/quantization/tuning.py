"""Quantization-aware distillation: weights of a quantized network are trained to reproduce the float32 network's outputs.

Rounding, folded norms and ranges of activations are those of the quantized file (Nagel et al., "A White Paper on Neural Network
Quantization", 2021, section 4). The network learns from the float network's outputs alone, not from labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx
import torch

from ofa.data import Images
from ofa.errors import ExportError
from ofa.exporting.quantization.fake import FakeQuantized
from ofa.progress import Progress, silent
from ofa.tasks import CLASSIFICATION, Task
from ofa.training.optimizer import AdamW
from ofa.training.single import FineTuning, train_network

__all__ = ["EPOCHS", "FEWEST_IMAGES", "LEARNING_RATE", "Tuning", "tuning_on"]

EPOCHS = 3
LEARNING_RATE = 1e-4
FEWEST_IMAGES = 32
"""Least number of images: with fewer, the weights overfit to single images."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tuning:
    """Settings for tuning the weights of a quantized network.

    Attributes:
        data: images to train on, normalized as for the network. Its own training images are suitable, the judging images are not.
        generator: random generator for the order of the images, on the CPU.
        task: the network's task.
        epochs: passes over the images, at least 1.
        learning_rate: learning rate of the first step; it falls to zero (cosine annealing).
        batch_size: images per step.

    Raises:
        ExportError: an impossible value, or too few images.
    """

    data: Images
    generator: torch.Generator
    task: Task = CLASSIFICATION
    epochs: int = EPOCHS
    learning_rate: float = LEARNING_RATE
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ExportError(f"tuning in int8 must take at least 1 epoch, but epochs is {self.epochs}; raise it, or give no images for it")
        if len(self.data) < FEWEST_IMAGES:
            raise ExportError(
                f"tuning in int8 needs at least {FEWEST_IMAGES} images, but there are {len(self.data)}; give the images that the network "
                "was trained on"
            )

    def tune(self, model: onnx.ModelProto, quantized: onnx.ModelProto, progress: Progress = silent) -> onnx.ModelProto:
        """A copy of a float32 model with tuned weights, which lose less when they are quantized.

        Args:
            model: the float32 model, which is also the teacher; its input is images [B, C, H, W] with open batch size.
            quantized: the quantized model made from it.
            progress: told of every epoch.

        Returns:
            The float32 model with tuned weights.

        Raises:
            ExportError: the network has an operator that is not in ``TORCH_OPERATORS``.
            RecipeError: an impossible value, or the loss is no longer finite.
        """
        network, teacher = FakeQuantized(quantized, model), FakeQuantized(model, model)
        height, width = (each.dim_value for each in model.graph.input[0].type.tensor_type.shape.dim[2:])
        progress(0, self.epochs, "tuning the weights in int8")
        train_network(
            network,
            self.data,
            resolution=height if height == width else (height, width),
            epochs=self.epochs,
            generator=self.generator,
            settings=FineTuning(
                learning_rate=self.learning_rate,
                batch_size=self.batch_size,
                optimizer=AdamW(weight_decay=0.0),
                task=self.task,
                label_smoothing=0.0,
                distillation_weight=math.inf,
            ),
            teacher=teacher,
            progress=lambda done, total, text="": progress(done, total, f"tuning the weights in int8, {text}"),
        )
        return network.trained()


def tuning_on(data: Images | None, *, epochs: int, seed: int) -> Tuning | None:
    """A tuning on images, with a seed for their order; None without images."""
    return None if data is None else Tuning(data=data, epochs=epochs, generator=torch.Generator().manual_seed(seed))
