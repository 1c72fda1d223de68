"""The policy: a small MLP from features to one number, the push on the log learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metalr.core import policy_file
from metalr.core.backend import Array
from metalr.core.features import FEATURES, HORIZON_FEATURES
from metalr.core.policy_file import PolicyFile, checksum
from metalr.core.support import Support

_SHIPPED = Path(__file__).parents[1] / "weights"

Layers = list[tuple[Array, Array]]
"""(weight, bias) of each layer: (out, in) and (out,), or with a leading run dimension for a population."""


def apply_layers(layers: Layers, features: Array) -> Array:
    """The policy's function: features (R, F) -> output (R,), for one policy or a population of R.

    Hidden layers have ReLU; the last is linear.
    """
    batched = isinstance(features, Tensor)
    hidden = features
    for index, (weight, bias) in enumerate(layers):
        hidden = _affine(weight, bias, hidden) if batched else weight @ hidden + bias
        if index + 1 < len(layers):
            hidden = hidden.clip(0.0)
    return hidden.squeeze(-1) if batched else hidden.item()


def _affine(weight: Tensor, bias: Tensor, hidden: Tensor) -> Tensor:
    """One layer of one policy, (O, I), as one product for all runs; of a population, (R, O, I), as R of them."""
    if weight.dim() == 2:
        return F.linear(hidden, weight, bias)
    return (weight @ hidden[..., None]).squeeze(-1) + bias


BOOSTING_POLICIES = ("boosting", "boosting_anytime")
"""Names of the shipped policies that serve boosted trees, with a known horizon and without: their `lr_policies`."""


def shipped_policies() -> dict[str, Path]:
    """The policies in the package, by name."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.safetensors"))}


class LRPolicy(nn.Module):
    """An MLP that reads features of a training run and pushes its learning rate up (> 0) or down (< 0).

    He initialisation with the last layer zero: an untrained policy is the reference schedule.

    Args:
        features: names out of `metalr.core.features.FEATURES` that it reads, in this order.
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
        self.ranges: Tensor
        self.centre: Tensor
        self.whitener: Tensor
        self.reach: Tensor
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
        self._set_support(Support.everywhere(len(self.features)))
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
    def anytime(self) -> bool:
        """Whether it works without a horizon: it reads none of the features that need one."""
        return not any(name in HORIZON_FEATURES for name in self.features)

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, features: Tensor) -> Tensor:
        """Output for all features, shape (R, len(FEATURES)) -> (R,), of which it picks its own columns."""
        output: Tensor = apply_layers(self.shared_layers(), self.select(features))
        return output

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

    @property
    def support(self) -> Support:
        """The region of its own features, (F,) each, that it was meta-trained on; everywhere until it is told."""
        return Support(self.ranges, self.centre, self.whitener, self.reach)

    def learn_support(self, states: Tensor) -> None:
        """Sets `support` to where the states lie.

        Args:
            states: all features of N steps of the meta-training, as `observe` gives them, (N, len(FEATURES)).

        Raises:
            ValueError: for fewer than 1,000 states, or any that is not finite.
        """
        self._set_support(Support.of(self.select(states)))

    def _set_support(self, support: Support) -> None:
        for name, part in support._asdict().items():
            # Beside the weights in a policy file, but in no state_dict: a meta-training's checkpoint is older.
            self.register_buffer(name, part.to(self.columns.device), persistent=False)

    def fingerprint(self) -> str:
        """Tells two policies apart that set different rates: of its features, weights and support."""
        return checksum({"features": repr(self.features)}, self._tensors())[:16]

    def _tensors(self) -> dict[str, Tensor]:
        return self.state_dict() | {f"support.{name}": part for name, part in self.support._asdict().items()}

    def save(self, path: str | Path) -> None:
        """Writes the policy with its feature schema, its support and a checksum to a safetensors file."""
        policy_file.write(path, PolicyFile(self.features, self.hidden, self.card, self._tensors()))

    @classmethod
    def load(cls, source: str | Path, verify: bool = True) -> LRPolicy:
        """Reads a shipped policy by name ("default", "anytime") or a policy file by path.

        Args:
            source: name or path.
            verify: refuse a file without a checksum. One that has a checksum is held to it in any case.

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
        content = policy_file.read(path, verify)
        policy = cls(content.features, content.hidden, card=content.card)
        policy.load_state_dict({k: v for k, v in content.tensors.items() if not k.startswith("support.")})
        parts = {k.removeprefix("support."): v for k, v in content.tensors.items() if k.startswith("support.")}
        if parts:
            policy._set_support(Support(**parts))
        return policy.requires_grad_(False).eval()
