"""The policy: a small MLP from features to one number, the push on the log learning rate.

A policy is stored as a safetensors file: its weights, and in the metadata what it reads (the names and the schema
version of its features) and where it comes from. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from metalr.features import FEATURES, HORIZON_FEATURES, SCHEMA_VERSION

_FORMAT = "metalr.policy"
_SHIPPED = Path(__file__).parent / "weights"

Layers = list[tuple[Tensor, Tensor]]
"""(weight, bias) of each layer: (out, in) and (out,), or with a leading run dimension for a population."""


def apply_layers(layers: Layers, features: Tensor) -> Tensor:
    """The policy's function: features (R, F) -> output (R,), for one policy or a population of R.

    Hidden layers have ReLU; the last is linear.
    """
    hidden = features.unsqueeze(-1)
    for index, (weight, bias) in enumerate(layers):
        hidden = weight @ hidden + bias.unsqueeze(-1)
        if index + 1 < len(layers):
            hidden = hidden.relu()
    return hidden.squeeze(-1).squeeze(-1)


def shipped_policies() -> dict[str, Path]:
    """The policies in the package, by name."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.safetensors"))}


class LRPolicy(nn.Module):
    """An MLP that reads features of a training run and pushes its learning rate up (> 0) or down (< 0).

    He initialisation with the last layer zero: an untrained policy is the reference schedule.

    Args:
        features: names out of `metalr.features.FEATURES` that it reads, in this order.
        hidden: widths of the hidden layers.
        seed: of the initial weights.
        card: free text facts (command, seed, figures), stored with the policy.

    Raises:
        ValueError: for a feature that does not exist, or none, or a width below 1.
    """

    def __init__(
        self,
        features: Sequence[str] = FEATURES,
        hidden: Sequence[int] = (64, 32),
        seed: int = 0,
        card: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.columns: Tensor
        unknown = [name for name in features if name not in FEATURES]
        if unknown or not features:
            raise ValueError(f"features={list(features)}: choose one or more of {', '.join(FEATURES)}")
        if any(width < 1 for width in hidden):
            raise ValueError(f"hidden={list(hidden)}: every width must be at least 1")
        self.features = tuple(features)
        self.hidden = tuple(hidden)
        self.card = dict(card or {})
        widths = (len(self.features), *self.hidden, 1)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.register_buffer("columns", torch.tensor([FEATURES.index(f) for f in self.features]), persistent=False)
        self._initialise(seed)

    def _initialise(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for index, layer in enumerate(self._linears()):
                last = index + 1 == len(self.layers)
                scale = 0.0 if last else (2.0 / layer.in_features) ** 0.5
                layer.weight.copy_(scale * torch.randn(layer.weight.shape, generator=generator))
                layer.bias.zero_()

    def _linears(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    @property
    def needs_horizon(self) -> bool:
        """Whether it reads features that exist only where the total number of steps is known."""
        return any(name in HORIZON_FEATURES for name in self.features)

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, features: Tensor) -> Tensor:
        """Output for all features, shape (R, len(FEATURES)) -> (R,), of which it picks its own columns."""
        return apply_layers(self.shared_layers(), self.select(features))

    def shared_layers(self) -> Layers:
        """Its own layers, for `apply_layers`."""
        return [(layer.weight, layer.bias) for layer in self._linears()]

    def select(self, features: Tensor) -> Tensor:
        """The columns that this policy reads: (R, len(FEATURES)) -> (R, len(self.features))."""
        if self.features == FEATURES:
            return features
        return features.index_select(-1, self.columns)

    def population(self, vectors: Tensor) -> Layers:
        """Layers of R policies of this shape from their flat weights, shape (R, size), in parameter order."""
        layers: Layers = []
        start = 0
        for layer in self._linears():
            rows, columns = layer.weight.shape
            weight = vectors[:, start : start + rows * columns].reshape(-1, rows, columns)
            start += rows * columns
            layers.append((weight, vectors[:, start : start + rows]))
            start += rows
        return layers

    def save(self, path: str | Path) -> None:
        """Writes the policy with its feature schema to a safetensors file."""
        metadata = {
            "format": _FORMAT,
            "schema_version": str(SCHEMA_VERSION),
            "features": json.dumps(self.features),
            "hidden": json.dumps(self.hidden),
            "card": json.dumps(self.card),
        }
        tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in self.state_dict().items()}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path, metadata=metadata)

    @classmethod
    def load(cls, source: str | Path) -> LRPolicy:
        """Reads a shipped policy by name ("default", "anytime") or a policy file by path.

        Raises:
            FileNotFoundError: when there is neither.
            ValueError: when the file is damaged, no policy, or of another feature schema.
        """
        path = shipped_policies().get(str(source), Path(source))
        if not path.is_file():
            names = ", ".join(shipped_policies()) or "none"
            raise FileNotFoundError(
                f"policy={str(source)!r} is neither a file nor a shipped policy (shipped: {names}); "
                "give one of these names or the path of a file written by LRPolicy.save"
            )
        metadata, tensors = _read(path)
        policy = _build(path, metadata)
        _check_weights(path, policy, tensors)
        policy.load_state_dict(tensors)
        return policy.requires_grad_(False).eval()


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"policy file {path} is damaged or not a safetensors file ({error}); restore it from its source, "
            "or write it again with LRPolicy.save"
        ) from error


def _build(path: Path, metadata: dict[str, str]) -> LRPolicy:
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{path} is a safetensors file but not a metalr policy; LRPolicy.save writes them")
    version = metadata.get("schema_version")
    if version != str(SCHEMA_VERSION):
        raise ValueError(
            f"policy file {path} has feature schema {version}, this metalr reads {SCHEMA_VERSION}; "
            "install the metalr version it was made with, or meta-train it again"
        )
    try:
        features: Any = json.loads(metadata["features"])
        hidden: Any = json.loads(metadata["hidden"])
        card: Any = json.loads(metadata.get("card", "{}"))
        return LRPolicy([str(f) for f in features], [int(h) for h in hidden], card=card)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"policy file {path} has a damaged header ({error}); restore it from its source") from error


def _check_weights(path: Path, policy: LRPolicy, tensors: dict[str, Tensor]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in policy.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        raise ValueError(f"policy file {path} holds tensors {found}, its header promises {expected}")
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"policy file {path}: tensor {name!r} is not finite floating point; restore the file")
