"""Hashes of what a refactoring must not change: weights, costs, estimates, predictions, fronts and exported files.

    python benchmarks/unchanged.py --out before.json
    python benchmarks/unchanged.py --against before.json

The first line stores a hash an item, the second says for each item whether it is still the same, and exits with status 1 if one is not.
Both must run on one machine with the same versions of torch and numpy: floating-point sums differ between processors. ``--only`` takes
the beginnings of items' names. Everything runs on one thread of the CPU, from fixed seeds, in about a minute.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine
from threadpoolctl import threadpool_limits

# Everything of the project is imported where it is used, so that a name that moved breaks the items that use it and no others.

SPACES = (
    "ofa-mbv3-w1.0",
    "ofa-mbv3-w1.2",
    "ofa-mbv3-tiny",
    "ofa-mbv3-32px",
    "ofa-proxyless-w1.3",
    "ofa-proxyless-tiny",
    "ofa-resnet50",
    "ofa-resnet50-tiny",
)
FAMILIES = ("ofa-mbv3-tiny", "ofa-proxyless-tiny", "ofa-resnet50-tiny")
"""One small space of each family."""
TABLES = Path(__file__).parents[1] / "latency_tables" / "data"
COSTS = ("macs", "params", "weight_bytes", "peak_activation_bytes")
ARCHS = 1000
SUMMED = 200
"""Networks whose costs are added up block by block; by arrays it is all of them."""

RECIPE = """
space = "{space}"
data = "digits"
fractions = [0.1, 0.05, 0.85]
batch_size = 32
workers = 0
evaluation_images = 32
"""
METHODS = {
    "progressive-shrinking": "[progressive_shrinking]\nepochs = 6\nlearning_rate = 0.1\nsubnets_per_step = 2\nwarmup_epochs = 0.5",
    "compound": "[compound]\nepochs = 3\nlearning_rate = 0.1\nsubnets_per_step = 2",
    "single-stage": "clip_norm = 1.0\ndropout = 0.1\n[single_stage]\nepochs = 1\nlearning_rate = 0.1\nwarmup_epochs = 0.5",
    "sandwich": 'cosine = "run"\naugmentation = {shift = 0.06, scale = 0.1}\n[compound]\nepochs = 3\nlearning_rate = 0.1\n'
    'subnets_per_step = 3\nsandwich = true\nteacher = "in-place"\nsampling = "strata"',
    "best-up": 'weight_averaging = 0.9\nlabel_smoothing = 0.1\naugmentation = {colour = 0.1, flip = true}\nprecision = "bfloat16"\n'
    '[single_stage]\nepochs = 1\nlearning_rate = 0.05\nsampling = "best-up"\ndivergence = "kl"\ndistillation_weight = 1.0',
}

Item = Callable[[], str]


def main(words: Sequence[str] | None = None) -> int:
    """What the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="store the hashes there")
    parser.add_argument("--against", type=Path, help="compare with those stored there")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="items whose names begin so")
    arguments = parser.parse_args(words)
    chosen = {name: item for name, item in items().items() if name.startswith(tuple(arguments.only))}
    if not chosen:
        parser.error(f"no item begins with {' or '.join(arguments.only)}; there are {', '.join(items())}")
    torch.set_num_threads(1)
    with threadpool_limits(1):
        found = {name: hash_of(name, item) for name, item in chosen.items()}
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": describe_machine(), "hashes": found}, indent=1) + "\n")
    failed = [name for name, value in found.items() if value.startswith("failed")]
    if arguments.against:
        before = json.loads(arguments.against.read_text())["hashes"]
        failed = differences({name: value for name, value in before.items() if name.startswith(tuple(arguments.only))}, found)
    return 1 if failed else 0


