"""Models of people who do not know this project: one for each way to make channels depend on each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

__all__ = ["MODELS", "SIDE", "Fixed"]

SIDE = 16
CLASSES = 5


def _norm_act(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())


class _Head(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(x.mean((2, 3)))


class _Residual(nn.Module):
    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 3, padding=1, bias=False)
        self.norm = _norm_act(inner)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.expand(self.norm(self.reduce(x)))


class _Depthwise(nn.Module):
    """Two depthwise convolutions, of which the second gives two channels for each."""

    def __init__(self, channels: int, expand: int) -> None:
        super().__init__()
        inner = channels * expand
        self.expand, self.depthwise = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.widen = nn.Conv2d(inner, 2 * inner, 3, padding=1, groups=inner)
        self.gate, self.project = nn.Conv2d(2 * inner, 2 * inner, 1), nn.Conv2d(2 * inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.widen(self.depthwise(self.expand(x))).relu()
        return x + self.project(y * self.gate(y.mean((2, 3), keepdim=True)).sigmoid())


class _Grouped(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()


class _Dense(nn.Module):
    def __init__(self, channels: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(channels + number * growth, growth, 3, padding=1) for number in range(layers))
        self.norm = _norm_act(channels + layers * growth)

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for layer in self.layers:
            found.append(layer(torch.cat(found, 1)).relu())  # of one value, of two, of three
        return self.norm(torch.cat(found, 1))


class _FusedAttention(nn.Module):
    """Queries, keys and values of one matrix, and numbers of heads kept as attributes."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.norm, self.qkv, self.proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(count, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return x + self.proj(mixed.transpose(1, 2).reshape(count, tokens, -1))


class _SeparateAttention(nn.Module):
    """A matrix each for queries, keys and values, and only the values of a head kept as an attribute."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_head_size = width // heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], -1, self.attention_head_size).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._heads(self.query(x)), self._heads(self.key(x)), self._heads(self.value(x))
        weights = (q @ k.transpose(-1, -2) / self.attention_head_size**0.5).softmax(-1)
        return x + self.out((weights @ v).transpose(1, 2).flatten(2))


class _TorchsAttention(nn.Module):
    """Torch's own module, which has a parameter for three matrices."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(x, x, x, need_weights=False)[0]


class _Transformer(nn.Module):
    def __init__(self, attention: Callable[[int, int], nn.Module], width: int, heads: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, (SIDE // 4) ** 2 + 1, width))
        self.attention = attention(width, heads)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], 1) + self.positions
        tokens = self.attention(tokens)
        return self.classifier((tokens + self.mlp(tokens))[:, 0])


class _Windows(nn.Module):
    """Attention within windows that the forward cuts by the channels of what it had before, with marks for each window."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window, self.attention, self.table = window, _SeparateAttention(width, heads), nn.Parameter(torch.zeros(10, width))
        self.register_buffer("index", torch.arange(window * window) % 10)
        self.register_buffer("marks", torch.zeros((SIDE // window) ** 2, window * window))

    def _cut(self, x: Tensor) -> Tensor:
        count, height, width, channels = x.shape
        cut = x.view(count, height // self.window, self.window, width // self.window, self.window, channels)
        return cut.permute(0, 1, 3, 2, 4, 5).reshape(-1, self.window * self.window, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.roll(x.permute(0, 2, 3, 1), (1, 1), (1, 2))
        count, height, width, _ = x.shape
        border = x.new_zeros(1, height, width, 1)
        border[:, :1], border[:, :, :1] = 1, 2
        windows = self._cut(x) + self.table[self.index]
        number, tokens = self.marks.shape
        marks = self.marks.view(1, number, tokens, 1).expand(windows.shape[0] // number, -1, -1, -1).reshape(-1, tokens, 1)
        windows = (windows + marks).view(-1, number, tokens, windows.shape[-1]) + self._cut(border)
        windows = self.attention(windows.flatten(0, 1)).view(-1, self.window, self.window, x.shape[-1])
        joined = windows.view(count, height // self.window, width // self.window, self.window, self.window, -1)
        return joined.permute(0, 1, 3, 2, 4, 5).reshape(count, height, width, -1).permute(0, 3, 1, 2)


class Fixed(nn.Module):
    """A model whose channels are a number in its own code."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), _Head(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).view(-1, 8, SIDE, SIDE))


def _stacked(*layers: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), _norm_act(channels), *layers, _Head(channels))


MODELS: Mapping[str, Callable[[], nn.Module]] = {
    "plain": lambda: _stacked(nn.Conv2d(12, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), channels=12),
    "residual": lambda: _stacked(_Residual(12, 8), _Residual(12, 6), channels=12),
    "depthwise": lambda: _stacked(_Depthwise(8, 3), channels=8),
    "grouped": lambda: _stacked(_Grouped(12, 3), _Grouped(12, 3), channels=12),
    "group norm": lambda: _stacked(nn.Conv2d(12, 12, 1), nn.GroupNorm(3, 12), nn.ReLU(), channels=12),
    "dense": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), _Dense(6, 4, 3), nn.Conv2d(18, 8, 1), _Head(8)),
    "flattened": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, 4, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, CLASSES)),
    "fused attention": lambda: _Transformer(_FusedAttention, 24, 4),
    "separate attention": lambda: _Transformer(_SeparateAttention, 24, 4),
    "torch's attention": lambda: _Transformer(_TorchsAttention, 24, 4),
    "windows": lambda: _stacked(_Windows(12, 3, 4), channels=12),
}
