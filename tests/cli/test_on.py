"""``--on``: where the networks of a run are trained and measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ofa.cli.run_data import place_run
from ofa.training import load_run
from tests.commands import command_line

OF_A_RUN = (
    "specialize {run} --arch {arch} --epochs 0 -o {out}/b",
    "predictor fit {run} --nets 10 --rounds 0 -o {out}/p",
    "search --supernet {run} --trials 1 --resolutions 16 -o {out}/f",
)


@pytest.mark.parametrize("line", OF_A_RUN)
@pytest.mark.parametrize(("on", "said"), [("cuda:99", "'cuda:99' must be there"), ("tpu", "must be cpu, cuda or cuda:N, but is 'tpu'")])
def test_a_place_that_is_not_there_is_one_sentence(line: str, on: str, said: str, places: dict[str, Path], tmp_path: Path) -> None:
    found = command_line(*line.format(**places, out=tmp_path).split(), "--on", on)
    assert (found.exit_code, found.stdout) == (1, "")
    assert said in found.stderr
    remarks = [line for line in found.stderr.splitlines() if "add --storage" in line]
    assert len(found.stderr.splitlines()) == 1 + len(remarks)
    assert not any(tmp_path.iterdir())


def test_networks_of_a_run_are_made_and_measured_on_the_cpu_where_it_is_named(places: dict[str, Path], tmp_path: Path) -> None:
    line = OF_A_RUN[0].format(**places, out=tmp_path).split()
    assert command_line(*line, "--on", "cpu").exit_code == 0
    run = load_run(places["run"])
    place_run(run, "cpu")
    assert {parameter.device for parameter in run.supernet.parameters()} == {torch.device("cpu")}


@pytest.mark.parametrize("line", ["predictor fit {results} -o {out}/p", "search --predictor {predictor} --table {table} -o {out}/f"])
def test_where_nothing_of_a_run_is_measured_the_option_is_wrong_usage(line: str, places: dict[str, Path], tmp_path: Path) -> None:
    found = command_line(*line.format(**places, out=tmp_path).split(), "--on", "cpu")
    assert (found.exit_code, found.stdout) == (2, "")
    assert "for --on: it is for measuring networks" in " ".join(found.stderr.split())


def test_training_takes_the_same_option() -> None:
    assert "--on" in command_line("train", "--help").stdout
