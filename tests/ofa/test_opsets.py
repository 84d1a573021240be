from __future__ import annotations

import pytest
from onnx import helper

from ofa.opsets import NEWEST_OPSET, OLDEST_OPSET, ir_version_for, least_release


def test_what_is_known_is_what_onnx_says() -> None:
    versions = {row[2]: (row[0], row[1]) for row in reversed(helper.VERSION_TABLE)}
    for opset in range(OLDEST_OPSET, NEWEST_OPSET + 1):
        release, ir_version = versions[opset]
        assert ir_version_for(opset) == ir_version
        known = least_release(opset, ir_version)
        assert known is not None
        assert release.startswith(known.onnx)


@pytest.mark.parametrize(
    ("opset", "ir_version", "least"),
    [
        (14, 7, "1.8"),
        (17, 8, "1.12"),
        (18, 8, "1.14"),
        (18, 10, "1.18"),
        (19, 9, "1.15"),
        (20, 9, "1.17"),
        (21, 10, "1.18"),
        (14, 6, "1.8"),
    ],
)
def test_the_first_release_of_onnx_runtime_that_reads_both(opset: int, ir_version: int, least: str) -> None:
    release = least_release(opset, ir_version)
    assert release is not None
    assert release.onnxruntime == least


def test_of_newer_versions_nothing_is_known() -> None:
    assert least_release(NEWEST_OPSET + 1, 7) is None
    assert least_release(14, 99) is None
