"""Everything that is claimed for GPUs, measured by one command.

    python benchmarks/gpu/run.py --out RESULTS --minutes 9 --kit KIT
    python benchmarks/gpu/run.py --out RESULTS --dry-run              # on a processor, with tiny sizes; no figure counts

Parts are run one after the other, each as a process of its own, with a share of the minutes and what earlier parts left of theirs. Each
writes RESULTS/PART.json as it goes, so a run that is cut off leaves what it had. Nothing is installed: packages that pack.py put into KIT
are used where the machine has none or too old ones.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GRACE_S, MARGIN_S = 5.0, 5.0
"""Between asking a part to end and killing it; and at the end of all, for the table."""
LAST_LINES, WIDTH, LABEL = 15, 80, 40
Content = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A script beside this one.

    Attributes:
        name: as on the command line.
        script: its file.
        share: of the minutes, beside the shares of the others.
        least_s: seconds below which it has nothing to tell.
    """

    name: str
    script: str
    share: float
    least_s: float


PARTS = (
    Part("correct", "correct.py", 0.14, 60),
    Part("speed", "speed.py", 0.14, 60),
    Part("tables", "tables.py", 0.36, 180),
    Part("evidence", "evidence.py", 0.34, 150),
    Part("tensorrt-rtx", "rtx.py", 0.02, 10),
)
DRY_LEAST_S = 1.0


def main() -> None:
    arguments = parse()
    arguments.out.mkdir(parents=True, exist_ok=True)
    chosen = [part for part in PARTS if part.name in (arguments.only or names()) and part.name not in arguments.skip]
    environment = environment_of(arguments.kit)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the part that runs is ended with this process
    end = time.monotonic() + 60 * arguments.minutes - MARGIN_S
    contents: list[Content] = []
    for number, part in enumerate(chosen):
        left_s = end - time.monotonic()
        contents.append(run_part(part, limit_s(part, chosen[number:], left_s, arguments.dry_run), left_s, arguments, environment))
        print(f"{part.name}: {contents[-1]['status']} after {contents[-1]['seconds']:.0f} s", file=sys.stderr, flush=True)
        (arguments.out / "table.txt").write_text(table_of(contents) + "\n", encoding="utf-8")
    print(table_of(contents))
    sys.exit(any(content["status"] == "failed" for content in contents))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all parts together")
    parser.add_argument("--only", nargs="+", metavar="PART", help=f"of {', '.join(names())}")
    parser.add_argument("--skip", nargs="+", metavar="PART", default=[])
    parser.add_argument("--kit", type=Path, action="append", default=[], help="folder that pack.py made; can be given several times")
    parser.add_argument("--data", type=Path, help="folder with CIFAR-10's train.parquet and test.parquet; the kit's by default")
    parser.add_argument("--work", type=Path, help="folder for what parts need on disk, some hundred MiB; RESULTS/work by default")
    parser.add_argument("--device", default="cuda", help="cuda or cuda:1")
    parser.add_argument("--epochs", type=int, help="of the part evidence; as many as fit by default")
    parser.add_argument("--dry-run", action="store_true", help="on the processor, with tiny sizes")
    arguments = parser.parse_args()
    for name in (*(arguments.only or ()), *arguments.skip):
        if name not in names():
            parser.error(f"a part must be one of {', '.join(names())}, but is '{name}'; correct it")
    for folder in arguments.kit:
        if not folder.is_dir():
            parser.error(f"a kit must be a folder that pack.py made, but '{folder}' is none; make it or correct the path")
    if not arguments.minutes > 0:
        parser.error(f"the minutes must be above 0, but are {arguments.minutes:g}; raise them")
    return arguments


def names() -> list[str]:
    return [part.name for part in PARTS]


def limit_s(part: Part, waiting: Sequence[Part], left_s: float, dry: bool) -> float:
    """Seconds that a part gets: its share of what is left for the parts that wait, but what it needs at least.

    Below that it is not worth starting; the answer is 0 then.
    """
    least_s = DRY_LEAST_S if dry else part.least_s
    if left_s < least_s:
        return 0.0
    return min(left_s, max(least_s, left_s * part.share / sum(each.share for each in waiting)))


def run_part(part: Part, limit: float, left_s: float, arguments: argparse.Namespace, environment: dict[str, str]) -> Content:
    """Run one part within its limit; its report, however it ended."""
    out = arguments.out.resolve() / f"{part.name}.json"
    out.unlink(missing_ok=True)
    if not (HERE / part.script).exists():
        return kept(out, skipped(part, f"there must be {part.script} beside run.py, but there is none; take a whole source tree"))
    if not limit:
        return kept(
            out, skipped(part, f"this part needs at least {part.least_s:.0f} s, but {max(0, left_s):.0f} s are left; allow more minutes")
        )
    log = arguments.out / f"{part.name}.log"
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as stream:
        code = wait_within(command_of(part, out, limit, arguments), stream, environment, limit)
    content = ended(part, out, code, log)
    content["seconds"] = round(time.monotonic() - started, 1)
    if content["status"] == "failed":
        sys.stderr.write("".join(log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-LAST_LINES:]))
    return kept(out, content)