def hash_of(name: str, item: Item) -> str:
    """The item's hash, or ``failed`` and why, so that one item does not hide the others."""
    start = time.perf_counter()
    try:
        value = item()
    except Exception as error:  # an item may fail in any way while names move
        value = f"failed: {type(error).__name__}: {error}"
    print(
        f"{time.perf_counter() - start:5.1f} s  {name}  {value if value.startswith('failed') else value[:12]}", file=sys.stderr, flush=True
    )
    return value


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The names of items whose hashes are not the same; says so for each item."""
    names = [*before, *(name for name in now if name not in before)]
    verdicts = {name: _verdict(before.get(name), now.get(name)) for name in names}
    for name, verdict in verdicts.items():
        print(f"{verdict:8} {name}")
    return [name for name, verdict in verdicts.items() if verdict != "the same"]


def _verdict(before: str | None, now: str | None) -> str:
    if before is None:
        return "new"
    if now is None:
        return "missing"
    return "the same" if before == now and not now.startswith("failed") else "differs"


# -- items ------------------------------------------------------------------------------------------------------------


def items() -> dict[str, Item]:
    """All items by their names, which are stable."""
    found: dict[str, Item] = {}
    for space in SPACES:
        found[f"archs/{space}"] = partial(archs, space)
        found[f"costs/{space}"] = partial(costs, space)
        found[f"costs-of-rows/{space}"] = partial(costs_of_rows, space)
    for path in sorted(TABLES.glob("*.parquet")):
        found[f"estimates/{path.stem}"] = partial(estimates, path)
    for space in FAMILIES:
        found |= {f"weights/{space}/{method}": partial(weights, space, method) for method in METHODS}
        found[f"network-alone/{space}"] = partial(network_alone, space)
        found[f"specialized/{space}"] = partial(specialized, space)
        found[f"onnx-file/{space}"] = partial(onnx_file, space)
        found[f"onnx-outputs/{space}"] = partial(onnx_outputs, space)
        found[f"onnx-half/{space}"] = partial(onnx_half, space)
    return found | {
        "predictor/fitted": predictor_fitted,
        "predictor/outputs": predictor_outputs,
        "search/front": front,
        "search/query": query,
    }


def archs(name: str) -> str:
    """Archs as rows of integers and as JSON, there and back."""
    space, rows_NC = sampled(name)
    decoded = decoded_archs(name)
    return digest(np.asarray(rows_NC, dtype=np.int64), [arch.to_json() for arch in decoded], space.encode_all(decoded).astype(np.int64))


def costs(name: str) -> str:
    """The costs of networks, each added up over its blocks."""
    from ofa.costs import costs

    space = get_space(name)
    found = [costs(space.lower(arch)) for arch in decoded_archs(name)[:SUMMED]]
    return digest([[int(cost[each]) for each in COSTS] for cost in found])


def costs_of_rows(name: str) -> str:
    """The costs of all networks by arrays, as a search counts them."""
    from ofa.row_costs import costs_of

    space, rows_NC = sampled(name)
    columns = costs_of(space)(rows_NC, COSTS)
    return digest([columns[each].astype(np.int64).tolist() for each in COSTS])


def estimates(path: Path) -> str:
    """Latencies and their intervals from a stored table."""
    return digest(*(np.asarray(column_N, dtype=np.float64) for column_N in estimator(path).estimates_of_rows(rows_of_table(path))))


def weights(name: str, method: str) -> str:
    """A supernet after a short training, and what the training said of itself."""
    from ofa.training import train

    recipe, splits = recipe_and_data(name, method)
    supernet = recipe.build_supernet(splits.train.num_classes)
    metrics = train(supernet, recipe, splits.train, selection=splits.selection)
    told = [[each.phase, each.epoch, each.loss, each.accuracy] for each in metrics]
    return digest(supernet.state_dict(), told)


def network_alone(name: str) -> str:
    """A network that is trained by itself."""
    from ofa.training.single import FineTuning, train_network

    recipe, splits = recipe_and_data(name, "sandwich")
    supernet = some_supernet(name)
    network = supernet.extract(supernet.space.smallest())
    settings = FineTuning(batch_size=32, augmentation=recipe.augmentation, warmup_epochs=0.5)
    generator = torch.Generator().manual_seed(5)
    resolution = supernet.space.resolutions[0]
    train_network(network, splits.train, resolution=resolution, epochs=2, generator=generator, settings=settings)
    return digest(network.state_dict())


def specialized(name: str) -> str:
    """A network that is cut out, calibrated and distilled, and its accuracies."""
    from ofa.training.specialization import FineTuning, specialize

    _, splits = recipe_and_data(name, "compound")
    supernet, generator = some_supernet(name), torch.Generator().manual_seed(6)
    found = specialize(
        supernet, some_arch(name), splits.train, splits.selection, epochs=1, generator=generator, settings=FineTuning(batch_size=32)
    )
    told = asdict(found.metrics)
    return digest(found.network.state_dict(), [told[key] for key in ("accuracy_before", "accuracy", "teacher_accuracy")])


def onnx_file(name: str) -> str:
    """The bytes of an exported file."""
    return digest(exported(name).SerializeToString(deterministic=True))


def onnx_outputs(name: str) -> str:
    """What ONNX Runtime computes from that file."""
    return digest(*outputs_of(exported(name)))


def onnx_half(name: str) -> str:
    """The bytes of the same file in half precision."""
    from ofa.exporting.precision import to_half

    return digest(to_half(exported(name)).SerializeToString(deterministic=True))


def predictor_fitted() -> str:
    """What a predictor says of itself after it was fitted to fixed numbers."""
    return digest(json.loads(json.dumps(some_predictor().provenance)))


def predictor_outputs() -> str:
    """What that predictor expects of networks, with intervals; of the file that it was written to too."""
    from search.predictor.accuracy_predictor import AccuracyPredictor

    predictor = some_predictor()
    space, rows_NC = sampled("ofa-mbv3-32px")
    rows_NC = space.rows_in(predictor.space, rows_NC)
    with tempfile.TemporaryDirectory() as folder:
        predictor.save(Path(folder) / "p.parquet")
        again = AccuracyPredictor.load(Path(folder) / "p.parquet")
    return digest(*(np.asarray(p.of_rows(rows_NC)) for p in (predictor, again)), *map(np.asarray, predictor.interval_of_rows(rows_NC)))


def front() -> str:
    """The networks of a front and all numbers of them."""
    networks = some_front().networks
    names = sorted(str(name) for name in networks.columns if name != "arch")
    return digest(names, *(networks[name].to_numpy(dtype=np.float64) for name in names), networks["arch"].tolist())


def query() -> str:
    """The answers of that front to budgets."""
    from search.budget import Budget

    answers = [some_front().query(Budget({"latency_ms": limit}), top=3) for limit in (0.8, 1.2, 2.0)]
    return digest([[each.to_json() for each in answer] for answer in answers])


# -- what items are made of -------------------------------------------------------------------------------------------


def digest(*parts: Any) -> str:
    """One hash of arrays, states of modules, bytes and JSON values, types and shapes included."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Mapping) and all(isinstance(value, torch.Tensor) for value in part.values()):
            for name in sorted(part):
                array = part[name].detach().cpu().contiguous().numpy()
                found.update(f"{name} {array.dtype} {array.shape}".encode())
                found.update(array.tobytes())
        elif isinstance(part, np.ndarray):
            found.update(f"{part.dtype} {part.shape}".encode())
            found.update(np.ascontiguousarray(part).tobytes())
        else:
            found.update(part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode())
    return found.hexdigest()


