"""The code of a traced block is data: it computes tensors from tensors, or is refused in one sentence."""

from __future__ import annotations

import pytest
import torch

from ofa.blocks import Shape, TracedBlock
from ofa.blocks.code import parse_code
from ofa.errors import SpaceError

WHOLE = """Conv2d('conv', [b, a, 3, 3], True, [1, 1], [1, 1], [1, 1], 1)
Parameter('scale', [b, 1, 1])
v1 = call('conv', v0)
v2 = aten.mul.Tensor(v1, t('scale'))
v3 = aten.relu.default(v2)"""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "import os",
        "v1 = __import__('os').system('true')",
        "v1 = open('/etc/passwd')",
        "v1 = v0.__class__",
        "v1 = aten.relu.default(v0).data",
        "v1 = aten.from_file.default('/etc/passwd', False, 4)",
        "v1 = aten.relu_.default(v0)",
        "v1 = aten.bernoulli.default(v0)",
        "v1 = aten.nonzero.default(v0)",
        "v1 = aten.no_such.default(v0)",
        "v1 = aten.relu.default(v2)",
        "v1 = aten.relu.default((lambda: v0)())",
        "v1 = aten.relu.default(*[v0])",
        "v0 = aten.relu.default(v0)",
        "v1 = call('conv', v0)",
        "Parameter('../x', [3])\nv1 = aten.add.Tensor(v0, t('../x'))",
        "Parameter('x', [99999999999])\nv1 = aten.add.Tensor(v0, t('x'))",
        "Parameter('x', [3])\nParameter('x', [3])\nv1 = aten.add.Tensor(v0, t('x'))",
        "v1 = aten.add.Tensor(v0, 10000000000000000000000)",
        "v1 = aten.reshape.default(v0, [-1, 3**9])",
        "v1 = aten.relu.default(" + "(" * 5000 + "v0" + ")" * 5000 + ")",
        "v1 = aten.add.Tensor(v0, " + "-" * 20000 + "1)",
        "v1 = aten.relu.default(v0" + " " * 2**20 + ")",
        "v1 = aten.reshape.default(v0, [batch, 3 // 0])",
        "v1 = aten.add.Tensor(v0, -None)",
        "LayerNorm('n', [], 1e-05)\nv1 = call('n', v0)",
        "BatchNorm('n', [3], [], 0.1)\nv1 = call('n', v0)",
        "BatchNorm('n', [3], -1.0, 0.1)\nv1 = call('n', v0)",
        "Conv2d('c', [3, 3, 3, 3], True)\nv1 = call('c', v0)",
    ],
    ids=lambda text: text[:40],
)
def test_what_is_no_code_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(SpaceError, match="the code of a block must") as caught:
        parse_code(text)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "v1 = aten.reshape.default(v0, [-1, 7])",
        "v1 = aten.expand.default(v0, [batch, 3, 8, 8, 8])\nv2 = aten.repeat.default(v0, [1, 1000000, 1000, 1000])",
        "v1 = aten.split.Tensor(v0, 1, 1)",
        "v1 = aten.relu.default(v0, v0, v0)",
        "Linear('fc', [4, 4], False, True)\nv1 = call('fc', v0)",
        "Conv2d('c', [3, 3, 3, 3], False, [1, 1], [1, 1], [1, 1], 0)\nv1 = call('c', v0)",
    ],
)
def test_code_that_does_not_compute_its_input_is_refused_before_it_runs(text: str) -> None:
    with pytest.raises(SpaceError):
        TracedBlock(in_channels=3, out_channels=3, code=text, sizes=()).output(Shape(3, 8, 8))


def test_a_slice_may_end_at_the_largest_number_there_is() -> None:
    code = "v1 = aten.slice.Tensor(v0, 2, 1, 9223372036854775807)"
    assert TracedBlock(in_channels=3, out_channels=3, code=code, sizes=()).output(Shape(3, 8, 8)) == (3, 7, 8)


def test_a_block_computes_what_its_code_says_and_counts_it() -> None:
    block = TracedBlock(in_channels=3, out_channels=5, code=WHOLE, sizes=(5, 3))
    assert block.lengths == {"b": 5, "a": 3}
    assert block.output(Shape(3, 8, 8)) == (5, 8, 8)
    assert block.macs(Shape(3, 8, 8)) == 5 * 3 * 9 * 64
    assert block.params() == 5 * 3 * 9 + 5 + 5
    module, images = block.build().eval(), torch.rand(2, 3, 8, 8)
    expected = (torch.nn.functional.conv2d(images, module.conv.weight, module.conv.bias, padding=1) * module.scale).relu()  # type: ignore[arg-type, operator]
    assert torch.equal(module(images), expected)
