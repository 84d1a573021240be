"""What networks of an adopted model are worth, beside pruning by Torch-Pruning and beside training them alone.

A model in plain PyTorch is trained, adopted, and its supernet trained for a fifth of the epochs by the recipe ``adopt``. A latency table of
this machine and a predictor lead to the networks for 75, 50 and 30 % of the model's latency, all by ofa's commands. Each is judged straight
from the supernet, and after fine-tuning. Beside them: the model pruned by Torch-Pruning to the same latency and trained on with the
same teacher, for as many epochs as all three networks had together, a third each, without and with those of fine-tuning; and the network
trained alone, from nothing, for as many epochs as the model. All are judged on the test images; what is chosen, such as learning rates, is
chosen on held-out ones.

    pip install torch-pruning==1.6.1
    python benchmarks/adopted_accuracy.py --model resnet20 --train train.parquet --test test.parquet --work WORK
    python benchmarks/adopted_accuracy.py --work WORK --out benchmarks/results/adopted_accuracy_resnet20.json

The work is cut into tasks whose results lie in a folder: several processes share it and a stopped one goes on. Latencies are measured in
the tasks ``networks`` and ``torch-pruning``, for which the machine should have nothing else to do: ``--only`` runs tasks of a name.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from adopted_summary import summary
from machine import describe_machine, others_during
from own_models import MODELS
from pruned_models import BUDGETS, adopted, candidates, in_turns, onnx_of, rebuilt, ways_of
from tasks import Report, judge, kept_settings, run_once, splits_in, train_alone
from torch import nn

from ofa.arch import Arch
from ofa.blocks import build_network
from ofa.data import Augmentation, Splits
from ofa.families import lower
from ofa.training import SGD, AdamW, Recipe, evaluate, load_run
from ofa.training.memory import keep_freed_memory
from ofa.training.presets import load_recipe
from ofa.training.single import FineTuning
from ofa.training.specialization import specialize

RESOLUTION = 32
TRAINED_BY = {"resnet20": (SGD(weight_decay=5e-4), 0.1), "convnext": (AdamW(), 0.002), "vit": (AdamW(), 0.001)}
"""The optimizer and the learning rate of each model, and of its parts that are trained alone."""
TUNING_RATES = (0.2, 0.5)
"""Shares of that learning rate, of which the better one on held-out images counts for each pruned network."""
PART = 5
"""The supernet is trained for one of so many of the model's epochs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(MODELS), default="resnet20")
    parser.add_argument("--train", help="Parquet file or folder to train on")
    parser.add_argument("--test", help="the same to judge on")
    parser.add_argument("--epochs", type=int, default=15, help="of the model, and of networks that are trained alone")
    parser.add_argument("--tuning-epochs", type=int, default=1, help="of fine-tuning, a network")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--precision", default="bfloat16", help="of the arithmetic of all training: float32 or bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a change of the recipe adopt")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="tasks whose names have this within them")
    parser.add_argument("--work", type=Path, required=True, help="folder of the tasks' results")
    parser.add_argument("--out", type=Path, help="write the summary of the results that are there")
    arguments = parser.parse_args()
    if arguments.out:
        found = {"machine": describe_machine(), **summary(arguments.work)}
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")
        return
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    work = Work(kept_settings(arguments), arguments.work)
    for name, task in work.tasks():
        if arguments.only in name:
            run_once(arguments.work, name, task)


