"""Networks run on a device for what they answer: whatever happens to the device, and whatever it says."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from devices import Address, Device, Local, running
from devices.running import DeviceNetwork
from devices.runtimes import Array, Option
from devices.transports import Agent, Connection, LineLostError, bootstrap
from devices.transports.archive import agent_archive
from ofa.errors import DeviceError
from tests.devices.models import save_conv
from tests.faults.nonsense import Spoken, is_a_sentence

IMAGES = np.random.default_rng(0).standard_normal((3, 4, 8, 8), dtype=np.float32)
EXPECTED = np.broadcast_to(np.maximum(IMAGES.mean(axis=1, keepdims=True), 0), IMAGES.shape)
ONE = {"shape": [1, 4, 8, 8], "content": base64.b64encode(EXPECTED[:1].tobytes()).decode()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save_conv(tmp_path / "conv.onnx")


def network_at(address: Address, path: Path, **options: Option) -> DeviceNetwork:
    device = Device(name="there", runtime="fake", address=address, options=tuple(options.items()))
    return DeviceNetwork(device, path, output=(4, 8, 8), name="conv")


@dataclass(frozen=True, kw_only=True)
class Sent(Local):
    """What is sent over ssh, started on this machine: the archive alone, by the program that ssh starts."""

    kind: ClassVar[str] = "sent"
    folder: str

    def start(self) -> Connection:
        head = {"folder": self.folder, "archive": base64.b64encode(agent_archive()).decode()}
        source = Path(bootstrap.__file__).read_text(encoding="utf-8")
        return Connection([sys.executable, "-I", "-c", source], place="the test", greeting=json.dumps(head))


def test_what_is_sent_to_a_device_can_run_networks(path: Path, tmp_path: Path) -> None:
    with network_at(Sent(folder=str(tmp_path / "there")), path) as network:
        np.testing.assert_allclose(network(IMAGES), EXPECTED, atol=1e-6)


@pytest.mark.parametrize("dtype", [">f4", "<f4"])
def test_images_are_sent_the_same_from_any_machine(path: Path, dtype: str) -> None:
    with network_at(Local(), path) as network:
        np.testing.assert_allclose(network(IMAGES.astype(dtype)), EXPECTED, atol=1e-6)


NONSENSE: dict[str, Any] = {
    "nothing": None,
    "a number": 3,
    "a list": [ONE],
    "no content": {"shape": ONE["shape"]},
    "more": {**ONE, "time": 3},
    "another shape": {**ONE, "shape": [1, 4, 64]},
    "a shape that is text": {**ONE, "shape": "1, 4, 8, 8"},
    "a shape of many digits": {**ONE, "shape": [10**5000]},
    "too little": {**ONE, "content": base64.b64encode(bytes(8)).decode()},
    "no base64": {**ONE, "content": "\x1b[31m!"},
    "no text": {**ONE, "content": 3},
    "numbers": {**ONE, "content": [0.5] * 256},
}


@pytest.mark.parametrize("name", NONSENSE)
def test_an_answer_that_cannot_be_is_asked_for_again_and_then_refused(name: str, path: Path) -> None:
    address = Spoken(answer=lambda message, asked: NONSENSE[name], retries=1, backoff_s=0)
    with network_at(address, path) as network, pytest.raises(DeviceError, match="must answer with outputs of shape") as caught:
        network(IMAGES[:1])
    assert len(address.asked) == 2
    assert is_a_sentence(str(caught.value))
    once = Spoken(answer=lambda message, asked: NONSENSE[name] if asked == 1 else ONE, retries=1, backoff_s=0)
    with network_at(once, path) as network:
        np.testing.assert_array_equal(network(IMAGES[:1]), EXPECTED[:1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_may_answer_what_is_no_number(value: float, path: Path) -> None:
    content = base64.b64encode(np.full((1, 4, 8, 8), value, "<f4").tobytes()).decode()
    with network_at(Spoken(answer=lambda message, asked: {**ONE, "content": content}), path) as network:
        np.testing.assert_array_equal(network(IMAGES[:1]), np.full((1, 4, 8, 8), value))


def test_a_lost_line_is_made_again(path: Path) -> None:
    def answer(message: Mapping[str, Any], asked: int) -> Any:
        if asked < 3:
            raise LineLostError("the connection must last, but it was lost", {"doing": "running conv", "network": "conv"})
        return ONE

    told: list[str] = []
    device = Device(name="there", runtime="fake", address=Spoken(answer=answer, retries=2, backoff_s=0))
    with DeviceNetwork(device, path, output=(4, 8, 8), name="conv", tell=told.append) as network:
        np.testing.assert_array_equal(network(IMAGES[:1]), EXPECTED[:1])
    assert [text.partition("; ")[2] for text in told] == ["trying again in 0 s (1 of 2)", "trying again in 0 s (2 of 2)"]


@pytest.mark.parametrize(
    ("failure", "words"), [("crash", "it died with status 86 while loading conv"), ("error", "must fail on 'conv.onnx'")]
)
def test_a_runtime_that_fails_is_named_with_the_network(failure: str, words: str, path: Path) -> None:
    with network_at(Local(), path, failure=failure) as network, pytest.raises(DeviceError, match=words) as caught:
        network(IMAGES)
    assert is_a_sentence(str(caught.value))


def test_a_runtime_that_hangs_is_given_up(path: Path) -> None:
    device = Device(name="there", runtime="fake", options=(("failure", "hang"),))
    with (
        DeviceNetwork(device, path, output=(4, 8, 8), name="conv", silence_limit_s=2.0) as network,
        pytest.raises(DeviceError, match="was silent while loading conv"),
    ):
        network(IMAGES)


def test_as_many_calls_are_asked_for_as_can_be_sent(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(message: Mapping[str, Any], asked: int) -> Any:
        return {"shape": [message["calls"], 4, 8, 8], "content": base64.b64encode(bytes(1024 * message["calls"])).decode()}

    monkeypatch.setattr(running, "_PIECE", 5000)
    address = Spoken(answer=answer)
    with network_at(address, path) as network:
        assert network(np.zeros((9, 4, 8, 8), np.float32)).shape == (9, 4, 8, 8)
        assert [message["calls"] for message in address.asked] == [4, 4, 1]
        monkeypatch.setattr(running, "_MOST_OUTPUTS", 2048)
        network(np.zeros((3, 4, 8, 8), np.float32))
        assert [message["calls"] for message in address.asked[3:]] == [2, 1]
        monkeypatch.setattr(running, "_MOST_OUTPUTS", 1000)
        with pytest.raises(DeviceError, match="have 1024 with a batch of 1; name a device with a smaller batch"):
            network(np.zeros((1, 4, 8, 8), np.float32))


def request(path: Path, **more: Any) -> dict[str, Any]:
    device = Device(name="there", runtime="fake")
    content = base64.b64encode(IMAGES[:1].tobytes()).decode()
    asked = {"op": "run", "settings": device.settings.to_json(), "runtime": None, "networks": {"conv": str(path)}}
    return {**asked, "calls": 1, "start": 0, "content": content, "last": True, **more}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"start": 8}, "must arrive in order"),
        ({"content": "?"}, "must be base64"),
        ({"calls": 2}, r"'conv' takes float32 \[1, 4, 8, 8\] in each of 2 calls, but 1024 bytes came"),
    ],
)
def test_an_agent_refuses_images_that_are_not_those_of_the_network(more: dict[str, Any], words: str, path: Path) -> None:
    with Local().start() as agent:
        with pytest.raises(DeviceError, match=words):
            ask(agent, request(path, **more))
        assert ask(agent, request(path))["shape"] == [1, 4, 8, 8]


def test_networks_take_turns_in_one_agent(tmp_path: Path) -> None:
    first, second = (save_conv(tmp_path / f"{layers}.onnx", layers=layers) for layers in (1, 2))
    notes: list[dict[str, Any]] = []
    with Local().start() as agent:
        found = [ask(agent, request(path), notes.append) for path in (first, first, second, first)]
    assert found[0] == found[1] == found[3]
    assert [note["doing"].split()[0] for note in notes] == ["loading", "running", "running", "loading", "running", "loading", "running"]


def ask(agent: Agent, message: Mapping[str, Any], on_note: Callable[[dict[str, Any]], None] = lambda note: None) -> Any:
    return agent.request(message, on_note=on_note, silence_limit_s=60.0)


def test_a_batch_that_is_not_full_is_filled_up(path: Path) -> None:
    asked: list[Array] = []

    def answer(message: Mapping[str, Any], number: int) -> Any:
        asked.append(np.frombuffer(base64.b64decode(message["content"]), "<f4").reshape(-1, 4, 8, 8))
        return {"shape": [len(asked[-1]), 4, 8, 8], "content": base64.b64encode(bytes(1024 * len(asked[-1]))).decode()}

    device = replace(Device(name="there", runtime="fake", address=Spoken(answer=answer)), batch=4)
    with DeviceNetwork(device, path, output=(4, 8, 8), name="conv") as network:
        assert len(network(np.concatenate([IMAGES, IMAGES[:2]]))) == 5
    (sent,) = asked
    assert len(sent) == 8
    assert not sent[5:].any()
