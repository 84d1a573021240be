from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ofa.calibrate import calibrate
from ofa.data import ImageData, make_batch
from ofa.errors import DataError


def pictures(count: int = 50) -> ImageData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return ImageData(images=images, labels=torch.arange(count) % 2, class_names=("a", "b"))


def inputs(data: ImageData) -> Tensor:
    return make_batch(data, torch.arange(len(data)), resolution=6)[0]


def network() -> nn.Sequential:
    torch.nn.init.normal_((conv := nn.Conv2d(3, 4, 3, bias=False)).weight, generator=torch.Generator().manual_seed(1))
    return nn.Sequential(conv, nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 2))


@pytest.mark.parametrize("batch_size", [50, 16, 7])
def test_statistics_are_exactly_those_of_all_images(batch_size: int) -> None:
    data, net = pictures(), network()
    calibrate(net, data, resolution=6, images=50, batch_size=batch_size)
    values = net[0](inputs(data)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(net[1].running_mean, values.mean(1))
    torch.testing.assert_close(net[1].running_var, values.var(1))


def test_statistics_are_of_the_asked_resolution_and_number_of_images() -> None:
    few, many, large = network(), network(), network()[:4]
    calibrate(few, pictures(), resolution=6, images=10)
    calibrate(many, pictures(), resolution=6)
    calibrate(large, pictures(), resolution=12)
    assert not torch.equal(few[1].running_mean, many[1].running_mean)
    assert not torch.equal(large[1].running_var, many[1].running_var)


def test_few_images_are_taken_from_all_over_the_data() -> None:
    data = pictures(200)
    data.images[100:] //= 4  # as if the data were sorted: the second half is dark
    everything, some = nn.Sequential(nn.BatchNorm2d(3)), nn.Sequential(nn.BatchNorm2d(3))
    calibrate(everything, data, resolution=8)
    calibrate(some, data, resolution=8, images=20, batch_size=10)
    assert (some[0].running_mean - everything[0].running_mean).abs().max() < 0.1


def test_modes_momenta_and_weights_stay() -> None:
    net = network().train()
    net[3].eval()
    before = {name: value.clone() for name, value in net.named_parameters()}
    calibrate(net, pictures(), resolution=6)
    assert [module.training for module in net] == [True, True, True, False, True, True]
    assert net[1].momentum == 0.3
    assert not net[1]._forward_pre_hooks
    assert all(torch.equal(before[name], value) for name, value in net.named_parameters())
    assert all(value.grad is None for value in net.parameters())


def test_calibrating_again_changes_nothing_even_after_a_network_went_wrong() -> None:
    net, again = network(), network()
    calibrate(net, pictures(), resolution=6)
    again[1].running_mean.fill_(float("nan"))
    again[1].running_var.fill_(float("inf"))
    calibrate(again, pictures(), resolution=6)
    assert torch.equal(net[1].running_mean, again[1].running_mean)
    assert torch.equal(net[1].running_var, again[1].running_var)


def test_a_calibrated_network_sees_the_data_normalized() -> None:
    data, net = pictures(), network().eval()
    calibrate(net, data, resolution=6)
    values = net[1](net[0](inputs(data))).transpose(0, 1).flatten(1)
    torch.testing.assert_close(values.mean(1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(values.var(1), torch.ones(4), atol=1e-3, rtol=0)


def test_a_norm_that_is_not_reached_keeps_its_statistics() -> None:
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
            self.idle.running_mean.fill_(7)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)  # type: ignore[no-any-return]

    net = Lazy()
    calibrate(net, pictures(), resolution=6)
    assert net.idle.running_mean.tolist() == [7, 7, 7]
    assert net.used.running_mean.abs().max() < 0.1


def test_a_failing_network_is_left_as_it_was() -> None:
    net = network()
    net.append(nn.Linear(5, 5))
    with pytest.raises(RuntimeError):
        calibrate(net, pictures(), resolution=6)
    assert net[1].running_mean.tolist() == [0] * 4
    assert net[1].running_var.tolist() == [1] * 4
    assert net[1].momentum == 0.3


def test_networks_without_statistics_are_left_alone() -> None:
    calibrate(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm2d(3, track_running_stats=False)), pictures(), resolution=6)


@pytest.mark.parametrize("changes", [{"images": 1}, {"batch_size": 1}])
def test_one_image_has_no_statistics(changes: dict[str, int]) -> None:
    with pytest.raises(DataError, match="at least 2 images"):
        calibrate(network(), pictures(), resolution=6, **changes)


def test_the_data_must_have_two_images_too() -> None:
    data = pictures(2)
    calibrate(network(), data, resolution=6)
