"""Records the decisions of a controller: copied on their device at the step, worked out on the host in batches."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metalr.core.controller import MetaLR
from metalr.core.explanation import Snapshot, attribute
from metalr.core.guards import GUARDS
from metalr.core.policy import LRPolicy
from metalr.core.update_rule import Clock, bounds, clock_row, log_reference
from metalr.inspection.decimation import Decimation
from metalr.inspection.store import check_names
from metalr.inspection.trace import Trace


class Recorder:
    """Records the decisions of one `MetaLR`, with what each feature contributed, in a training loop without a Trainer.

    Call `offer` after each optimizer step. It costs a comparison at a step that is not kept, and some copies at one
    that is; it never waits for a device. `resolve` brings what is pending to the host.

    Args:
        controller: whose decisions from now on are recorded.
        decimation: selects the decisions to keep; None for the first 32 and 512 of the others at most.

    Attributes:
        trace: decisions that have been resolved.

    Example:
        >>> import torch
        >>> from metalr import MetaLR
        >>> from metalr.inspection import Recorder
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = torch.optim.SGD([weight], lr=0.1)
        >>> meta_lr = MetaLR(optimizer, total_steps=10)
        >>> recorder = Recorder(meta_lr)
        >>> for _ in range(10):
        ...     loss = weight.square().sum()
        ...     optimizer.zero_grad()
        ...     loss.backward()
        ...     meta_lr.step(loss)
        ...     optimizer.step()
        ...     kept = recorder.offer()
        >>> recorder.finish()
        >>> recorder.resolve()
        >>> len(recorder.trace), len(recorder.trace.shares) == len(meta_lr.policy.features)
        (10, True)
    """

    def __init__(self, controller: MetaLR, decimation: Decimation | None = None) -> None:
        self.controller = controller
        self.policy = controller.policy
        self.decimation = decimation or Decimation()
        self.trace = Trace.empty(self.policy.features)
        self._fresh = self.trace
        self._pending: list[tuple[float, Snapshot]] = []
        self._last = -1
        self._seen = controller.last_step
        self._left_out = False

    @property
    def pending(self) -> int:
        """Number of decisions that are kept and not resolved yet."""
        return len(self._pending)

    def offer(self) -> bool:
        """Keeps the controller's last decision if it is new and due, and returns whether it was."""
        taken = self.controller.last_step
        if taken == self._seen:
            return False
        self._seen = taken
        self._left_out = not self.decimation.due(taken - 1, self._last)
        if not self._left_out:
            self._take()
        return not self._left_out

    def finish(self) -> None:
        """Keeps the last decision of a run, due or not."""
        if self._left_out:
            self._take()

    def _take(self) -> None:
        self._pending.append((time.time(), self.controller.snapshot()))
        self._last, self._left_out = self.controller.last_step - 1, False

    def resolve(self) -> None:
        """Moves the pending decisions with their contributions to the trace, and decimates it; waits for the device."""
        if not self._pending:
            return
        found = _resolve(self.policy, self._pending)
        self._pending = []
        self._fresh = self._fresh.joined(found)
        joined = self.trace.joined(found)
        self.trace = joined.select(self.decimation.keep(joined.step))

    def drain(self) -> Trace:
        """Resolves, and returns the decisions since the last call, for a log; the trace keeps them, too."""
        self.resolve()
        fresh, self._fresh = self._fresh, Trace.empty(self.policy.features)
        return fresh

    def state_dict(self) -> dict[str, Any]:
        """Returns the trace as tensors and numbers, for a checkpoint."""
        self.resolve()
        arrays = {name: torch.from_numpy(array.copy()) for name, array in self.trace.arrays.items()}
        return {"stride": self.decimation.stride, "arrays": arrays}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, for the same policy.

        Raises:
            ValueError: for a state of another version of metalr.
        """
        check_names(state["arrays"], Trace.array_names(), "the recorder's state")
        self.decimation.stride = int(state["stride"])
        arrays = {name: tensor.numpy().copy() for name, tensor in state["arrays"].items()}
        missing = len(GUARDS) - arrays["counts"].shape[1]  # guards that are newer than the state
        arrays["counts"] = np.pad(arrays["counts"], ((0, 0), (0, missing)))
        self.trace = Trace(self.policy.features, **arrays)
        self._last = int(self.trace.step[-1]) if len(self.trace) else -1


def _resolve(policy: LRPolicy, pending: list[tuple[float, Snapshot]]) -> Trace:
    seen = [snapshot for _, snapshot in pending]
    device = policy.columns.device
    clocks = torch.tensor([clock_row(one.step, one.total_steps) for one in seen], dtype=torch.float32, device=device)
    read = policy.select(_host([one.features for one in seen]).to(device))
    finite = _host([one.finite for one in seen])
    found = attribute(policy, read, Clock.from_row(clocks.T), finite.to(device))
    log_multiplier = _host([one.log_multiplier for one in seen]).double().numpy()
    reference = np.array([one.base_lr * math.exp(log_reference(one.step, one.total_steps)) for one in seen])
    return Trace(
        features=policy.features,
        step=np.array([one.step for one in seen], dtype=np.int64),
        time=np.array([moment for moment, _ in pending]),
        lr=reference * np.exp(log_multiplier),
        reference=reference,
        loss=_host([one.loss for one in seen]).double().numpy(),
        log_multiplier=log_multiplier,
        change=_host([one.change for one in seen]).double().numpy(),
        bound=np.array([max(bounds(one.step, one.total_steps)) for one in seen]),
        constant=found.constant.double().cpu().numpy(),
        values=read.double().cpu().numpy(),
        contributions=found.contributions.double().cpu().numpy(),
        counts=_host([one.counts.T for one in seen]).long().numpy(),
    )


def _host(parts: list[Tensor]) -> Tensor:
    """Joins N parts on their device, and brings them to the host at once."""
    return torch.cat(parts).cpu()
