"""``ofa devices``: lists devices, and tests whether they answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.console import JsonOption, console, emit, format_conditions, format_ms
from ofa.cli.sheets import Name, facts, line, records

if TYPE_CHECKING:
    from rich.console import RenderableType

    from devices import Conditions

__all__ = ["DeviceOption", "FoldersOption", "SshConfigOption", "register", "remark_version"]

DeviceOption = Annotated[str, typer.Option("--device", metavar="NAME", help="A device's name, or the path of its TOML file.")]
FoldersOption = Annotated[
    list[Path] | None, typer.Option("--devices-dir", metavar="FOLDER", help="A folder with TOML files of your own devices.")
]
SshConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--ssh-config",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        envvar="OFA_SSH_CONFIG",
        help="An ssh configuration instead of your own, for devices over ssh.",
    ),
]
_NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A device's name, or the path of its TOML file.")]


def register(app: typer.Typer) -> None:
    """Add ``ofa devices``."""
    group = typer.Typer(help="List devices, and test whether they answer.", epilog="Example: ofa devices probe local-cpu")
    group.callback(invoke_without_command=True)(_default)
    group.command("list", epilog="Example: ofa devices list --json")(list_devices)
    group.command("show", epilog="Example: ofa devices show local-cpu")(show)
    group.command("probe", epilog="Example: ofa devices probe local-cpu")(probe)
    app.add_typer(group, name="devices")


def _default(context: typer.Context, folders: FoldersOption = None, json: JsonOption = False) -> None:
    if context.invoked_subcommand is None:
        list_devices(folders, json)


def list_devices(folders: FoldersOption = None, json: JsonOption = False) -> None:
    """List all devices by name."""
    from devices import device_names, get_device

    known = [get_device(name, folders or ()).to_json() for name in device_names(folders or ())]
    emit(known, json=json, render=lambda: _render_list(known))


def show(name: _NameArgument, folders: FoldersOption = None, json: JsonOption = False) -> None:
    """Show all settings of a device's file, with defaults."""
    from devices import get_device

    fields = get_device(name, folders or ()).to_json()
    emit(fields, json=json, render=lambda: _render_fields(fields))


def probe(name: _NameArgument, folders: FoldersOption = None, ssh_config: SshConfigOption = None, json: JsonOption = False) -> None:
    """Reach a device, start its runtime and time one convolution."""
    from devices import get_device
    from devices.probing import probe as probe_device

    device = get_device(name, folders or (), ssh_config=ssh_config)
    with console.status(line(f"asking {device.name}")):
        answer = probe_device(device)
    emit(answer, json=json, render=lambda: _render_fields(_flat(answer)))


def remark_version(then: Conditions | None, now: str | None, what: str) -> None:
    """Print a remark on stderr if the device's runtime has another version now than when latencies were measured.

    Args:
        then: conditions of the latencies.
        now: present version on the device; None if nothing was measured.
        what: beginning of the sentence, such as ``The table's blocks were``.
    """
    known = None if then is None else then.runtime_version
    if then is None or known in (None, "unknown") or now in (None, known):
        return
    console.print(
        f"{what} timed with {then.runtime} {known}, and networks now with {now}: latencies may have changed; build the table anew if it "
        "predicts badly.",
        highlight=False,
    )


def _flat(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer for display: the device's name instead of its fields, one time instead of statistics."""
    timing, device = answer["probe"], answer["device"]
    rest = {key: value for key, value in answer.items() if key not in ("probe", "device") and value is not None}
    conditions = {**rest.pop("conditions"), "precision": "fp32"}  # the probe is always in float32
    time = f"{format_ms(timing['median_ms'])} ({format_conditions(conditions)})"
    return {"device": device["name"], "runtime": device["runtime"], **rest, "one convolution takes": time}


def _render_list(known: list[dict[str, Any]]) -> RenderableType:
    columns = ("device", "runtime", "threads", "precision", "batch", "reached", "status", "description")
    keys = ("name", "runtime", "threads", "precision", "batch", "reached", "status", "description")
    rows = [{**fields, "reached": fields["transport"]["kind"]} for fields in known]
    return records(columns, [[str(row[key]) for key in keys] for row in rows])


def _render_fields(fields: dict[str, Any]) -> RenderableType:
    rows = []
    for key, value in fields.items():
        text = ", ".join(f"{name} = {setting}" for name, setting in value.items()) if isinstance(value, dict) else str(value)
        rows.append((key, Name(text) if key in ("name", "device") else text))
    return facts(rows)
