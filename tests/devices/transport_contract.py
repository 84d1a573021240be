"""What every transport must do; a class of tests that derives from this one gives the address."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices import TRANSPORTS, Address, Device, TimingPolicy, describe, time_models
from devices.measure import Failure, measure
from devices.running import DeviceNetwork
from devices.runtimes import Option, Settings
from ofa.errors import DeviceError
from tests.devices.models import save_conv

__all__ = ["TransportContract"]

QUICK = TimingPolicy(min_rounds=5, max_rounds=5, sample_ms=0.2)
SHORTEST_S = 60.0


def at(address: Address, **options: Option) -> Device:
    return Device(name="there", runtime="fake", address=address, options=tuple(options.items()))


def medians(device: Device, models: dict[str, Path]) -> dict[str, float]:
    timings = time_models(device, models, rng=np.random.default_rng(0), policy=QUICK)
    return {key: timing.median_ms for key, timing in timings.items()}


class TransportContract:
    @pytest.fixture
    def address(self) -> Address:
        raise NotImplementedError

    @pytest.fixture
    def models(self, tmp_path: Path) -> dict[str, Path]:
        return {f"{layers} layers": save_conv(tmp_path / f"{layers}.onnx", layers=layers) for layers in (1, 2, 4)}

    def test_its_name_and_fields_are_those_of_device_files(self, address: Address) -> None:
        assert isinstance(address, TRANSPORTS.get(address.kind))
        fields = json.loads(json.dumps(at(address).to_json()))
        assert fields == at(address).to_json()
        assert fields["transport"]["kind"] == address.kind
        assert Device.from_json(fields) == at(address)
        with pytest.raises(DeviceError, match=r"\[transport\] .* but has 'nonsense'"):
            Device.from_json({**fields, "transport": {**fields["transport"], "nonsense": 1}})

    def test_a_device_describes_itself(self, address: Address) -> None:
        description = describe(at(address))
        assert description["device"] == at(address).to_json()
        assert description["runtime_version"] == "1"
        assert description["cores"] >= 1

    def test_networks_are_timed_there_as_anywhere(self, address: Address, models: dict[str, Path]) -> None:
        assert medians(at(address), models) == medians(Device(name="here", runtime="fake"), models)

    def test_a_network_that_cannot_be_loaded_is_named_and_the_others_kept(self, address: Address, models: dict[str, Path]) -> None:
        models["2 layers"].write_bytes(b"no network")
        found = dict(measure(at(address), models, rng=np.random.default_rng(0), policy=QUICK))
        assert [key for key, outcome in found.items() if isinstance(outcome, Failure)] == ["2 layers"]
        assert "\n" not in str(found["2 layers"])

    def test_brought_files_keep_their_suffix_and_are_found_again(self, address: Address, models: dict[str, Path]) -> None:
        with closing(address.start()) as agent:
            first, again = address.bring(agent, models), address.bring(agent, models)
            assert first == again
            assert first.keys() == models.keys()
            assert {Path(name).suffix for name in first.values()} == {".onnx"}
            outcomes = self.ask(agent, op="time", networks=first, policy={"min_rounds": 2, "max_rounds": 2}, seed=0)
        assert all(outcome["timing"]["median_ms"] > 0 for outcome in outcomes.values())

    def test_an_agent_answers_after_an_error_and_tells_what_it_does(self, address: Address, models: dict[str, Path]) -> None:
        notes: list[dict[str, Any]] = []
        with closing(address.start()) as agent:
            with pytest.raises(DeviceError) as caught:
                self.ask(agent, op="time", networks={}, policy={"min_rounds": -1}, seed=0)
            assert "\n" not in str(caught.value)
            networks = address.bring(agent, models)
            self.ask(agent, notes, op="time", networks=networks, policy={"min_rounds": 2, "max_rounds": 2}, seed=0)
        assert all(isinstance(note["doing"], str) and 0 <= note["step"] <= note["steps"] for note in notes)
        assert "loading 1 layers" in [note["doing"] for note in notes]

    def test_networks_are_run_there_as_anywhere(self, address: Address, models: dict[str, Path]) -> None:
        images_N = np.random.default_rng(0).standard_normal((5, 4, 8, 8), dtype=np.float32)
        expected = np.broadcast_to(np.maximum(images_N.mean(axis=1, keepdims=True), 0), images_N.shape)
        pairs = save_conv(models["1 layers"].parent / "pairs.onnx", batch=2)
        for device, path in ((at(address), models["1 layers"]), (replace(at(address), batch=2), pairs)):
            with DeviceNetwork(device, path, output=(4, 8, 8), name="conv") as network:
                np.testing.assert_allclose(network(images_N), expected, atol=1e-6)
                np.testing.assert_allclose(network(images_N[:1]), expected[:1], atol=1e-6)

    def test_images_come_in_pieces(self, address: Address, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("devices.running._PIECE", 1500)  # a call takes 1024 bytes
        batch = save_conv(models["1 layers"].parent / "batch.onnx", batch=3)
        images_N = np.random.default_rng(0).standard_normal((4, 4, 8, 8), dtype=np.float32)
        with DeviceNetwork(replace(at(address), batch=3), batch, output=(4, 8, 8), name="conv") as network:
            found = network(images_N)
        np.testing.assert_allclose(found[:, :1], np.maximum(images_N.mean(axis=1, keepdims=True), 0), atol=1e-6)

    def test_what_cannot_be_run_is_one_sentence(self, address: Address, models: dict[str, Path]) -> None:
        models["2 layers"].write_bytes(b"no network")
        images_N = np.zeros((1, 4, 8, 8), np.float32)
        for path, given_N in ((models["2 layers"], images_N), (models["1 layers"], images_N[:, :3])):
            with (
                DeviceNetwork(at(address), path, output=(4, 8, 8), name="mine") as network,
                pytest.raises(DeviceError, match="mine") as caught,
            ):
                network(given_N)
            assert "\n" not in str(caught.value)

    def test_an_agent_may_be_closed_twice(self, address: Address) -> None:
        agent = address.start()
        agent.close()
        agent.close()

    def ask(self, agent: Any, notes: list[dict[str, Any]] | None = None, **message: Any) -> Any:
        request = {"settings": Settings(runtime="fake").to_json(), "runtime": None, **message}
        return agent.request(request, on_note=(notes if notes is not None else []).append, silence_limit_s=SHORTEST_S)
