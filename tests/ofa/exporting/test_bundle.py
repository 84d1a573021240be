from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ofa.costs import costs
from ofa.data import ImageRule
from ofa.errors import ArchError, DamagedError, ExportError, FileError, OfaError, WeightsError
from ofa.exporting.bundle import load_bundle, write_bundle
from ofa.exporting.card import Card
from ofa.exporting.precision import write_precision
from ofa.families import get_space, lower, space_names
from ofa.files import replacing, write_json
from ofa.reading import read_json
from ofa.seal import BLANK_SEAL, SEAL_KEY
from ofa.supernet import Supernet

CLASSES = ("zero", "one", "two", "three", "four", "five", "six")
MEAN, STD = (0.1, 0.2, 0.3), (0.25, 0.5, 0.75)
SHIPPED = {
    *("README.md", "arch.json", "card.json", "labels.json", "network.onnx"),
    *("network.safetensors", "network.svg", "photo.onnx", "preprocessing.json"),
}
CARD = Card(
    accuracy=0.975,
    latency_ms=1.5,
    latency_low_ms=1.25,
    latency_high_ms=1.75,
    measured_ms=1.4,
    device="cpu",
    provenance={"seed": 3, "data": "digits"},
)


def extracted(name: str, seed: int = 0):
    """A random network of a space with statistics of its own, and its arch."""
    space = get_space(name, len(CLASSES))
    arch = space.sample(np.random.default_rng(seed))
    network = Supernet(space, generator=torch.Generator().manual_seed(seed)).extract(arch)
    network.train()
    with torch.no_grad():
        network(torch.randn(4, 3, arch.resolution, arch.resolution, generator=torch.Generator().manual_seed(seed)))
    return network, arch


def write(folder: Path, network: nn.Module, arch, **changes):
    options = {"class_names": CLASSES, "mean": MEAN, "std": STD, "generator": torch.Generator().manual_seed(0), **changes}
    return write_bundle(folder, network, arch, options.pop("card", CARD), **options)


@pytest.fixture
def written(tmp_path):
    network, arch = extracted("ofa-mbv3-tiny")
    write(tmp_path / "bundle", network, arch)
    return tmp_path / "bundle"