def get_space(name: str) -> Any:
    """A space by its name."""
    from ofa import get_space

    return get_space(name)


@lru_cache
def sampled(name: str) -> tuple[Any, Any]:
    """A space and random rows of it."""
    space = get_space(name)
    return space, space.canonical(space.sample_rows(ARCHS, np.random.default_rng(0)))


@lru_cache
def decoded_archs(name: str) -> tuple[Any, ...]:
    """The archs of these rows."""
    space, rows_NC = sampled(name)
    return tuple(space.decode(row) for row in rows_NC.tolist())


def some_arch(name: str) -> Any:
    """A network of middling size, at the smallest resolution."""
    space = get_space(name)
    row = space.encode(decoded_archs(name)[1])
    return space.decode([0, *row[1:]])


@lru_cache
def some_supernet(name: str) -> Any:
    """An untrained supernet for digits."""
    recipe, splits = recipe_and_data(name, "compound")
    return recipe.build_supernet(splits.train.num_classes)


@lru_cache
def recipe_and_data(name: str, method: str) -> tuple[Any, Any]:
    """A recipe as the text of a file says it, and its digits."""
    from ofa.training import Recipe

    recipe = Recipe.from_toml(RECIPE.format(space=name) + METHODS[method])
    return recipe, recipe.load_splits()


@lru_cache
def estimator(path: Path) -> Any:
    """A stored table for the space that it is of, with the resolutions it knows."""
    from latency_tables import Estimator, LatencyTable

    table = LatencyTable.load(path)
    name, *_ = table.info.spaces
    return Estimator(get_space(name).restrict(resolution=table.info.resolutions_of(name)), table)


def rows_of_table(path: Path) -> Any:
    """Random rows of a table's space."""
    space = estimator(path).space
    return space.canonical(space.sample_rows(ARCHS, np.random.default_rng(1)))


@lru_cache
def exported(name: str) -> Any:
    """An untrained network as an ONNX model, without the version of the project that made it."""
    from ofa.exporting.onnx import to_model

    supernet, arch = some_supernet(name), some_arch(name)
    shape = (2, supernet.space.in_channels, arch.resolution, arch.resolution)
    model = to_model(supernet.extract(arch).eval(), shape)
    model.producer_version = ""
    return model


def outputs_of(model: Any) -> Iterable[Any]:
    """The outputs of an ONNX model for random images, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    images = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    return session.run(None, {model.graph.input[0].name: images})


@lru_cache
def some_predictor() -> Any:
    """A predictor that is fitted to made-up accuracies."""
    from search.predictor.accuracy_predictor import AccuracyPredictor

    space = get_space("ofa-mbv3-32px")
    rng = np.random.default_rng(3)
    chosen: Sequence[Any] = [space.sample(rng) for _ in range(30)]
    share_N = space.encode_all(chosen).astype(np.float64) / np.maximum(np.asarray(space.cardinalities) - 1, 1)
    accuracies = 0.9 - 0.3 * np.exp(-3 * share_N.mean(axis=1)) + 0.005 * rng.standard_normal(len(chosen))
    return AccuracyPredictor.fit(space, chosen, accuracies, rng)


@lru_cache
def some_front() -> Any:
    """The front of a short search by a stored table and that predictor."""
    from search.problem import Problem
    from search.study import Effort, run_study

    path = TABLES / "ofa-mbv3-32px_local-cpu.parquet"
    space = estimator(path).space
    problem = Problem(space=space, accuracy=some_predictor(), latencies=[estimator(path)])
    return run_study(problem, seed=0, effort=Effort(trials=48, evaluations=6000, islands=8))


if __name__ == "__main__":
    sys.exit(main())
