"""Adopting other people's networks: the zoo of tests/zoo, random weights, a row each.

A library that is not installed is named as missing. Libraries need environments of their own, so a run replaces the rows of the libraries
that it has and keeps those of others in the file:

    PYTHONPATH=. .venv-zoo/bin/python benchmarks/zoo.py --library timm --out benchmarks/results/zoo.json

``difference`` is how far the largest network's outputs are from the model's, ``onnx_difference`` how far ONNX Runtime's are from torch's
for the smallest network, each as a share of the largest output; ``adoption_s`` is processor time.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from machine import describe_machine, others_during

from ofa.adopting.adoption import Adoption, adopt_model
from ofa.errors import OfaError
from ofa.exporting.onnx import to_model
from tests.ofa.adopting.contract import randomized
from tests.zoo.architectures import TIMM, TORCHVISION, TRANSFORMERS, Architecture

LIBRARIES: Mapping[str, Mapping[str, Architecture]] = {"transformers": TRANSFORMERS, "timm": TIMM, "torchvision": TORCHVISION}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", choices=LIBRARIES, action="append", help="one or more of them; all by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")  # other people's libraries warn of much
    known = json.loads(arguments.out.read_text()) if arguments.out and arguments.out.exists() else {"runs": {}, "rows": []}
    for library in arguments.library or LIBRARIES:
        try:
            known["runs"][library], rows = measure(library, arguments.threads)
        except PackageNotFoundError:
            print(f"{library} is not installed: its {len(LIBRARIES[library])} networks are not adopted")
            continue
        known["rows"] = [row for row in known["rows"] if row["library"] != library] + rows
    known["missing"] = [library for library in LIBRARIES if library not in known["runs"]]
    if arguments.out:
        arguments.out.write_text(json.dumps(known, indent=1) + "\n")


def measure(library: str, threads: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a library's networks were adopted by, and a row for each; PackageNotFoundError if it is not installed."""
    run = {"version": version(library), "machine": describe_machine(), "threads": threads}
    rows = []
    with others_during() as others:
        for name, architecture in LIBRARIES[library].items():
            rows.append({"library": library, "architecture": name, "kind": architecture.kind, **adopted(architecture)})
            print(json.dumps(rows[-1]), flush=True)
    return {**run, "other_load_cores": others.cores}, rows


def adopted(architecture: Architecture) -> dict[str, Any]:
    """What adopting a network gives; why not, if it is refused."""
    model = randomized(architecture.build())
    image = (3, architecture.side, architecture.side)
    row: dict[str, Any] = {"side": architecture.side, "parameters": sum(each.numel() for each in model.parameters())}
    begun = time.process_time()
    try:
        adoption = adopt_model(model, image)
        return {
            **row,
            "adoption_s": round(time.process_time() - begun, 1),
            "elastic_share": round(adoption.elastic_share, 4),
            "least_share": architecture.least,
            "blocks": len(adoption.space.blocks),
            "difference": adoption.difference,
            "onnx_difference": exported_difference(adoption),
        }
    except OfaError as error:
        return {**row, "refused": str(error)}


def exported_difference(adoption: Adoption) -> float:
    """How far ONNX Runtime is from torch for the smallest network."""
    space = adoption.space
    arch = space.smallest()
    sides = (arch.resolution,) * 2 if isinstance(arch.resolution, int) else arch.resolution
    images = torch.rand(3, space.in_channels, *sides, generator=torch.Generator().manual_seed(0))
    network = adoption.supernet.extract(arch).eval()
    exported = to_model(network, (2, *images.shape[1:]), dynamic_batch=True)
    session = onnxruntime.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        expected = network(images)
    return float(f"{(torch.from_numpy(actual) - expected).abs().max() / expected.abs().max():.2g}")


if __name__ == "__main__":
    main()