@pytest.mark.parametrize("name", [name for name in space_names() if name.endswith("-tiny")])
def test_a_bundle_gives_back_the_network(name, tmp_path):
    network, arch = extracted(name)
    training = [module.training for module in network.modules()]
    returned = write(tmp_path / "bundle", network, arch)
    assert [module.training for module in network.modules()] == training
    random_state = torch.get_rng_state()
    bundle = load_bundle(tmp_path / "bundle")
    rebuilt = bundle.network()
    assert torch.equal(torch.get_rng_state(), random_state)
    x = torch.randn(bundle.input_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(rebuilt(x), network.eval()(x))
    assert not any(module.training for module in rebuilt.modules())
    assert all(parameter.requires_grad for parameter in rebuilt.parameters())
    assert (bundle.arch, bundle.class_names, bundle.mean, bundle.std) == (arch, CLASSES, MEAN, STD)
    assert (bundle.folder, bundle.card, bundle.metadata) == (returned.folder, returned.card, returned.metadata)


def test_the_card_has_the_stable_keys_and_the_counted_costs(written):
    card = read_json(written / "card.json")
    assert sorted(card.pop("files")) == sorted(SHIPPED - {"card.json", "README.md", "network.svg"})
    arch = load_bundle(written).arch
    expected = {"accuracy": 0.975, "latency_ms": 1.5, "latency_low_ms": 1.25, "latency_high_ms": 1.75, "measured_ms": 1.4, "device": "cpu"}
    expected |= {
        "metric": "accuracy",
        "precisions": {},
        "provenance": {"seed": 3, "data": "digits"},
        "schema": 3,
        **dict.fromkeys(("conditions", "measured_conditions")),
    }
    expected |= costs(lower(get_space("ofa-mbv3-tiny", len(CLASSES)), arch))
    assert card == expected


def test_the_files_and_what_they_carry(written):
    assert {each.name for each in written.iterdir()} == {*SHIPPED, "engines"}
    assert [each.name for each in written.parent.iterdir()] == ["bundle"]
    properties = {each.key: each.value for each in onnx.load(written / "network.onnx").metadata_props}
    assert json.loads(properties["class_names"]) == list(CLASSES)
    assert json.loads(properties["mean"]) == list(MEAN)
    assert ImageRule.from_text(properties["image_rule"]) == load_bundle(written).rule == ImageRule()
    assert json.loads(properties["arch"]) == read_json(written / "arch.json")
    assert written.stat().st_mode & 0o777 == written.parent.joinpath("bundle", "engines").stat().st_mode & 0o777


def test_a_bundle_says_how_its_images_are_read(tmp_path):
    network, arch = extracted("ofa-mbv3-tiny")
    rule = ImageRule(fit="stretch", integer_white=65535)
    write(tmp_path / "bundle", network, arch, rule=rule)
    assert load_bundle(tmp_path / "bundle").rule == rule


def test_a_bundle_is_replaced_whole(written):
    (written / "engines" / "old.engine").write_bytes(b"of the network before")
    network, arch = extracted("ofa-resnet50-tiny", seed=1)
    write(written, network, arch)
    assert load_bundle(written).arch == arch
    assert not list((written / "engines").iterdir())
    assert [each.name for each in written.parent.iterdir()] == ["bundle"]


def test_a_bundle_that_fails_leaves_the_old_one(written):
    before = {each.name: each.read_bytes() for each in written.iterdir() if each.is_file()}
    network, arch = extracted("ofa-mbv3-tiny", seed=1)
    other = extracted("ofa-mbv3-tiny", seed=2)[1]
    network[0].register_forward_hook(lambda module, inputs, output: output + 1)  # PyTorch computes what the file cannot know of
    for broken in ((network, arch), (network, other)):
        with pytest.raises(OfaError):
            write(written, *broken)
    assert {each.name: each.read_bytes() for each in written.iterdir() if each.is_file()} == before
    assert [each.name for each in written.parent.iterdir()] == ["bundle"]


def test_a_network_that_is_not_the_archs(tmp_path):
    network, arch = extracted("ofa-mbv3-tiny")
    with pytest.raises(WeightsError, match="the network"):
        write(tmp_path / "bundle", extracted("ofa-resnet50-tiny")[0], arch)
    with pytest.raises(WeightsError, match="classes"):
        write(tmp_path / "bundle", network, arch, class_names=CLASSES[1:])
    with pytest.raises(ExportError, match="mean and std"):
        write(tmp_path / "bundle", network, arch, mean=(0.5,))
    supernet = Supernet(get_space("ofa-mbv3-tiny", len(CLASSES)), generator=torch.Generator().manual_seed(0))
    smallest = supernet.space.smallest()
    with pytest.raises(WeightsError, match="parametrizations"):  # views of a supernet, not yet extracted
        write(tmp_path / "bundle", supernet.subnet(smallest), smallest)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_do_not_ship(written, value):
    network, arch = extracted("ofa-mbv3-tiny")
    with torch.no_grad():
        network.classifier.linear.bias[1] = value
    with pytest.raises(WeightsError, match=rf"first classifier.linear.bias with {value}"):
        write(written.parent / "other", network, arch)
    tensors = load_file(written / "network.safetensors")
    tensors["classifier.linear.bias"][1] = value
    with safe_open(written / "network.safetensors", framework="pt") as file:
        metadata = file.metadata()
    with load_bundle(written).changing(written / "network.safetensors"), replacing(written / "network.safetensors") as temporary:
        save_file(tensors, temporary, {**metadata, SEAL_KEY: BLANK_SEAL})
    with pytest.raises(WeightsError, match=rf"first classifier.linear.bias with {value}"):
        load_bundle(written).network()


def test_places_that_are_no_bundle(tmp_path):
    network, arch = extracted("ofa-mbv3-tiny")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"")
    for name in ("photos", "file"):
        with pytest.raises(FileError, match="something else"):
            write(tmp_path / name, network, arch)
    with pytest.raises(FileError, match="must be in a folder that exists"):
        write(tmp_path / "absent" / "bundle", network, arch)
    assert (tmp_path / "photos" / "cat.jpg").exists()
    (tmp_path / "empty").mkdir()
    assert write(tmp_path / "empty", network, arch).arch == arch
    with pytest.raises(FileError, match=r"no arch\.json, card\.json"):
        load_bundle(tmp_path / "photos")


def edit(path: Path, **changes) -> None:
    write_json({**read_json(path), **changes}, path)


