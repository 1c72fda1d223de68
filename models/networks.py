"""Small networks for small images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class MLP(nn.Sequential):
    """A perceptron with ReLU on flattened inputs.

    Args:
        inputs: number of input values.
        hidden: widths of the hidden layers.
        outputs: number of output values.
    """

    def __init__(self, inputs: int = 64, hidden: Sequence[int] = (64, 32), outputs: int = 10) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        for width in hidden:
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        super().__init__(*layers, nn.Linear(inputs, outputs))


class ConvNet(nn.Module):
    """3x3 convolutions with ReLU, each followed by 2x2 max pooling, and a linear head.

    Args:
        channels: of the input images.
        side: of the input images, pixels; divisible by 2 for each convolution.
        widths: channels of the convolutions.
        outputs: number of output values.
        batch_norm: whether each convolution has batch normalisation.

    Raises:
        ValueError: for a side that cannot be halved once a convolution.
    """

    def __init__(
        self,
        channels: int = 1,
        side: int = 8,
        widths: Sequence[int] = (16, 32),
        outputs: int = 10,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if side % 2 ** len(widths):
            raise ValueError(f"side={side} cannot be halved {len(widths)} times: give fewer widths")
        layers: list[nn.Module] = []
        for width in widths:
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            layers += [nn.BatchNorm2d(width)] if batch_norm else []
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
            channels, side = width, side // 2
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels * side * side, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, channels, side, side) to logits (B, outputs)."""
        logits: Tensor = self.head(self.features(images).flatten(1))
        return logits
