"""``ofa table transfer``: estimates the table of a new device from another device's table and a few whole networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.console import JsonOption, emit, format_conditions, format_ms, format_percent, progress_bar, warn
from ofa.cli.devices import DeviceOption, FoldersOption, SshConfigOption
from ofa.cli.keeping import ResumeOption, has_ended, making
from ofa.cli.outputs import PARQUET, OverwriteOption
from ofa.cli.sheets import Name, facts
from ofa.cli.table_summary import summary_of

if TYPE_CHECKING:
    import numpy as np
    from rich.console import RenderableType

    from devices import Device
    from latency_tables import LatencyTable
    from ofa.arch import Arch
    from ofa.journal import Steps
    from ofa.space import Space

__all__ = ["transfer"]


def transfer(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A latency table of another device.")],
    space: Annotated[
        str, typer.Option("--space", metavar="SPACE", help="The space that it was built for: a name, a file, a run, or module:attribute.")
    ],
    device: DeviceOption,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="TABLE", help="Where to write the new device's table.")],
    nets: Annotated[int, typer.Option(help="Whole networks to time on the new device.")] = 10,
    measurements: Annotated[
        Path | None,
        typer.Option("--measurements", metavar="FILE", help="Already timed networks: a CSV file with arch (JSON) and measured_ms."),
    ] = None,
    classes: Annotated[int | None, typer.Option("--classes", min=2, help="Classes of your data, if other than the space's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of networks, inputs and order.")] = 0,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    folders: FoldersOption = None,
    ssh_config: SshConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Estimate the table of a new device from another device's table and about ten whole networks.

    Every measurement is kept at once: an interrupted command continues with --resume.
    """
    import numpy as np

    from devices import get_device
    from latency_tables import LatencyTable
    from latency_tables.advice import advice_on_table
    from latency_tables.from_networks import measured_elsewhere
    from latency_tables.transfer import read_measurements, transfer_table
    from ofa.training.spaces import find_space

    kept: Any = {"resume": resume, "overwrite": overwrite, "inputs": {"seed": seed, "nets": nets}, "ending": PARQUET}
    with making(output, "transfer", doing="transferring a table", **kept) as journal:
        if has_ended(output, journal, resume=resume, overwrite=overwrite):
            table = LatencyTable.load(output)
        else:
            loaded, chosen = LatencyTable.load(source), find_space(space, classes)
            measured = get_device(device, folders or (), ssh_config=ssh_config)
            if measurements is None:
                archs, times, origin = _measure(loaded, chosen, measured, nets, np.random.default_rng(seed), journal)
            else:
                archs, times = read_measurements(measurements, chosen)
                origin = measured_elsewhere(measured.to_json())
            table = transfer_table(loaded, chosen, archs, times, origin=origin)
            table.save(output)
    report = summary_of(table, output)
    emit(report, json=json, render=lambda: _render(report), warnings=warn(advice_on_table(table.info)))


def _measure(
    source: LatencyTable, space: Space, device: Device, nets: int, rng: np.random.Generator, steps: Steps
) -> tuple[list[Arch], list[float], dict[str, Any]]:
    """Networks, their latencies in ms on a device, and the device's description of itself."""
    from devices import describe
    from latency_tables import Estimator
    from latency_tables.calibrate import sample_across_range, table_resolutions
    from latency_tables.timing import time_archs, timing_inputs
    from latency_tables.transfer import LEAST_NETWORKS
    from ofa.errors import TableError

    if nets < LEAST_NETWORKS:
        raise TableError(f"a transfer needs at least {LEAST_NETWORKS} networks of the new device, but --nets is {nets}; give more")
    allowed = space.restrict(resolution=table_resolutions(source, space, None))
    archs = sample_across_range(allowed, Estimator(space, source), nets, rng)
    origin = describe(device)
    steps.begin(timing_inputs(origin, archs))
    with progress_bar(f"networks of {space.name}") as progress:
        return archs, time_archs(space, archs, device, rng=rng, progress=progress, steps=steps).tolist(), origin


def _render(report: dict[str, Any]) -> RenderableType:
    calibration, estimated = report["calibration"], report["estimated"]
    shares = {term.replace("_", " "): share for term, share in estimated["shares"].items() if share}
    lines = {
        "table": Name(report["table"]),
        "device": report["device"]["name"],
        "latencies are of": format_conditions(report["conditions"]),
        "estimated from": f"{estimated['nets']} networks and the table of {estimated['source']['device']['name']}",
        "blocks": str(report["blocks"]),
        **{f"resolutions of {space}": ", ".join(map(str, sizes)) for space, sizes in report["spaces"].items()},
        "latency is made of": ", ".join(f"{term} {format_percent(share)}" for term, share in shares.items()),
        "a call beside its blocks": format_ms(calibration["intercept_ms"]),
        "interval": f"{format_percent(calibration['coverage'])} are within {format_percent(calibration['half_width'])}",
    }
    return facts(lines.items())
