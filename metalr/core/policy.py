"""The policy: a small MLP from the features of a training run to an action, which moves the log learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from metalr.core import policy_file
from metalr.core.backend import TORCH, Backend, Number, Vector, to_host_vector
from metalr.core.features import EPOCH_FEATURES, FEATURES, HORIZON_FEATURES
from metalr.core.policy_file import PolicyFile, checksum
from metalr.core.support import Support
from metalr.core.validation_loss import VALIDATION_FEATURES

_SHIPPED = Path(__file__).parents[1] / "weights"

Layers = Sequence[tuple[Vector, Vector]]
"""(weight, bias) of each layer: (out, in) and (out,), or with a leading run dimension for a population."""

BOOSTING_POLICIES = ("boosting", "boosting_anytime")
"""Names of the shipped policies that serve boosted trees, with a horizon and without: their `lr_policies`."""


class PolicyFunction(NamedTuple):
    """Computes a policy's action, as a decision calls it.

    Attributes:
        layers: of one policy, or of a population of R.
        columns: positions in `FEATURES` of the features that it reads, (F,); None for all of them, in order.
    """

    layers: Layers
    columns: Vector | None

    def action(self, xp: Backend, read: Vector) -> Number:
        """Computes the output, (R,), from the features that the policy reads, (R, F).

        Hidden layers have ReLU; the last is linear.
        """
        hidden = read
        for index, (weight, bias) in enumerate(self.layers):
            hidden = xp.affine(weight, bias, hidden)
            if index + 1 < len(self.layers):
                hidden = xp.relu(hidden)
        return xp.only(hidden)


def shipped_policies() -> dict[str, Path]:
    """Lists the policies in the package: path of the file by name.

    Example:
        >>> shipped_policies()["default"].name
        'default.safetensors'
    """
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.safetensors"))}


class LRPolicy(nn.Module):
    """Reads features of a training run, and moves its learning rate up (> 0) or down (< 0).

    He initialisation with the last layer zero: an untrained policy is the reference schedule.

    Args:
        features: names out of `metalr.core.features.FEATURES` that it reads, in this order.
        hidden: widths of the hidden layers.
        seed: of the initial weights.
        card: free text facts (command, seed, figures), stored with the policy.

    Attributes:
        support: region of the features that it was meta-trained on; everywhere until `learn_support`.

    Raises:
        ValueError: for a feature that does not exist, or none, or a width below 1.

    Example:
        >>> from metalr import LRPolicy
        >>> policy = LRPolicy.load("anytime")
        >>> policy.anytime
        True
        >>> policy.save("mine.safetensors")
        >>> LRPolicy.load("mine.safetensors").fingerprint() == policy.fingerprint()
        True
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
        self.support = Support(len(self.features))
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
    def anytime(self) -> bool:
        """Whether it works without a horizon: it reads none of the features that need one."""
        return not any(name in HORIZON_FEATURES for name in self.features)

    @property
    def reads_validation(self) -> bool:
        """Whether it reads a validation loss, where one is given."""
        return not set(VALIDATION_FEATURES).isdisjoint(self.features)

    @property
    def reads_epochs(self) -> bool:
        """Whether it reads how often the run goes over its training data, where that is known."""
        return not set(EPOCH_FEATURES).isdisjoint(self.features)

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, features: Tensor) -> Tensor:
        """Computes the actions (R,) for all features, (R, len(FEATURES)), of which it picks its own columns."""
        return self.action(self.select(features))

    def action(self, read: Tensor) -> Tensor:
        """Computes the actions (R,) for the features that it reads, (R, len(self.features))."""
        return cast(Tensor, self.function(differentiable=True).action(TORCH, read))

    def function(self, differentiable: bool = False) -> PolicyFunction:
        """Gives its function, with its own weights, for the batched runs of meta-training.

        Args:
            differentiable: keep the weights in the graph, for backpropagation through the runs.
        """
        layers: list[tuple[Tensor, Tensor]] = [(layer.weight, layer.bias) for layer in self._linears()]
        if not differentiable:
            layers = [(weight.detach(), bias.detach()) for weight, bias in layers]
        return PolicyFunction(layers, self.columns)

    def frozen_function(self, device: torch.device | None) -> PolicyFunction:
        """Copies its function, as its weights are now, to where decisions are taken: a device, or the host (None)."""

        def copied(tensor: Tensor) -> Vector:
            return to_host_vector(tensor) if device is None else tensor.detach().to(device, copy=True)

        layers = [(copied(layer.weight), copied(layer.bias)) for layer in self._linears()]
        return PolicyFunction(layers, None if self.features == FEATURES else copied(self.columns))

    def population(self, vectors: Tensor) -> PolicyFunction:
        """Gives the function of R policies of this shape from their flat weights, (R, size), in parameter order."""
        layers: list[tuple[Vector, Vector]] = []
        start = 0
        for layer in self._linears():
            rows, columns = layer.weight.shape
            weight = vectors[:, start : start + rows * columns].reshape(-1, rows, columns)
            start += rows * columns
            layers.append((weight, vectors[:, start : start + rows]))
            start += rows
        return PolicyFunction(layers, self.columns)

    def select(self, features: Tensor) -> Tensor:
        """Picks the columns that this policy reads: (R, len(FEATURES)) -> (R, len(self.features))."""
        if self.features == FEATURES:
            return features
        return features.index_select(-1, self.columns)

    def widened(self, features: Sequence[str]) -> LRPolicy:
        """Makes a policy that reads more features and acts the same: what is new weighs nothing yet.

        Args:
            features: names out of `metalr.core.features.FEATURES`, all of its own among them.

        Raises:
            ValueError: for features that leave out one of its own, or that do not exist.

        Example:
            >>> policy = LRPolicy(["step_size"])
            >>> policy.widened(["step_size", "loss_noise"]).features
            ('step_size', 'loss_noise')
        """
        missing = [name for name in self.features if name not in features]
        if missing:
            raise ValueError(f"features={list(features)}: leave in what the policy reads already, {', '.join(missing)}")
        wide = LRPolicy(features, self.hidden, card=self.card)
        state = {name: part for name, part in self.state_dict().items() if not name.startswith("support.")}
        first = torch.zeros(self.hidden[0] if self.hidden else 1, len(features))
        first[:, [wide.features.index(name) for name in self.features]] = state["layers.0.weight"].cpu()
        wide.load_state_dict(wide.state_dict() | state | {"layers.0.weight": first})
        return wide

    def learn_support(self, states: Tensor) -> None:
        """Sets `support` to where the states lie.

        Args:
            states: all features of N steps of the meta-training, as `observe` gives them, (N, len(FEATURES)).

        Raises:
            ValueError: for fewer than 1,000 states, or any that is not finite.
        """
        self.support.learn(self.select(states))

    def fingerprint(self) -> str:
        """Hashes features, weights and support: policies that set different rates have different fingerprints."""
        return checksum({"features": repr(self.features)}, self.state_dict())[:16]

    def save(self, path: str | Path) -> None:
        """Writes the policy with its feature schema, its support and a checksum to a safetensors file."""
        policy_file.write(path, PolicyFile(self.features, self.hidden, self.card, self.state_dict()))

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
        policy.load_state_dict(policy.state_dict() | content.tensors)
        return policy.requires_grad_(False).eval()


def policy_for(policy: str | Path | LRPolicy, total_steps: int | None, optimizer: Optimizer) -> LRPolicy:
    """Loads the policy of a run.

    Args:
        policy: as given to `metalr.MetaLR`; "default" for the one of the horizon's mode and the optimizer's class.
        total_steps: T; None in the anytime mode.
        optimizer: whose class may name policies of its own.

    Raises:
        ValueError: for a policy of the other mode.
        FileNotFoundError: for a policy that does not exist.
    """
    if policy == "default":
        with_horizon, anytime = getattr(optimizer, "lr_policies", ("default", "anytime"))
        policy = anytime if total_steps is None else with_horizon
    if not isinstance(policy, LRPolicy):
        policy = LRPolicy.load(policy)
    if not policy.anytime and total_steps is None:
        raise ValueError(
            "policy reads the progress of the run, and total_steps is None: give total_steps, or policy='anytime'"
        )
    if policy.anytime and total_steps is not None:
        raise ValueError(
            f"policy was trained for the anytime mode, and total_steps={total_steps}: leave total_steps out, or "
            "give policy='default'"
        )
    return policy
