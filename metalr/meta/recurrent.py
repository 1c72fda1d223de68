"""Recurrent networks on tokens: a GRU or an LSTM."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from metalr.meta.architectures import cross_entropy, with_embeddings
from metalr.meta.net import Net, Params, Shapes

_GATES = {"gru": 3, "lstm": 4}


@dataclass(frozen=True)
class Recurrent(Net):
    """Describes a recurrent network with embeddings, which computes what torch.nn.GRU or torch.nn.LSTM does.

    Without classes it predicts each next token of (B, L + 1) tokens, without the targets; with classes, the class (B,)
    of (B, L) tokens, from the last state.

    Attributes:
        cell: "gru" (Cho et al. 2014, with the reset after the product, as torch's) or "lstm" (Hochreiter and
            Schmidhuber 1997, with a forget gate).
        width: of the embeddings and of the states.
        classes: number of classes of a classifier, or 0.
    """

    vocabulary: int = 16
    length: int = 8
    width: int = 24
    layers: int = 1
    cell: str = "gru"
    classes: int = 0

    @property
    def shapes(self) -> Shapes:
        """Shapes of the embeddings, of each layer's weights from inputs and from states, and of the head."""
        w, gates = self.width, _GATES[self.cell] * self.width
        shapes: Shapes = {"token": (self.vocabulary, w)}
        for i in range(self.layers):
            shapes |= {f"x{i}": (w, gates), f"h{i}": (w, gates), f"b{i}": (gates,)}
            shapes |= {f"n{i}": (w,)} if self.cell == "gru" else {}
        out = self.classes or self.vocabulary
        return shapes | {"head": (w, out), "bias": (out,)}

    def loss(self, params: Params, inputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the cross entropy of the next tokens, or of the class."""
        x = F.embedding(inputs if self.classes else inputs[:, :-1], params["token"])
        for i in range(self.layers):
            x = self.states(params, i, x)
        if self.classes:
            return cross_entropy(x[:, -1] @ params["head"] + params["bias"], targets)
        logits = (x @ params["head"] + params["bias"]).flatten(0, 1)
        return cross_entropy(logits, inputs[:, 1:].flatten())

    def states(self, params: Params, layer: int, inputs: Tensor) -> Tensor:
        """Computes a layer's states (B, L, width) from inputs (B, L, width), from a state of zeros."""
        of_inputs = inputs @ params[f"x{layer}"] + params[f"b{layer}"]
        state = memory = torch.zeros_like(inputs[:, 0])
        states = []
        for step in of_inputs.unbind(1):
            of_state = state @ params[f"h{layer}"]
            if self.cell == "gru":
                state = self._gru(step, of_state, state, params[f"n{layer}"])
            else:
                state, memory = self._lstm(step + of_state, memory)
            states.append(state)
        return torch.stack(states, dim=1)

    @staticmethod
    def _gru(step: Tensor, of_state: Tensor, state: Tensor, bias: Tensor) -> Tensor:
        """Computes a GRU's new state; gates are in torch's order: reset, update, new."""
        reset, update, new = step.chunk(3, dim=-1)
        own_reset, own_update, own_new = of_state.chunk(3, dim=-1)
        new = torch.tanh(new + (reset + own_reset).sigmoid() * (own_new + bias))
        return new + (update + own_update).sigmoid() * (state - new)

    @staticmethod
    def _lstm(gates: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Computes an LSTM's new state and memory; gates are in torch's order: input, forget, new, output."""
        enter, keep, new, leave = gates.chunk(4, dim=-1)
        memory = keep.sigmoid() * memory + enter.sigmoid() * new.tanh()
        return leave.sigmoid() * memory.tanh(), memory

    def initialise(self, runs: int, generator: torch.Generator) -> Tensor:
        """Samples initial parameters, (runs, size); embeddings have a scale of their own, in 0.02 to 1, in each run."""
        return with_embeddings(super().initialise(runs, generator), self.vocabulary * self.width, generator)
