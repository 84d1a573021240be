"""Every reader of files in the project, with a small valid file each."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from devices import load_device
from latency_tables import LatencyTable
from latency_tables.journal import Journal
from latency_tables.transfer import read_measurements
from ofa.adopting.record import AdoptionRecord
from ofa.arch import Arch
from ofa.cli.adopt import adopt_into_run
from ofa.costs import costs
from ofa.data import ImageRule, load_data
from ofa.data.items import file_bytes
from ofa.data.opening import UnreadableError
from ofa.data.reading import input_of
from ofa.errors import DataError
from ofa.exporting.bundle import load_bundle
from ofa.exporting.card import Card
from ofa.exporting.engine_record import EngineInfo, EngineTensor, read_record, write_record
from ofa.exporting.onnx import read_model
from ofa.families import get_space, lower
from ofa.interop import mit
from ofa.interop.mit_predictor import load_predictor
from ofa.interop.mit_tables import load_mit_table
from ofa.schema import to_json
from ofa.space import Space
from ofa.supernet import Supernet
from ofa.training import DataRecord, Recipe, demo_recipe, first_data
from ofa.training.checkpoint import append_metrics, save_state
from ofa.training.metrics import EpochMetrics, read_metrics
from ofa.training.state import TrainingState
from ofa.weights import read_weights
from search.front.front import Front
from search.predictor.accuracy_predictor import AccuracyPredictor
from search.predictor.csv_results import read_results
from search.predictor.quantization import QuantizationLoss
from tests.cli.files import make_places, write_table
from tests.faults.damage import Reader

__all__ = ["LIGHT", "READERS", "make_files", "make_light_files"]

SPACE = get_space("ofa-mbv3-tiny")
FORMATS = {
    "PNG": "png",
    "JPEG": "jpg",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tif",
    "WEBP": "webp",
    "PPM": "ppm",
    "TGA": "tga",
    "JPEG2000": "jp2",
}


def make_files(folder: Path) -> Path:
    """A file for every reader, all within one folder."""
    places = make_places(folder)
    recipe = demo_recipe()
    record = first_data(recipe).record
    assert record is not None
    record.save(places["run"])
    store = {f"store.{name}": tensor for name, tensor in recipe.build_supernet(10).named_tensors().items()}
    save_state(folder / "stated", recipe, TrainingState(3, store, {"rate_factor": 1.0, "setbacks": 0, "totals": {}}))
    load_predictor(places["pickled"], get_space("ofa-mbv3-w1.2")).save(folder / "mit.safetensors")
    torch.save(torch.load(places["weights"], weights_only=True), folder / "legacy.pth", _use_new_zipfile_serialization=False)
    adopt_into_run("tests.cli.own_model:model", (3, 16, 16), folder / "adopted", resolutions=[16])
    return make_light_files(folder)


def make_light_files(folder: Path) -> Path:
    """The files of the readers that ``LIGHT`` names, in a moment."""
    (folder / "run").mkdir(exist_ok=True)
    for epoch in range(1, 6):
        told = {"loss": 1.5 / epoch, "accuracy": 0.1 * epoch, "learning_rate": 0.05, "images_per_s": 100.0, "duration_s": 2.0}
        append_metrics(folder / "run", EpochMetrics(phase="full", epoch=epoch, epochs=5, step=epoch, **told))
    SPACE.save(folder / "space.json")
    SPACE.smallest(resolution=16).save(folder / "arch.json")
    (folder / "recipe.toml").write_text(demo_recipe().to_toml(), encoding="utf-8")
    (folder / "device.toml").write_text('name = "mine"\nruntime = "fake"\n', encoding="utf-8")
    tensor = EngineTensor("images", (1, 3, 16, 16), "FLOAT")
    info = EngineInfo(flavour="tensorrt", version="10.0", inputs=(tensor,), outputs=(tensor,), engine_bytes=3, engine_sha256="0" * 64)
    write_record(info, folder / "network.engine")
    write_table(folder / "table")
    with Journal(folder / "built") as journal:
        journal.begin({"device": "fake"})
        for row in LatencyTable.load(folder / "table").rows.head(5).to_dict("records"):
            journal.add({str(name): value for name, value in row.items()})
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    for name, ending in FORMATS.items():
        image.save(folder / f"image.{ending}", format=name)
    _write_images(image, folder / "images.parquet")
    return folder


def _write_images(image: Image.Image, path: Path) -> None:
    rows, kind = [], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for number in range(8):
        file = io.BytesIO()
        image.rotate(number * 40).save(file, format="PNG")
        rows.append({"bytes": file.getvalue(), "path": f"{number}.png"})
    table = pa.table({"image": pa.array(rows, kind), "label": pa.array([number % 2 for number in range(8)])})
    names = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(names)}), path)


# -- what is compared --------------------------------------------------------------------------------------------------


def _tensors(named: Mapping[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: tensor.detach().contiguous().cpu().numpy().tobytes() for name, tensor in named.items()}


def _table(path: Path) -> Any:
    table = LatencyTable.load(path)
    return table.rows.to_dict("list") | {"energy_mj": None, "peak_memory_bytes": None}, to_json(table.info)


def _front(path: Path) -> Any:
    front = Front.load(path)
    archs = [front.candidate(row).arch for row in range(min(3, len(front)))]
    return [front.networks.to_json(), front.dominated.to_json(), to_json(front.info), front.space, archs]


def _predictor(path: Path) -> Any:
    predictor = AccuracyPredictor.load(path)
    return to_json(predictor.info), predictor([SPACE.smallest(resolution=16)]).tolist()


def _losses(path: Path) -> Any:
    losses = QuantizationLoss.load(path)
    rows_NC = losses.space.encode_all([SPACE.smallest(resolution=16), SPACE.largest()])
    return to_json(losses.info), [each.tolist() for each in losses.losses_of_rows(rows_NC)]


def _weights(kind: str) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        weights = read_weights(path, kind=kind)
        return dict(weights.metadata), _tensors(weights.tensors)

    return read


def _supernet(path: Path) -> Any:
    supernet = Supernet.load(path)
    return supernet.space, _tensors(supernet.named_tensors())


def _adopted(path: Path) -> Any:
    """The networks too, for they are made of code that the file says."""
    space = Space.load(path)
    return space, [costs(lower(space, arch)) for arch in (space.smallest(), space.largest())]


def _record(path: Path) -> Any:
    record = DataRecord.load(path.parent)
    assert record is not None
    return record.facts, record.keys.tobytes(), record.parts.tobytes(), record.labels.tobytes()


def _bundle(path: Path) -> Any:
    bundle = load_bundle(path.parent)
    model = read_model(bundle.onnx_path)
    about = (bundle.space, bundle.arch, to_json(bundle.card), bundle.class_names, bundle.mean, bundle.std, bundle.rule)
    return about, _tensors(bundle.network().state_dict()), model.SerializeToString()


def _image(path: Path) -> Any:
    try:
        return input_of(file_bytes(path), ImageRule(), 16).tobytes()
    except UnreadableError as error:
        raise DataError(str(error)) from error


def _images(path: Path) -> Any:
    images = load_data(str(path), rule=ImageRule())
    return images.labels.tolist(), images.class_names, len(images)


def _journal(path: Path) -> Any:
    with Journal(path.with_suffix(""), resume=True) as journal:
        return (journal.origin, *journal.rows)


def _part(whole: Any, read: Any) -> bool:
    """A damaged line costs that line."""
    return all(entry in (*whole, None) for entry in read)


def _mit_predictor(path: Path) -> Any:
    predictor = load_predictor(path, get_space("ofa-mbv3-w1.2"))
    return predictor([get_space("ofa-mbv3-w1.2").smallest()]).tolist()


def _engine(path: Path) -> Any:
    record = read_record(path.with_suffix(""))
    return None if record is None else asdict(record)


READERS: Mapping[str, Reader] = {
    "latency table": Reader(file="table", read=_table, sealed=True, structure="parquet"),
    "front": Reader(file="front", read=_front, sealed=True, structure="parquet"),
    "predictor": Reader(file="predictor", read=_predictor, sealed=True, structure="parquet"),
    "losses": Reader(file="losses", read=_losses, sealed=True, structure="parquet"),
    "record of data": Reader(file="run/data.parquet", read=_record, sealed=True, structure="parquet"),
    "supernet": Reader(file="run/supernet.safetensors", read=_supernet, sealed=True, structure="tensors"),
    "checkpoint": Reader(file="stated/checkpoints/000000003.safetensors", read=_weights("checkpoint"), sealed=True, structure="tensors"),
    "recipe of a run": Reader(file="run/config.toml", read=Recipe.load, structure="text"),
    "metrics": Reader(file="run/metrics.jsonl", read=lambda path: read_metrics(path)[0], structure="text", same=_part),
    "journal of a table": Reader(file="built.journal", read=_journal, structure="text", same=_part),
    "arch": Reader(file="arch.json", read=Arch.load, structure="text"),
    "space": Reader(file="space.json", read=Space.load, structure="text"),
    "space of an adopted model": Reader(file="adopted/space.json", read=_adopted, structure="text"),
    "weights of an adopted model": Reader(file="adopted/supernet.safetensors", read=_supernet, sealed=True, structure="tensors"),
    "record of an adoption": Reader(
        file="adopted/adoption.json", read=lambda path: AdoptionRecord.load(path.parent), sealed=True, structure="text"
    ),
    "card": Reader(file="bundle/card.json", read=lambda path: to_json(Card.load(path)), sealed=True, structure="text"),
    "arch of a bundle": Reader(file="bundle/arch.json", read=_bundle, sealed=True, structure="text"),
    "card of a bundle": Reader(file="bundle/card.json", read=_bundle, sealed=True, structure="text"),
    "weights of a bundle": Reader(file="bundle/network.safetensors", read=_bundle, sealed=True, structure="tensors"),
    "network of a bundle": Reader(file="bundle/network.onnx", read=_bundle, sealed=True),
    "record of an engine": Reader(file="network.engine.json", read=_engine, sealed=True, structure="text"),
    "recipe": Reader(file="recipe.toml", read=Recipe.load, structure="text"),
    "device": Reader(file="device.toml", read=load_device, structure="text"),
    "results": Reader(file="results.csv", read=lambda path: repr(read_results(path)), structure="text"),
    "measurements": Reader(file="measurements.csv", read=lambda path: read_measurements(path, SPACE), structure="text"),
    "MIT's weights": Reader(file="weights.pth", read=lambda path: _tensors(mit.load_supernet(path, SPACE).named_tensors())),
    "MIT's older weights": Reader(file="legacy.pth", read=lambda path: _tensors(mit.load_supernet(path, SPACE).named_tensors())),
    "MIT's predictor": Reader(file="pickled.pth", read=_mit_predictor),
    "MIT's predictor, imported": Reader(file="mit.safetensors", read=_mit_predictor, structure="tensors"),
    "MIT's network": Reader(file="config.json", read=lambda path: mit.arch_from_net_config(path, 192), structure="text"),
    "MIT's latency table": Reader(file="yaml.yaml", read=lambda path: load_mit_table(path).entries, structure="text"),
    "images in Parquet": Reader(file="images.parquet", read=_images, structure="parquet"),
    **{f"image in {name}": Reader(file=f"image.{ending}", read=_image) for name, ending in FORMATS.items()},
}

LIGHT = (
    *("latency table", "metrics", "journal of a table", "arch", "space", "record of an engine", "recipe", "device", "images in Parquet"),
    *(name for name in READERS if name.startswith("image in")),
)
"""Readers whose files take a moment to make."""
