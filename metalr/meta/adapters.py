"""Partly trained networks: low-rank adapters on a frozen body, or a head on it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vmap

from metalr.meta.net import Net, Params, Shapes


@dataclass(frozen=True)
class Adapted(Net):
    """Trains some tensors of a network as they are and others by a low-rank product, and freezes the rest.

    An adapted tensor W (in, out) is computed as W + A B, with A (in, rank) and B (rank, out) trained (Hu et al. 2022,
    LoRA, with alpha = rank). The frozen values of each run stand in `NetworkTask.frozen`, so that neither the
    optimizer nor the norms that the policy sees hold them, as for parameters that are not given to an optimizer.

    Attributes:
        net: the network.
        trained: names of the tensors that are trained as they are.
        adapted: names of the tensors, of two dimensions, that have an adapter; none of `trained`.
        rank: of the adapters.
    """

    net: Net
    trained: tuple[str, ...] = ("head",)
    adapted: tuple[str, ...] = ()
    rank: int = 4

    def __post_init__(self) -> None:
        """Checks the names."""
        known = self.net.shapes
        unknown = [name for name in (*self.trained, *self.adapted) if name not in known]
        if unknown or set(self.trained) & set(self.adapted):
            raise ValueError(
                f"trained={self.trained}, adapted={self.adapted}: give different names out of {', '.join(known)}"
            )
        if not self.trained and not self.adapted:
            raise ValueError("trained=() and adapted=(): name a tensor that is trained")
        if self.rank < 1 or any(len(known[name]) != 2 for name in self.adapted):
            raise ValueError(f"rank={self.rank}, adapted={self.adapted}: give a rank of 1 or more and matrices")

    @property
    def shapes(self) -> Shapes:
        """Of what is trained: the adapters, whose names end in ".A" and ".B", and the trained tensors."""
        shapes: Shapes = {}
        for name in self.adapted:
            rows, columns = self.net.shapes[name]
            shapes |= {f"{name}.A": (rows, self.rank), f"{name}.B": (self.rank, columns)}
        return shapes | {name: self.net.shapes[name] for name in self.trained}

    @property
    def frozen_shapes(self) -> Shapes:
        """Of all other tensors of the network."""
        return {name: shape for name, shape in self.net.shapes.items() if name not in self.trained}

    @property
    def noise_size(self) -> int:
        """The network's."""
        return self.net.noise_size

    def loss(self, params: Params, inputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the network's loss."""
        return self.net.loss(self._merged(params), inputs, targets)

    def training_loss(self, params: Params, inputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Computes the network's loss with dropout."""
        return self.net.training_loss(self._merged(params), inputs, targets, noise)

    def _merged(self, params: Params) -> Params:
        merged = {name: params[name] for name in self.net.shapes}
        for name in self.adapted:
            merged[name] = merged[name] + params[f"{name}.A"] @ params[f"{name}.B"]
        return merged

    def divide(self, theta: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Splits the network's parameters (P, net.size) into what is trained (P, size) and frozen, with new adapters.

        A is drawn uniformly as torch's linear layers are, B is zero: the network computes what it did.
        """
        params = {name: piece.flatten(1) for name, piece in vmap(self.net.unflatten)(theta).items()}
        pieces = []
        for name in self.adapted:
            rows, columns = self.net.shapes[name]
            first = torch.empty(len(theta), rows * self.rank).uniform_(-1.0, 1.0, generator=generator)
            pieces += [first / rows**0.5, theta.new_zeros(len(theta), self.rank * columns)]
        own = torch.cat([*pieces, *(params[name] for name in self.trained)], dim=1)
        rest = [params[name] for name in self.frozen_shapes]
        return own, torch.cat(rest, dim=1) if rest else theta.new_zeros(len(theta), 0)
