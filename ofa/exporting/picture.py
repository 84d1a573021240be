"""A picture (SVG) of a network's blocks, from the image to the classes."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from ofa.blocks import PlacedBlock
from ofa.resolution import pixels, sides

__all__ = ["draw_network"]

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Okabe and Ito's palette, which is distinguishable with the common colour blindnesses."""
_BAR, _GAP, _LEFT, _TALL, _SHARE, _KIND = 22, 6, 46, 130, 60, 210
"""In pixels: width of a block, gap between blocks, left margin, tallest block, longest bar of MACs, width of a legend entry."""
_TEXT = 'font-family="sans-serif" font-size="11" fill="#555"'


def draw_network(lowered: Sequence[PlacedBlock], title: str) -> str:
    """The blocks of a network side by side, as the text of an SVG file.

    The height of a block is the square root of the number of rows of its input (pixels or tokens), its colour its kind. The bar below it
    is its share of the multiply-accumulates. Details are shown on hover.

    Args:
        lowered: the blocks, from the image to the logits.
        title: title above the picture.

    Returns:
        The text of the SVG file.
    """
    kinds = list(dict.fromkeys(placed.block.kind for placed in lowered))
    colours = {kind: _COLOURS[number % len(_COLOURS)] for number, kind in enumerate(kinds)}
    macs = [placed.block.macs(placed.input) for placed in lowered]
    most, tallest = max([*macs, 1]), max(_rows(placed) for placed in lowered)
    width = max(_LEFT + len(lowered) * (_BAR + _GAP) + 20, _LEFT + _KIND * min(len(kinds), 3), 420)
    legend = 20 * -(-len(kinds) // 3)
    floor = 40 + _TALL
    height = floor + _SHARE + 44 + legend
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="22" font-family="sans-serif" font-size="14" fill="#222">{escape(title)}</text>',
        f'<text x="6" y="{floor - 4}" {_TEXT}>rows</text><text x="6" y="{floor + 20}" {_TEXT}>MACs</text>',
    ]
    last = 0
    for number, (placed, share) in enumerate(zip(lowered, macs, strict=True)):
        x, tall = _LEFT + number * (_BAR + _GAP), round(max(4.0, _TALL * (_rows(placed) / tallest) ** 0.5), 1)
        parts.append(f'<g fill="{colours[placed.block.kind]}"><title>{escape(_words(placed, share / max(sum(macs), 1)))}</title>')
        parts.append(f'<rect x="{x}" y="{floor - tall}" width="{_BAR}" height="{tall}" rx="2"/>')
        parts.append(f'<rect x="{x}" y="{floor + 8}" width="{_BAR}" height="{_SHARE * share / most:.1f}" opacity="0.55"/></g>')
        if _rows(placed) != last:
            last = _rows(placed)
            parts.append(f'<text x="{x}" y="{floor - tall - 4}" {_TEXT}>{last}</text>')
    for number, kind in enumerate(kinds):
        x, y = _LEFT + _KIND * (number % 3), floor + _SHARE + 30 + 20 * (number // 3)
        parts.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colours[kind]}"/>')
        parts.append(f'<text x="{x + 15}" y="{y}" {_TEXT}>{escape(kind.replace("_", " "))}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _rows(placed: PlacedBlock) -> int:
    return sides(placed.input.size)[0]


def _words(placed: PlacedBlock, share: float) -> str:
    block = placed.block
    kernel = getattr(block, "kernel", None)
    shape = f"{block.in_channels} to {block.out_channels} channels, {pixels(placed.input.size)}"
    return f"{placed.name}: {block.kind.replace('_', ' ')}, {shape}{f', kernel {kernel}' if kernel else ''}; {share:.1%} of the MACs"