def change(path: Path, write) -> None:
    """Write a file of a bundle anew, and name it on the card."""
    with load_bundle(path.parent).changing(path):
        write(path)


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (lambda folder: (folder / "network.onnx").unlink(), FileError, r"no network\.onnx"),
        (lambda folder: (folder / "card.json").write_text("{"), FileError, "JSON"),
        (lambda folder: (folder / "card.json").write_text("[]"), ExportError, "schema"),
        (lambda folder: edit(folder / "card.json", schema=99), ExportError, "upgrade"),
        (lambda folder: edit(folder / "card.json", macs="many"), ExportError, "'macs' of a card must be a number"),
        (lambda folder: edit(folder / "card.json", accuracy=97.5), ExportError, r"0\.\.1"),
        (lambda folder: (folder / "arch.json").write_text("{}"), ArchError, "space"),
        (lambda folder: change(folder / "arch.json", lambda path: edit(path, resolution=1000)), WeightsError, "another arch"),
        (lambda folder: (folder / "network.safetensors").write_bytes(b"x" * 50), DamagedError, "has another content"),
        (lambda folder: change(folder / "network.safetensors", lambda path: path.write_bytes(b"x" * 50)), WeightsError, "safetensors"),
        (lambda folder: change(folder / "network.safetensors", Supernet(get_space("ofa-mbv3-tiny")).save), WeightsError, "supernet"),
    ],
)
def test_damage_is_named(written, damage, error, words):
    damage(written)
    with pytest.raises(error, match=words) as caught:
        load_bundle(written)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_not_loaded(written, tmp_path):
    bundle = load_bundle(written)
    network, arch = extracted("ofa-proxyless-tiny")
    write(tmp_path / "other", network, arch)
    (written / "network.safetensors").write_bytes((tmp_path / "other" / "network.safetensors").read_bytes())
    with pytest.raises(DamagedError, match="has another content"):
        load_bundle(written)
    with bundle.changing(written / "network.safetensors"):
        pass
    with pytest.raises(WeightsError, match="another arch"):
        load_bundle(written)
    with pytest.raises(WeightsError, match="tensors"):
        bundle.network()


@pytest.mark.parametrize(
    "wrong",
    [{"accuracy": 1.5}, {"latency_ms": -1.0}, {"costs": {"macs": "many"}}, {"costs": {"params": True}}, {"measured_ms": float("nan")}],
)
def test_impossible_cards(wrong):
    name = next(iter(wrong.get("costs", wrong)))
    with pytest.raises(ExportError, match=name):
        Card(**wrong)


@pytest.mark.slow
def test_a_bundle_is_read_whole_while_another_takes_its_place(tmp_path):
    bundles = [extracted("ofa-mbv3-tiny", seed=seed) for seed in (0, 1)]
    written = write(tmp_path / "bundle", *bundles[0])
    done = threading.Event()

    def replace_it():
        for number in range(6):
            bundle = write(tmp_path / "bundle", *bundles[number % 2])
            write_precision(bundle, bundle.onnx_path)
        done.set()

    writer = threading.Thread(target=replace_it)
    writer.start()
    reads = 0
    while not done.is_set():
        assert load_bundle(written.folder).arch in [arch for _, arch in bundles]
        reads += 1
    writer.join()
    assert reads > 6


def test_a_bundle_that_was_replaced_meanwhile_is_not_written_into(tmp_path):
    before = write(tmp_path / "bundle", *extracted("ofa-mbv3-tiny"))
    write(tmp_path / "bundle", *extracted("ofa-mbv3-tiny", seed=1))
    card = (tmp_path / "bundle" / "card.json").read_bytes()
    for change in (lambda: before.note_measurement("pi", 3.0), lambda: write_precision(before, before.folder / "more.onnx")):
        with pytest.raises(FileError, match="was written anew; run"):
            change()
    assert (tmp_path / "bundle" / "card.json").read_bytes() == card


def test_an_export_that_fails_leaves_the_card_as_it_was(tmp_path):
    bundle = write(tmp_path / "bundle", *extracted("ofa-mbv3-tiny"))
    with pytest.raises(ZeroDivisionError), bundle.changing(bundle.onnx_path, bundle.folder / "more.onnx"):
        raise ZeroDivisionError
    assert load_bundle(bundle.folder).card == bundle.card
