"""The transports under their contract. A new one is a class here."""

from __future__ import annotations

import numpy as np
import pytest

from devices import TRANSPORTS, Address, Device, Fake, Local, time_models
from tests.devices.conftest import SshServer
from tests.devices.transport_contract import QUICK, TransportContract


class TestLocal(TransportContract):
    @pytest.fixture
    def address(self) -> Address:
        return Local()


class TestFake(TransportContract):
    @pytest.fixture
    def address(self) -> Address:
        return Fake()


class TestFakeWithCosts(TestFake):
    @pytest.fixture
    def address(self) -> Address:
        return Fake(costs_ms={"another": 1.0}, slowdowns=(1.0, 1.0), drifting="none of them", dying="none of them")


class TestSsh(TransportContract):
    @pytest.fixture
    def address(self, ssh_server: SshServer) -> Address:
        return ssh_server.address()


def test_every_transport_is_under_contract() -> None:
    assert set(TRANSPORTS) == {"fake", "local", "ssh"}


def test_a_fake_takes_what_it_is_told_to_take() -> None:
    bench = Fake(costs_ms={"a": 1.0, "b": 2.0}, slowdowns=(1.5,))
    device = Device(name="bench", runtime="fake", address=bench)
    timings = time_models(device, {"a": "no file", "b": "no file"}, rng=np.random.default_rng(0), policy=QUICK)
    assert {key: timing.median_ms for key, timing in timings.items()} == pytest.approx({"a": 1.5, "b": 3.0})
    assert [sorted(group) for group in bench.groups] == [["a", "b"]]
