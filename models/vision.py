"""VisionNet: torchvision's ResNet and EfficientNet families by name."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights, list_models

ARCHITECTURES = tuple(
    name
    for name in list_models()
    if name.startswith(("resnet", "resnext", "wide_resnet", "efficientnet")) and "quantized" not in name
)
"""Names of the architectures that `VisionNet` takes."""


class VisionNet(nn.Module):
    """Wraps a network of torchvision's ResNet or EfficientNet families.

    Args:
        architecture: one of `ARCHITECTURES`, such as "resnet18", "resnet50", "efficientnet_b0".
        classes: number of outputs.
        cifar_stem: whether the stem keeps the resolution of 32-pixel images: a first convolution with stride 1 (3x3
            in a ResNet), and no pooling after it (He et al. 2016, section 4.2).
        weights: pretrained weights by torchvision's name ("IMAGENET1K_V1", "DEFAULT"), downloaded once; or a file
            with a state dict; None for a fresh network. A head for another number of classes is initialised afresh.

    Raises:
        ValueError: for an unknown architecture or unknown weights (it lists the valid ones), or `classes` below 1.
        ConnectionError: for weights that cannot be downloaded.
    """

    def __init__(
        self,
        architecture: str = "resnet50",
        classes: int = 10,
        cifar_stem: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise ValueError(f"architecture={architecture!r}: choose one of {', '.join(ARCHITECTURES)}")
        if classes < 1:
            raise ValueError(f"classes={classes}: give 1 or more")
        if weights is None:
            self.network = get_model(architecture, weights=None, num_classes=classes)
        else:
            self.network = _pretrained(architecture, weights)
            _replace_head(self.network, classes)
        if cifar_stem:
            _keep_resolution(self.network)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, H, W) to logits (B, classes)."""
        logits: Tensor = self.network(images)
        return logits


def _pretrained(architecture: str, weights: str) -> nn.Module:
    if Path(weights).is_file():
        state = torch.load(weights, map_location="cpu", weights_only=True)
        network: nn.Module = get_model(architecture, weights=None, num_classes=_head_size(state))
        network.load_state_dict(state)
        return network
    names = [entry.name for entry in get_model_weights(architecture)]
    if weights not in (*names, "DEFAULT"):
        raise ValueError(
            f"weights={weights!r} of {architecture}: choose one of {', '.join(names)}, DEFAULT, or an existing file"
        )
    try:
        return get_model(architecture, weights=weights)
    except OSError as error:  # URLError is one
        raise ConnectionError(
            f"weights={weights!r} cannot be downloaded ({error}): give weights=<file> with the state dict, or none"
        ) from error


def _head_size(state: dict[str, Tensor]) -> int:
    biases = [value for name, value in state.items() if name in ("fc.bias", "classifier.1.bias")]
    if not biases:
        raise ValueError("weights: the file holds no state dict of a torchvision ResNet or EfficientNet")
    return len(biases[0])


def _replace_head(network: nn.Module, classes: int) -> None:
    parent, name = (network, "fc") if hasattr(network, "fc") else (network.classifier, "1")
    head = getattr(parent, name)
    if head.out_features != classes:
        setattr(parent, name, nn.Linear(head.in_features, classes))


def _keep_resolution(network: nn.Module) -> None:
    if hasattr(network, "fc"):
        network.conv1 = nn.Conv2d(3, network.conv1.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
    else:
        network.features[0][0].stride = (1, 1)
