"""Keeps decisions of a run: a copy where they lie at the step, all that is worked out of them later, many at once."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metalr.core.controller import MetaLR
from metalr.core.explanation import Snapshot, attribute
from metalr.core.policy import LRPolicy
from metalr.core.update_rule import Clock, clock_row
from metalr.inspection.decimation import Decimation
from metalr.inspection.trace import Trace


class Recorder:
    """Keeps the decisions of one controller.

    `offer` costs a comparison at a step that is not kept, and some copies at one that is; it never waits for a
    device. `resolve` brings what is pending to the host.

    Args:
        controller: whose decisions from here on are kept.
        decimation: which of them.

    Attributes:
        trace: decisions that are resolved.
    """

    def __init__(self, controller: MetaLR, decimation: Decimation) -> None:
        self.controller = controller
        self.policy = controller.policy
        self.decimation = decimation
        self.trace = Trace.empty(self.policy.features)
        self._fresh = self.trace
        self._pending: list[tuple[float, Snapshot]] = []
        self._last = -1
        self._seen = controller.last_step
        self._left_out = False

    @property
    def pending(self) -> int:
        """Decisions that are not resolved yet."""
        return len(self._pending)

    def offer(self) -> bool:
        """Keeps the last decision where it is a new one and due; tells whether it was."""
        taken = self.controller.last_step
        if taken == self._seen:
            return False
        self._seen = taken
        self._left_out = not self.decimation.due(taken - 1, self._last)
        if not self._left_out:
            self._take()
        return not self._left_out

    def finish(self) -> None:
        """Keeps the last decision in any case, at the end of a run."""
        if self._left_out:
            self._take()

    def _take(self) -> None:
        self._pending.append((time.time(), self.controller.snapshot()))
        self._last, self._left_out = self.controller.last_step - 1, False

    def resolve(self) -> None:
        """Works out what is pending, and thins the trace."""
        if not self._pending:
            return
        found = _resolve(self.policy, self._pending)
        self._pending = []
        self._fresh = self._fresh.joined(found)
        joined = self.trace.joined(found)
        self.trace = joined.select(self.decimation.keep(joined.step))

    def drain(self) -> Trace:
        """The decisions since the last call, thinned or not, to be logged."""
        self.resolve()
        fresh, self._fresh = self._fresh, Trace.empty(self.policy.features)
        return fresh

    def state_dict(self) -> dict[str, Any]:
        """All of it as tensors, numbers and strings, for a checkpoint."""
        self.resolve()
        arrays = {name: torch.from_numpy(array.copy()) for name, array in self.trace.arrays.items()}
        return {"stride": self.decimation.stride, "arrays": arrays}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict`, with the same policy."""
        self.decimation.stride = int(state["stride"])
        arrays = {name: tensor.numpy().copy() for name, tensor in state["arrays"].items()}
        self.trace = Trace(self.policy.features, **arrays)
        self._last = int(self.trace.step[-1]) if len(self.trace) else -1


def _resolve(policy: LRPolicy, pending: list[tuple[float, Snapshot]]) -> Trace:
    seen = [snapshot for _, snapshot in pending]
    rows = np.array([clock_row(one.step, one.total_steps) for one in seen])
    table = torch.tensor(rows, dtype=torch.float32).T
    host = policy.columns.device
    read = policy.select(_host([one.features for one in seen]).to(host))
    finite = _host([one.finite for one in seen])
    found = attribute(policy, read, Clock.from_row(table.to(host)), finite.to(host))
    log_multiplier = _host([one.log_multiplier for one in seen]).double().numpy()
    base, log_reference = np.array([one.base_lr for one in seen]), rows[:, 2]
    return Trace(
        features=policy.features,
        step=np.array([one.step for one in seen], dtype=np.int64),
        time=np.array([moment for moment, _ in pending]),
        lr=base * np.exp(log_reference + log_multiplier),
        reference=base * np.exp(log_reference),
        loss=_host([one.loss for one in seen]).double().numpy(),
        log_multiplier=log_multiplier,
        change=_host([one.change for one in seen]).double().numpy(),
        bound=rows[:, 3].copy(),
        constant=found.constant.double().cpu().numpy(),
        values=read.double().cpu().numpy(),
        nats=found.contributions.double().cpu().numpy(),
        counts=_host([one.counts.T for one in seen]).long().numpy(),
    )


def _host(parts: list[Tensor]) -> Tensor:
    """N parts, joined where they lie and brought to the host at once."""
    return torch.cat(parts).cpu()
