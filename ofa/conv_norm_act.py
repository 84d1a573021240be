"""Convolution, batch norm and activation as one module, fused while training where that is faster."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ofa import folded, kernels

__all__ = ["ConvNormAct"]


class ConvNormAct(nn.Sequential):
    """A convolution, its batch norm, and optionally an activation: ``conv``, ``norm``, ``activation``.

    The result equals calling the three in sequence, up to the order of summation; evaluation mode does exactly that. In training
    on a CPU, the batch norm of an expanding 1x1 convolution is folded into the convolution where that is faster (``ofa.folded``).
    In training on a GPU, batch norm and activation are one pass (``ofa.kernels``).
    """

    conv: nn.Conv2d
    norm: nn.BatchNorm2d

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, outputs, H', W']."""
        y_BCHW: Tensor
        if not self.norm.training:
            y_BCHW = super().forward(x_BCHW)  # type: ignore[no-untyped-call]
        elif self._folds(x_BCHW):
            y_BCHW = folded.conv_norm_act(x_BCHW, self.conv.weight, self.norm, self._activation())
        else:
            y_BCHW = kernels.norm_activation(self.conv(x_BCHW), self.norm, self._modules.get("activation"))
        return y_BCHW

    def _activation(self) -> type[nn.Module]:
        return type(self._modules.get("activation", _NONE))

    def _folds(self, x_BCHW: Tensor) -> bool:
        """Whether training folds the batch norm into the convolution: it is possible, no part has hooks, and it is faster."""
        return (
            _is_pointwise(self.conv)
            and _has_batch_statistics(self.norm)
            and self._activation() in folded.ACTIVATIONS
            and not any(_is_watched(part) for part in self._modules.values())
            and _is_plain_image(x_BCHW)
            and folded.is_faster(x_BCHW, self.conv.out_channels)
        )


_NONE = nn.Identity()
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _is_pointwise(conv: nn.Conv2d) -> bool:
    # ``type(...) is``: torch.nn.utils.parametrize gives a parametrized convolution a class of its own.
    return (
        type(conv) is nn.Conv2d
        and conv.kernel_size == (1, 1)
        and conv.stride == (1, 1)
        and conv.padding == (0, 0)
        and conv.groups == 1
        and conv.bias is None
    )


def _has_batch_statistics(norm: nn.BatchNorm2d) -> bool:
    # A synchronized batch norm takes its statistics from several processes.
    return type(norm) is nn.BatchNorm2d and norm.affine and norm.running_mean is not None and norm.momentum is not None


def _is_watched(part: nn.Module | None) -> bool:
    """Whether the part has hooks, such as the hooks of calibration; folding would not call them."""
    attributes: Mapping[str, object] = {} if part is None else part.__dict__
    return any(attributes.get(hooks) for hooks in _HOOKS)


def _is_plain_image(x_BCHW: Tensor) -> bool:
    # torch.fx traces with proxies, which are no tensors.
    return (
        isinstance(x_BCHW, Tensor)
        and x_BCHW.device.type == "cpu"
        and x_BCHW.dtype in (torch.float32, torch.float64)
        and x_BCHW.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