def command_of(part: Part, out: Path, limit: float, arguments: argparse.Namespace) -> list[str]:
    device = "cpu" if arguments.dry_run else arguments.device
    command = [sys.executable, str(HERE / part.script), "--out", str(out), "--seconds", f"{limit:.0f}", "--device", device]
    for option, folder in (("--data", arguments.data or within(arguments.kit, "data")), ("--mit", within(arguments.kit, "mit"))):
        if folder is not None:
            command += [option, str(folder.resolve())]
    work = (arguments.work or arguments.out / "work").resolve() / part.name
    if part.name == "evidence" and arguments.epochs:
        command += ["--epochs", str(arguments.epochs)]
    return [*command, "--work", str(work), *(["--dry"] if arguments.dry_run else [])]


def within(kits: Sequence[Path], name: str) -> Path | None:
    return next((kit / name for kit in kits if (kit / name).is_dir()), None)


def wait_within(command: list[str], stream: Any, environment: dict[str, str], limit: float) -> int | None:
    """Run a command in a process group of its own; its exit status, None if the whole group had to be ended at the limit."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, env=environment, cwd=ROOT, start_new_session=True
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        signal_group(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        return None
    finally:
        signal_group(process, signal.SIGKILL)  # also what the part left behind
        process.wait()


def signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def ended(part: Part, out: Path, code: int | None, log: Path) -> Content:
    """A part's own report, with the status that follows from how its process ended."""
    try:
        content: Content = json.loads(out.read_text(encoding="utf-8"))
    except FileNotFoundError:
        content = {"part": part.name, "status": "running", "reason": "", "figures": {}, "rows": []}
    if code is None and content["status"] == "running":
        content |= {"status": "cut off", "reason": "its time was over; what it had until then is kept"}
    elif content["status"] == "running" or (code and content["status"] == "ok"):
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        content |= {"status": "failed", "reason": f"its process ended with status {code}: {lines[-1] if lines else 'it said nothing'}"}
    return content


def skipped(part: Part, reason: str) -> Content:
    return {"part": part.name, "status": "skipped", "reason": reason, "seconds": 0.0, "figures": {}, "rows": []}


def kept(out: Path, content: Content) -> Content:
    temporary = out.with_name(f".{out.name}.part")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, out)
    return content


# -- packages that the kit brings ---------------------------------------------------------------------------------------


def environment_of(kits: Sequence[Path]) -> dict[str, str]:
    """The environment of the parts: they find the project, the benchmarks, and those packed packages that this machine needs."""
    paths = [ROOT, ROOT / "benchmarks", *(path for kit in kits for path in needed_packages(kit))]
    before = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, paths), *before]), "PYTHONUNBUFFERED": "1"}


def needed_packages(kit: Path) -> list[Path]:
    """Folders of the packed packages that are not installed here, or are older than what they are needed for."""
    found = []
    for manifest in sorted(kit.resolve().glob("packages/*/manifest.json")):
        packed = json.loads(manifest.read_text(encoding="utf-8"))
        if is_needed(packed["name"], packed["least"]):
            found.append(manifest.parent)
    return found


def is_needed(name: str, least: str) -> bool:
    """Whether a package is not installed, or older than a version; ``least`` may be empty."""
    try:
        return release(version(name)) < release(least)
    except PackageNotFoundError:
        return True


def release(text: str) -> tuple[int, ...]:
    """The leading numbers of a version, which is all of it that minima are about."""
    match = re.match(r"\d+(\.\d+)*", text)
    numbers = [int(part) for part in match.group().split(".")] if match else []
    return tuple(numbers + [0] * (4 - len(numbers)))


# -- the table ----------------------------------------------------------------------------------------------------------


def table_of(contents: Sequence[Content]) -> str:
    """What every part came to, in 80 columns."""
    lines = [f"{'part':<{LABEL - 4}}{'status':<12}{'seconds':>8}", "-" * WIDTH]
    for content in contents:
        lines.append(f"{content['part']:<{LABEL - 4}}{content['status']:<12}{content['seconds']:>8.0f}")
        if content["reason"]:
            lines += textwrap.wrap(content["reason"], WIDTH, initial_indent="  ", subsequent_indent="  ")
        for figure, value in content["rows"]:
            lines += textwrap.wrap(f"{figure + ' ':.<{LABEL - 3}} {value}", WIDTH, initial_indent="  ", subsequent_indent=" " * LABEL)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
