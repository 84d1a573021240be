"""The contracts of ofa, held by the examples."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from balanced import BALANCED
from lion import Lion
from other_environment import OtherEnvironment
from plain_nets import plain
from sandglass import sandglasses
from traffic import TRAFFIC

from devices import Address, Settings
from ofa.costs import Cost
from ofa.space import Space
from ofa.tasks import Task
from ofa.training import Optimizer
from tests.devices.runtime_contract import RuntimeContract
from tests.devices.transport_contract import TransportContract
from tests.ofa.cost_contract import CostContract
from tests.ofa.data.data_contract import DataContract
from tests.ofa.importance_contract import ImportanceContract
from tests.ofa.space_contract import SpaceContract
from tests.ofa.tasks.task_contract import TaskContract
from tests.ofa.training.optimizer_contract import OptimizerContract


@pytest.mark.parametrize("make", [plain, sandglasses])
class TestSpaces(SpaceContract):
    @pytest.fixture
    def space(self, make) -> Space:
        return make()


class TestOrtFile(RuntimeContract):
    @pytest.fixture
    def settings(self) -> Settings:
        return Settings(runtime="ort-file")


class TestOtherEnvironment(TransportContract):
    @pytest.fixture
    def address(self, tmp_path: Path) -> Address:
        return OtherEnvironment(environment=sys.prefix, folder=str(tmp_path))


class TestBalanced(TaskContract):
    @pytest.fixture
    def task(self) -> Task:
        return BALANCED


class TestLion(OptimizerContract):
    @pytest.fixture
    def settings(self) -> Optimizer:
        return Lion(betas=(0.8, 0.95))


class TestPhotos(DataContract):
    @pytest.fixture
    def spec(self) -> str:
        return "zipped_photos:photos"


class TestFisher(ImportanceContract):
    @pytest.fixture
    def criteria(self) -> Sequence[str]:
        return ["fisher"]


class TestTraffic(CostContract):
    @pytest.fixture
    def cost(self) -> Cost:
        return TRAFFIC
