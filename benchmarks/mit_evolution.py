"""Time the evolutionary search of MIT's once-for-all package, and say what it finds.

It runs in an environment of its own, because the package is imported as `ofa` too:

    python -m venv PEER && PEER/bin/pip install torch numpy pyyaml tqdm && PEER/bin/pip install --no-deps ofa==0.1.0.post202307202001 thop
    PEER/bin/python benchmarks/mit_evolution.py --predictor ofa_acc_predictor.pth --out benchmarks/results/mit_evolution.json

At most so many MACs, its own population, iterations and resolutions; a latency would need its tables of all five resolutions. Its
predictor and its MACs table are built before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from contextlib import chdir, redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine, others_during
from record_mit_reference import stand_in_for_absent_packages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictor", type=Path, required=True, help="MIT's acc_predictor.pth")
    parser.add_argument("--mega-macs", type=float, default=300.0)
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    stand_in_for_absent_packages()
    from ofa.tutorial import AccuracyPredictor, EvolutionFinder, FLOPsTable

    predictor = AccuracyPredictor(pretrained=False, device="cpu")
    predictor.model.load_state_dict(torch.load(arguments.predictor, map_location="cpu", weights_only=True))
    runs = []
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere), others_during() as others:
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            macs = FLOPsTable(device="cpu", batch_size=1)
        for seed in range(arguments.seeds):
            random.seed(seed)
            np.random.seed(seed)
            start = time.perf_counter()
            finder = EvolutionFinder(
                constraint_type="flops",
                efficiency_constraint=arguments.mega_macs,
                efficiency_predictor=macs,
                accuracy_predictor=predictor,
                population_size=100,
                max_time_budget=arguments.iterations,
            )
            _, (accuracy, _, mega_macs) = finder.run_evolution_search()
            runs.append({"seconds": time.perf_counter() - start, "accuracy": float(accuracy), "mega_macs": float(mega_macs)})
    accuracies = [run["accuracy"] for run in runs]
    figures = {
        "mega_macs": arguments.mega_macs,
        "iterations": arguments.iterations,
        "median_s": round(statistics.median(run["seconds"] for run in runs), 2),
        "median": round(statistics.median(accuracies), 5),
        "best": round(max(accuracies), 5),
        "runs": runs,
    }
    print(json.dumps(figures, indent=1))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        machine = {**describe_machine(), "mit_package": version("ofa")}
        arguments.out.write_text(json.dumps({"machine": machine, "other_load_cores": others.cores, "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