class Work:
    """The tasks, in the order in which they can be run; one whose inputs are not there yet gives None."""

    def __init__(self, settings: Mapping[str, Any], work: Path) -> None:
        self._settings, self._work = settings, work
        self._optimizer, self._rate = TRAINED_BY[settings["model"]]
        self._epochs, self._tuning_epochs = int(settings["epochs"]), int(settings["tuning_epochs"])

    def tasks(self) -> Iterator[tuple[str, Callable[[], Report | None]]]:
        yield "model", self.model
        yield "supernet", self.supernet
        yield "networks", self.networks
        yield "torch-pruning", self.pruned
        for budget in BUDGETS:
            yield f"straight-{budget}", partial(self.straight, budget)
            yield f"tuned-{budget}", partial(self.tuned, budget)
            yield f"chosen-of-pruned-{budget}", partial(self.choose_pruned, budget)
            yield f"pruned-{budget}", partial(self.tune_pruned, budget)
        for budget in BUDGETS:
            yield f"alone-{budget}", partial(self.alone, budget)

    # -- ours ---------------------------------------------------------------------------------------------------------

    def model(self) -> Report:
        """The model, as its owner trains it."""
        torch.manual_seed(self._settings["seed"])
        network = MODELS[self._settings["model"]]().to(memory_format=torch.channels_last)
        duration = self._train(network, "model", self._epochs)
        torch.save(network.state_dict(), self._work / "model.pth")
        return {"duration_s": duration, **self._judged(network, calibrated=False)}

    def supernet(self) -> Report | None:
        """Adopted and trained, by the commands."""
        if not (self._work / "model.json").exists():
            return None
        settings = self._settings
        images = self.recipe.load_splits().train
        (self._work / "classes.txt").write_text("\n".join(images.class_names) + "\n")
        model, size = f"own_models:{settings['model']}", f"3x{RESOLUTION}x{RESOLUTION}"
        self._ofa(
            *("adopt", model, "--input", size, "--resolutions", RESOLUTION, "--weights", "model.pth", "-o", "mine.run", "--overwrite"),
            *("--mean", listed(images.normalization[0]), "--std", listed(images.normalization[1]), "--classes-from", "classes.txt"),
        )
        changes = [
            *(f"data={Path(settings['train']).absolute()}", f"test_data={Path(settings['test']).absolute()}"),
            *("fractions=[0.95,0.05,0]", f"batch_size={settings['batch_size']}", f"precision={settings['precision']}"),
            *(f"seed={settings['seed']}", f"adopt.epochs={self._supernet_epochs}", *settings["set"]),
        ]
        begun = time.perf_counter()
        options = [word for change in changes for word in ("--set", change)]
        self._ofa("train", "adopt", "--from", "mine.run", *options, "-o", "trained.run", "--overwrite")
        seconds = time.perf_counter() - begun
        run = load_run(self._work / "trained.run")
        return {"epochs": self._supernet_epochs, "duration_s": seconds, "recipe": run.recipe.to_toml()}

    def networks(self) -> Report | None:
        """The network of each budget, by table, predictor and search, and what all of them take in turns."""
        if not (self._work / "supernet.json").exists():
            return None
        with others_during() as others:
            where = ("--space", "trained.run/space.json", "--device", "local-cpu", "--resume")
            self._ofa("table", "build", *where, "-o", "table.parquet")
            self._ofa("table", "calibrate", "table.parquet", *where)
        if not (self._work / "mine.predictor").exists():
            self._ofa("predictor", "fit", "trained.run", "-o", "mine.predictor", "--resume")
        self._ofa(
            *("search", "--space", "trained.run/space.json", "--predictor", "mine.predictor", "--table", "table.parquet"),
            *("-o", "front.parquet", "--overwrite"),
        )
        networks: dict[str, nn.Module] = {"whole": adopted(self.whole())[0]}
        (whole_ms,) = in_turns({"whole": onnx_of(networks["whole"], self._work / "whole.onnx")}).values()
        for budget in BUDGETS:
            limit = f"{whole_ms * budget / 100:.4f}ms"
            self._ofa("query", "front.parquet", "--latency", limit, "--expected", "-o", f"arch-{budget}.json", "--overwrite")
            networks[str(budget)] = self._extract(budget)
        took = in_turns({name: onnx_of(network, self._work / f"{name}.onnx") for name, network in networks.items()})
        return {"latency_ms": took, "other_load_cores": others.cores}

    def straight(self, budget: int) -> Report | None:
        """Calibrated, and not trained by itself."""
        return self._judged(self._extract(budget)) if self._ready else None

    def tuned(self, budget: int) -> Report | None:
        """Fine-tuned as ``ofa specialize`` does, from the supernet."""
        if not self._ready:
            return None
        run = load_run(self._work / "trained.run")
        settings = FineTuning.like(run.recipe, learning_rate=run.recipe.phases[-1].learning_rate)
        done = specialize(
            run.supernet,
            self._arch(budget),
            self.splits.train,
            self.splits.test,
            epochs=self._tuning_epochs,
            generator=run.recipe.generator("specialization"),
            settings=settings,
        )
        return {"epochs": self._tuning_epochs, "accuracy": done.metrics.accuracy, "duration_s": done.metrics.duration_s}

    def alone(self, budget: int) -> Report | None:
        """From nothing, for as many epochs as the model."""
        if not self._ready:
            return None
        space, generator = load_run(self._work / "trained.run").supernet.space, torch.Generator().manual_seed(self._settings["seed"])
        network = build_network(lower(space, self._arch(budget)), generator=generator)
        duration = self._train(network, f"alone-{budget}", self._epochs)
        return {"epochs": self._epochs, "duration_s": duration, **self._judged(network)}

    # -- Torch-Pruning's ----------------------------------------------------------------------------------------------

    def pruned(self) -> Report | None:
        """For each budget and way of pruning the largest pruned model that takes no longer than our network."""
        if not self._ready:
            return None
        with others_during() as others:
            report = candidates(self.whole, self._work)
        return {**report, "other_load_cores": others.cores}

    def choose_pruned(self, budget: int) -> Report | None:
        """Trained on for a third of the supernet's epochs by all ways and learning rates; the best one on held-out images."""
        if not (self._work / "torch-pruning.json").exists():
            return None
        ways = ways_of(self._work, budget)
        tried = [self._on_trained(way, rate, budget, self._epochs_a_network) for way in ways for rate in TUNING_RATES]
        if not tried:
            return None
        return {**max(tried, key=lambda report: report["held_out"]), "tried": tried}

    def tune_pruned(self, budget: int) -> Report | None:
        """The best one of these, trained anew for as many epochs more as our network is fine-tuned for."""
        path = self._work / f"chosen-of-pruned-{budget}.json"
        if not path.exists():
            return None
        chosen = json.loads(path.read_text())
        return self._on_trained(chosen["way"], chosen["share_of_rate"], budget, self._epochs_a_network + self._tuning_epochs)

    def _on_trained(self, way: str, share: float, budget: int, epochs: int) -> Report:
        network = rebuilt(self.whole(), self._work, way, budget)
        teacher = self.whole().eval()
        duration = self._train(network, f"pruned-{way}-{budget}-{epochs}-{share}", epochs, rate=share * self._rate, teacher=teacher)
        return {"way": way, "share_of_rate": share, "epochs": epochs, "duration_s": duration, **self._judged(network)}

    # -- what they share ----------------------------------------------------------------------------------------------

    @cached_property
    def recipe(self) -> Recipe:
        settings = self._settings
        return load_recipe("single-stage", (f"data={settings['train']}", f"test_data={settings['test']}", "fractions=[0.95,0.05,0]"))

    @cached_property
    def splits(self) -> Splits:
        return splits_in(self._work, self.recipe.load_splits)

    @property
    def _supernet_epochs(self) -> int:
        return max(1, self._epochs // PART)

    @property
    def _epochs_a_network(self) -> int:
        """The supernet's, in equal parts for the three networks."""
        return max(1, self._supernet_epochs // len(BUDGETS))

    @property
    def _ready(self) -> bool:
        return (self._work / "networks.json").exists()

    def whole(self) -> nn.Module:
        """The model as it was trained."""
        network = MODELS[self._settings["model"]]()
        network.load_state_dict(torch.load(self._work / "model.pth", weights_only=True))
        return network.eval()

    def _arch(self, budget: int) -> Arch:
        return Arch.load(self._work / f"arch-{budget}.json")

    def _extract(self, budget: int) -> nn.Module:
        return load_run(self._work / "trained.run").supernet.extract(self._arch(budget))

    def _train(self, network: nn.Module, name: str, epochs: int, *, rate: float | None = None, teacher: nn.Module | None = None) -> float:
        settings = FineTuning(
            learning_rate=rate or self._rate,
            warmup_epochs=min(1.0, epochs / PART),
            batch_size=self._settings["batch_size"],
            optimizer=self._optimizer,
            augmentation=Augmentation(shift=0.125, flip=True),
            precision=self._settings["precision"],
        )
        return train_alone(
            network,
            self.splits,
            self._work / f"{name}.state",
            resolution=RESOLUTION,
            epochs=epochs,
            generator=torch.Generator().manual_seed(self._settings["seed"]),
            settings=settings,
            teacher=teacher,
        )

    def _judged(self, network: nn.Module, *, calibrated: bool = True) -> Report:
        judged = judge if calibrated else lambda network, px, splits: evaluate(network.eval(), splits.test, resolution=px)
        accuracy = judged(network, RESOLUTION, self.splits)
        return {"accuracy": accuracy, "held_out": evaluate(network.eval(), self.splits.selection, resolution=RESOLUTION)}

    def _ofa(self, *words: object) -> None:
        """Run a command in the folder."""
        paths = os.pathsep.join([str(Path(__file__).parent.absolute()), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        subprocess.run([sys.executable, "-m", "ofa", *map(str, words)], cwd=self._work, env=environment, check=True)


def listed(numbers: tuple[float, ...]) -> str:
    return ",".join(map(str, numbers))


if __name__ == "__main__":
    main()
