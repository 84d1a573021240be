"""Small networks with random weights, of many kinds, from the libraries that people take theirs from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

__all__ = ["ARCHITECTURES", "CLASSES", "Architecture"]

CLASSES = 10

Kind = Literal[
    "plain",
    "residual",
    "depthwise",
    "squeeze-excite",
    "dense",
    "branches",
    "modern convolutions",
    "attention",
    "windows",
    "pyramid",
    "hybrid",
]


@dataclass(frozen=True)
class Architecture:
    """A network to adopt.

    Attributes:
        kind: how channels depend on each other in it.
        side: of its images, in pixels.
        build: makes it.
        least: share of its parameters that must be elastic.
    """

    kind: Kind
    side: int
    build: Callable[[], nn.Module]
    least: float


def _of_transformers(name: str, **settings: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers

        config = getattr(transformers, f"{name}Config")(num_labels=CLASSES, **settings)
        return getattr(transformers, f"{name}ForImageClassification")(config)  # type: ignore[no-any-return]

    return build


def _of_timm(name: str, **settings: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, num_classes=CLASSES, **settings)  # type: ignore[no-any-return]

    return build


def _of_torchvision(name: str, **settings: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision

        return torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **settings)  # type: ignore[no-any-return]

    return build


def _cnn(kind: Kind, side: int, build: Callable[[], nn.Module], least: float = 0.95) -> Architecture:
    return Architecture(kind, side, build, least)


def _vit(kind: Kind, side: int, build: Callable[[], nn.Module], least: float = 0.9) -> Architecture:
    return Architecture(kind, side, build, least)


_FOUR: Mapping[str, Sequence[int]] = {"depths": [1, 2, 2, 1], "hidden_sizes": [32, 64, 96, 128]}
_TOKENS: Mapping[str, Any] = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 6, "image_size": 64, "patch_size": 16}
_PYRAMID: Mapping[str, Any] = {"depths": [1, 2, 1, 1], "hidden_sizes": [16, 32, 64, 96], "num_attention_heads": [1, 2, 4, 6]}
_WINDOWS: Mapping[str, Any] = {"image_size": 64, "embed_dim": 24, "depths": [2, 2, 2], "num_heads": [2, 4, 8], "window_size": 4}

TRANSFORMERS: Mapping[str, Architecture] = {
    "resnet-basic": _cnn("residual", 64, _of_transformers("ResNet", **_FOUR, embedding_size=32, layer_type="basic")),
    "resnet-bottleneck": _cnn("residual", 64, _of_transformers("ResNet", **_FOUR, embedding_size=32)),
    "regnet-x": _cnn("residual", 64, _of_transformers("RegNet", **_FOUR, embedding_size=16, groups_width=16, layer_type="x")),
    "regnet-y": _cnn("squeeze-excite", 64, _of_transformers("RegNet", **_FOUR, embedding_size=16, groups_width=16)),
    "bit": _cnn("residual", 64, _of_transformers("Bit", **_FOUR, embedding_size=32, num_groups=8)),
    "hgnet-v2": _cnn(
        "dense",
        64,
        _of_transformers(
            "HGNetV2",
            stem_channels=[3, 16, 24],
            stage_in_channels=[24, 48, 96, 128],
            stage_mid_channels=[16, 24, 32, 48],
            stage_out_channels=[48, 96, 128, 160],
            hidden_sizes=[48, 96, 128, 160],
            embedding_size=24,
            stage_num_blocks=[1, 1, 2, 1],
            stage_numb_of_layers=[3, 3, 3, 3],
        ),
    ),
    "mobilenet-v1": _cnn("depthwise", 64, _of_transformers("MobileNetV1", depth_multiplier=0.5)),
    "mobilenet-v2": _cnn("depthwise", 64, _of_transformers("MobileNetV2", depth_multiplier=0.5)),
    "efficientnet": _cnn(
        "squeeze-excite", 64, _of_transformers("EfficientNet", width_coefficient=0.5, depth_coefficient=0.5, image_size=64, hidden_dim=640)
    ),
    "convnext": _cnn("modern convolutions", 64, _of_transformers("ConvNext", **_FOUR)),
    "convnext-v2": _cnn("modern convolutions", 64, _of_transformers("ConvNextV2", **_FOUR)),
    "poolformer": _cnn("modern convolutions", 64, _of_transformers("PoolFormer", **_FOUR)),
    "focalnet": _cnn("modern convolutions", 64, _of_transformers("FocalNet", image_size=64, embed_dim=24, depths=[1, 2, 1, 1])),
    "vit": _vit("attention", 64, _of_transformers("ViT", **_TOKENS, intermediate_size=192)),
    "deit": _vit("attention", 64, _of_transformers("DeiT", **_TOKENS, intermediate_size=192)),
    "dinov2": _vit("attention", 64, _of_transformers("Dinov2", **_TOKENS)),
    "dinov2-registers": _vit("attention", 64, _of_transformers("Dinov2WithRegisters", **_TOKENS)),
    "beit": _vit("attention", 64, _of_transformers("Beit", **_TOKENS, intermediate_size=192, use_relative_position_bias=True)),
    "swin": _vit("windows", 64, _of_transformers("Swin", **_WINDOWS)),
    "swin-v2": _vit("windows", 64, _of_transformers("Swinv2", **_WINDOWS)),
    "levit": _vit(
        "hybrid",
        64,
        _of_transformers(
            "Levit", image_size=64, hidden_sizes=[32, 48, 64], num_attention_heads=[2, 3, 4], depths=[2, 2, 2], key_dim=[8, 8, 8]
        ),
    ),
    "mobilevit": _vit(
        "hybrid",
        64,
        _of_transformers("MobileViT", image_size=64, hidden_sizes=[24, 32, 40], neck_hidden_sizes=[8, 12, 16, 24, 32, 40, 80]),
    ),
    "cvt": _vit("hybrid", 64, _of_transformers("Cvt", embed_dim=[16, 32, 64], num_heads=[1, 2, 4], depth=[1, 2, 3])),
    "segformer": _vit("pyramid", 64, _of_transformers("Segformer", **_PYRAMID)),
    "pvt": _vit("pyramid", 64, _of_transformers("Pvt", **_PYRAMID, image_size=64)),
    # Its forward has the channels of the last stage as a number of its configuration.
    "pvt-v2": _vit("pyramid", 64, _of_transformers("PvtV2", **_PYRAMID, image_size=64), 0.8),
    "swiftformer": _vit("hybrid", 64, _of_transformers("SwiftFormer", image_size=64, depths=[1, 1, 2, 1], embed_dims=[16, 24, 32, 48])),
}

TIMM: Mapping[str, Architecture] = {
    "timm-resnet18": _cnn("residual", 64, _of_timm("resnet18")),
    "timm-seresnet18": _cnn("squeeze-excite", 64, _of_timm("seresnet18")),
    "timm-mobilenetv3-small": _cnn("squeeze-excite", 64, _of_timm("mobilenetv3_small_050")),
    "timm-mobilenetv4-conv-small": _cnn("depthwise", 64, _of_timm("mobilenetv4_conv_small_050")),
    "timm-densenet": _cnn("dense", 64, _of_timm("densenet121", block_config=(2, 2, 2), growth_rate=16)),
    "timm-vgg11": _cnn("plain", 64, _of_timm("vgg11_bn")),
    "timm-repvgg": _cnn("branches", 64, _of_timm("repvgg_a0")),
    "timm-convnext-atto": _cnn("modern convolutions", 64, _of_timm("convnext_atto", depths=(1, 1, 2, 1))),
    "timm-vit": _vit("attention", 64, _of_timm("vit_tiny_patch16_224", img_size=64, depth=3)),
    "timm-deit-distilled": _vit("attention", 64, _of_timm("deit_tiny_distilled_patch16_224", img_size=64, depth=3)),
    "timm-swin": _vit("windows", 64, _of_timm("swin_tiny_patch4_window7_224", img_size=64, window_size=4, depths=(1, 2, 1, 1))),
    "timm-mixer": _vit("attention", 64, _of_timm("mixer_s16_224", img_size=64)),
    "timm-fastvit": _vit("hybrid", 64, _of_timm("fastvit_t8")),
}

TORCHVISION: Mapping[str, Architecture] = {
    "torchvision-resnet18": _cnn("residual", 64, _of_torchvision("resnet18")),
    "torchvision-vgg11": _cnn("plain", 32, _of_torchvision("vgg11")),
    "torchvision-densenet121": _cnn("dense", 64, _of_torchvision("densenet121")),
    "torchvision-googlenet": _cnn("branches", 64, _of_torchvision("googlenet", aux_logits=False, init_weights=False)),
    "torchvision-shufflenet": _cnn("branches", 64, _of_torchvision("shufflenet_v2_x0_5")),
    "torchvision-squeezenet": _cnn("branches", 64, _of_torchvision("squeezenet1_1")),
    "torchvision-mnasnet": _cnn("depthwise", 64, _of_torchvision("mnasnet0_5")),
    "torchvision-efficientnet-b0": _cnn("squeeze-excite", 64, _of_torchvision("efficientnet_b0")),
    "torchvision-mobilenet-v3": _cnn("squeeze-excite", 64, _of_torchvision("mobilenet_v3_small")),
    "torchvision-swin": _vit("windows", 64, _of_torchvision("swin_t")),
    "torchvision-vit": _vit("attention", 224, _of_torchvision("vit_b_16")),
}

ARCHITECTURES: Mapping[str, Architecture] = {**TRANSFORMERS, **TIMM, **TORCHVISION}
