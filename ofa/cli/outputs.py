"""The option for existing output: nothing is replaced without it (``ofa.outputs``)."""

from __future__ import annotations

from typing import Annotated

import typer

from ofa.outputs import PARQUET, REMEDY, check_folder, check_output, check_output_folder

__all__ = ["PARQUET", "REMEDY", "OverwriteOption", "check_folder", "check_output", "check_output_folder"]

OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is already there.")]
