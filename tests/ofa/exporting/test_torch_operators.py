"""What torch computes of an exported file is what ONNX Runtime computes of it, for each operation that the exporter writes."""

from __future__ import annotations

import pytest
import torch

from ofa.exporting.onnx import to_model
from ofa.exporting.quantization.fake import FakeQuantized
from tests.ofa.exporting.test_aten import IMAGES, OF_IMAGES, OF_TOKENS, TOKENS, Calls
from tests.ofa.exporting.test_onnx import run


@pytest.mark.parametrize(("calls", "shape"), [(OF_IMAGES, IMAGES), (OF_TOKENS, TOKENS)], ids=["images", "tokens"])
def test_every_operator_computes_the_same(calls, shape) -> None:
    for name, compute in calls.items():
        model = to_model(Calls(compute), (1, *shape), dynamic_batch=True)
        x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found = FakeQuantized(model, model)(x)
        torch.testing.assert_close(found, run(model, x), rtol=1e-4, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
