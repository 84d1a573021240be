"""The C++ lines of a bundle's README, compiled and run with ONNX Runtime's own headers and library."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from ofa.exporting.bundle import Bundle
from tests.ofa.exporting.test_readme import expected_of, made
from tests.photos import CLASSES, photo

HEADERS = Path(os.environ.get("ONNXRUNTIME_INCLUDE", "/usr/include/onnxruntime"))
"""Debian's package libonnxruntime-dev installs them there; the wheel of Python has the library alone."""

PROGRAM = """
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>
#include <onnxruntime_cxx_api.h>

int main(int, char** arguments) {{
  std::ifstream file(arguments[1], std::ios::binary);
  std::vector<std::uint8_t> bytes{{std::istreambuf_iterator<char>(file), {{}}}};
  std::uint8_t* pixels = bytes.data();
  int height = std::atoi(arguments[2]), width = std::atoi(arguments[3]);
{lines}
  std::printf("%d %f\\n", static_cast<int>(index), probabilities[index]);
}}
"""


@pytest.fixture(scope="module")
def library() -> Path:
    """The library that comes with ONNX Runtime's wheel."""
    found = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not found or not (HEADERS / "onnxruntime_cxx_api.h").exists() or shutil.which("g++") is None:
        pytest.skip("g++, ONNX Runtime's library and its headers in ONNXRUNTIME_INCLUDE or /usr/include/onnxruntime are needed")
    return found[0]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return made(tmp_path_factory.mktemp("ships") / "bundle")


def compiled(lines: str, library: Path, folder: Path) -> Path:
    (folder / "classify.cpp").write_text(PROGRAM.format(lines=lines))
    # Without the name by which the program looks for the library there is nothing to find.
    (folder / "libonnxruntime.so.1").symlink_to(library)
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-isystem", HEADERS, "classify.cpp", library, f"-Wl,-rpath,{folder}"]
    done = subprocess.run([*map(str, command), "-o", "classify"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "classify"


def test_the_lines_compile_and_name_the_class_that_pytorch_does(bundle: Bundle, library: Path, tmp_path: Path) -> None:
    (lines,) = re.findall(r"```cpp\n(.*?)```", (bundle.folder / "README.md").read_text(), re.DOTALL)
    program = compiled(lines, library, tmp_path)
    named = set()
    for seed in range(6):
        picture = photo(seed % len(CLASSES), seed).convert("RGB")
        pixels = np.asarray(picture)
        pixels.tofile(tmp_path / "pixels")
        Image.fromarray(pixels).save(tmp_path / "photo.png")
        sizes = [str(size) for size in pixels.shape[:2]]
        done = subprocess.run([program, tmp_path / "pixels", *sizes], cwd=bundle.folder, capture_output=True, text=True, check=True)
        index, probability = done.stdout.split()
        expected = expected_of(bundle, tmp_path / "photo.png")
        assert float(probability) == pytest.approx(float(expected[int(index)]), abs=0.02)
        assert float(probability) == pytest.approx(float(expected.max()), abs=0.02)
        named.add(index)
    assert len(named) > 1
