"""Where a run began, and the sum of its gradients since, on the sample: what a distance is estimated from.

How far the first weights lie from random ones is measured here too, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metalr.core.sample import GroupSample
from metalr.core.weight_structure import structure_sums


class Origin:
    """Remembers the first parameters w_0 and s = sum_k g_k of each parameter group: two copies of the sample.

    A group whose sample changes while the run goes on (parameters that are unfrozen) starts over, and so do all groups
    of sharded parameters in a resumed run: each rank has copies of its own, and one of them writes the state.
    """

    def __init__(self) -> None:
        self._start: dict[int, Tensor] = {}
        self._sum: dict[int, Tensor] = {}
        self._structure: dict[int, Tensor] = {}

    def measure(self, index: int, grad: Tensor, parameters: Tensor, sample: GroupSample) -> Tensor:
        """Takes one step of a group into the sum, and measures.

        Args:
            index: of the group.
            grad: its gradients on the sample, (n,).
            parameters: on the sample, (n,).
            sample: of the group.

        Returns:
            |w - w_0|^2, <g, w_0 - w>, |s|^2 and |s|_1, the latter two with this step's gradient, and
            `metalr.core.weight_structure.structure_sums` of w_0, (6,).
        """
        start = self._start.get(index)
        if start is None or start.shape != parameters.shape:
            start = self._start[index] = parameters.clone()
            self._sum[index] = torch.zeros_like(parameters)
            matrices = structure_sums(part[None] for part in sample.local_parameters())
            self._structure[index] = matrices[:, 0].to(parameters)
        total = self._sum[index].add_(grad.nan_to_num(0.0, 0.0, 0.0))  # one overflow would stay for ever
        grad, travelled, weighed = (sample.scaled(row) for row in (grad, start - parameters, total))
        # The sample's scale is a root: a norm of absolute values needs it twice.
        absolute = sample.scaled(weighed).abs().sum()
        sums = (travelled.square().sum(), grad.dot(travelled), weighed.square().sum(), absolute)
        return torch.cat((torch.stack(sums), self._structure[index]))

    def state_dict(self) -> dict[str, Any]:
        """Gives the copies by the number of the group."""
        return {"start": dict(self._start), "sum": dict(self._sum), "structure": dict(self._structure)}

    def load_state_dict(self, state: dict[str, Any], devices: Sequence[torch.device]) -> None:
        """Restores `state_dict`, each group's copies onto its device."""
        for name, copies in (("start", self._start), ("sum", self._sum), ("structure", self._structure)):
            copies.clear()
            copies.update({i: part.to(devices[i], copy=True) for i, part in state.get(name, {}).items()})
