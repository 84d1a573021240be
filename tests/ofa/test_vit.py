"""Vision transformers: heads, widths and positions as parts of one store."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from ofa.arch import Arch
from ofa.blocks import build_network
from ofa.exporting.onnx import to_model
from ofa.families import get_space, lower, vit
from ofa.sharing import Resampled
from ofa.supernet import Supernet
from tests.ofa.strategies import images, shared_supernet

SPACE = get_space("ofa-vit-tiny")


def test_heads_and_widths_are_leading_slices_of_queries_keys_and_values() -> None:
    supernet = shared_supernet(SPACE.name)
    stored = supernet.named_tensors()
    smaller = supernet.subnet(SPACE.restrict(heads=[2], embedding=[24]).largest()).state_dict(keep_vars=True)
    for name in ("query", "key", "value"):
        key = f"stages.0.0.attention.attention.{name}.weight"
        assert smaller[key].data_ptr() == stored[key].data_ptr()
        assert smaller[key].shape == (2 * 8, 24)


def test_a_place_in_the_image_keeps_its_embedding_at_every_resolution() -> None:
    down, across = torch.meshgrid((torch.arange(8.0) + 0.5) / 8, (torch.arange(8.0) + 0.5) / 8, indexing="ij")
    smaller = Resampled(4, 2)(torch.stack([down, across]))
    centres = torch.meshgrid((torch.arange(4.0) + 0.5) / 4, (torch.arange(2.0) + 0.5) / 2, indexing="ij")
    torch.testing.assert_close(smaller, torch.stack(centres))


def test_a_network_computes_images_of_another_size_as_that_of_their_resolution_does() -> None:
    supernet = shared_supernet(SPACE.name).eval()
    with torch.no_grad():
        x_BCHW = images(SPACE.largest(16))
        assert torch.equal(supernet.extract(SPACE.largest())(x_BCHW), supernet.extract(SPACE.largest(16))(x_BCHW))


def test_positions_are_learned_at_every_resolution() -> None:
    supernet = Supernet(SPACE, generator=torch.Generator().manual_seed(0)).train()
    before = supernet.named_tensors()["patches.position.weight"].clone()
    assert before.shape == (32, 8, 8)
    optimizer = torch.optim.SGD(supernet.parameter_groups(0.0), lr=1.0)
    arch = SPACE.largest(16)
    supernet.subnet(arch)(images(arch)).square().sum().backward()
    optimizer.step()
    after = supernet.named_tensors()["patches.position.weight"]
    assert bool((after != before).any(dim=0).all())


def test_norms_biases_and_positions_do_not_decay() -> None:
    supernet = shared_supernet(SPACE.name)
    start, end = supernet.undecayed.data_ptr(), supernet.undecayed.data_ptr() + 4 * supernet.undecayed.numel()
    undecayed = {name for name, tensor in supernet.named_tensors().items() if start <= tensor.data_ptr() < end}
    assert undecayed == {name for name in supernet.named_tensors() if "norm" in name or "position" in name or name.endswith("bias")}


def test_initial_weights_of_tokens_are_small_and_biases_zero() -> None:
    network = build_network(lower(SPACE, SPACE.largest()), generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    weights = torch.cat([tensor.flatten() for name, tensor in network.named_parameters() if "feed_forward" in name and tensor.dim() == 2])
    assert float(weights.std()) == pytest.approx(0.02, rel=0.1)
    assert not any(tensor.any() for name, tensor in network.named_parameters() if name.endswith("bias"))


def small(arch: Arch) -> torch.nn.Module:
    return shared_supernet(SPACE.name).extract(arch).eval()


@pytest.mark.parametrize("opset", [11, 13, 14, 17, 18, 21])
def test_every_form_of_the_operators_computes_the_same(opset: int) -> None:
    arch = SPACE.largest(24)
    model = to_model(small(arch), (2, 3, 24, 24), opset=opset, dynamic_batch=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        x_BCHW = images(arch, batch=batch)
        with torch.no_grad():
            expected = small(arch)(x_BCHW).numpy()
        np.testing.assert_allclose(session.run(None, {"images": x_BCHW.numpy()})[0], expected, atol=1e-4 * np.abs(expected).max())
    assert ("LayerNormalization" in {node.op_type for node in model.graph.node}) == (opset >= 17)


def test_pixels_beyond_the_last_whole_patch_are_not_seen() -> None:
    space = vit.make_space("odd", (18,), embeddings=(8,), depths=(1,), heads=(1,), patch=4, head_channels=8, num_classes=3)
    network = build_network(lower(space, space.largest()), generator=torch.Generator().manual_seed(0)).eval()
    x_BCHW = torch.randn(1, 3, 18, 18)
    cut_BCHW = x_BCHW.clone()
    cut_BCHW[:, :, 16:], cut_BCHW[:, :, :, 16:] = 7.0, 7.0
    with torch.no_grad():
        assert torch.equal(network(x_BCHW), network(cut_BCHW))
