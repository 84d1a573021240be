"""What every source of images must do; a class of tests that derives from this one says how recipes name it."""

from __future__ import annotations

import pytest
import torch

from ofa.data import count_items, load_data, make_batch, scan_data, split

__all__ = ["DataContract"]


class DataContract:
    @pytest.fixture
    def spec(self) -> str:
        """What ``data = ...`` of a recipe says; at least four images of each of at least two classes."""
        raise NotImplementedError

    @pytest.mark.parametrize("channels", [1, 3])
    def test_its_images_have_classes_with_names(self, spec: str, channels: int) -> None:
        data = load_data(spec, channels=channels)
        assert len(data) == len(data.labels) <= count_items(spec)
        assert len(set(data.class_names)) == data.num_classes >= 2
        x, labels = make_batch(data, torch.arange(4), resolution=16)
        assert x.shape == (4, channels, 16, 16)
        assert torch.isfinite(x).all()
        assert torch.equal(labels, data.labels[:4])

    def test_every_look_finds_the_same(self, spec: str) -> None:
        one, other = load_data(spec), load_data(spec)
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.labels, other.labels)
        assert one.class_names == other.class_names
        assert all(
            torch.equal(a, b) for a, b in zip(*(make_batch(each, torch.arange(4), resolution=16) for each in (one, other)), strict=True)
        )

    def test_what_is_left_out_has_a_reason(self, spec: str) -> None:
        found = scan_data(spec)
        images = found.images(unreadable="skip")
        assert all(each.reason for each in images.left_out)

    def test_it_is_split_by_content(self, spec: str) -> None:
        parts = split(load_data(spec), (0.5, 0.25, 0.25), torch.Generator().manual_seed(0))
        keys = [{bytes(key) for key in part.keys.numpy()} for part in parts]
        assert all(keys)
        assert len(keys[0] | keys[1] | keys[2]) == sum(map(len, keys))
