"""MetaLR: policy, features and law on one torch optimizer."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from metalr.direction import direction_of
from metalr.features import FEATURES, Memory, observe
from metalr.law import Clock, advance, clock
from metalr.policy import LRPolicy
from metalr.sample import LIMIT, ParameterSample
from metalr.signals import Signals, measure

STATE_VERSION = 2
"""Version of `MetaLR.state_dict`; 2 keeps the gradients of SGD without momentum and of Nesterov's."""


@dataclass(frozen=True)
class Contribution:
    """One feature of a decision.

    Attributes:
        value: what the policy read, in [-3, 3].
        nats: what it added to the change of the log learning rate.
    """

    value: float
    nats: float


@dataclass(frozen=True)
class Explanation:
    """The last decision: s_t = s_{t-1} + change, change = sum of the features' nats + constant.

    Attributes:
        step: optimizer step that the decision is for, from 0.
        displacement: s_t, nats: log of the rate over its reference schedule.
        change: s_t - s_{t-1} before the bound on |s|, nats.
        constant: part of the change that no feature's value explains (the policy's biases), nats.
        features: by name.
    """

    step: int
    displacement: float
    change: float
    constant: float
    features: dict[str, Contribution]


class MetaLR:
    """Sets the learning rate of a torch optimizer at each step, by a meta-trained policy.

    Call `step(loss)` between `backward()` and `optimizer.step()`::

        meta_lr = MetaLR(optimizer, total_steps=10_000)
        for x, y in loader:
            loss = criterion(model(x), y)
            optimizer.zero_grad(); loss.backward()
            meta_lr.step(loss)
            optimizer.step()

    The optimizer's own rates are the initial ones, lr_g(0): any within some four decades of a good one will do.
    Groups keep their ratios.

    Args:
        optimizer: any torch optimizer but LBFGS; its gradients may be sparse, and its parameters sharded as DTensor
            (FSDP2, tensor parallelism). SGD with momentum, Adam and AdamW are read off their state; for any other,
            the change of the sampled parameters is measured, of which one copy is kept.
        total_steps: horizon T, optimizer steps. Without one, the policy works in the anytime mode: no reference
            schedule, and a policy that was trained for that.
        policy: "default" (the shipped one for the horizon's mode), another shipped name, a path, or an `LRPolicy`.
        sample: elements of the parameters that norms and products are measured on, so that a step's cost does not
            grow with the model; a model with fewer is measured whole.

    Raises:
        ValueError: for a horizon below 1, an optimizer with no parameters or a rate that is not finite and
            positive, or a policy that needs a horizon where there is none.
        FileNotFoundError: for a policy that does not exist.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        policy: str | Path | LRPolicy = "default",
        sample: int = LIMIT,
    ) -> None:
        if sample < 1:
            raise ValueError(f"sample={sample}: give the number of elements to measure, 1 or more")
        self.optimizer = optimizer
        self._total_steps = _checked_horizon(total_steps)
        _check_optimizer(optimizer)
        self.base_lrs = [_initial_lr(group, index) for index, group in enumerate(optimizer.param_groups)]
        self.policy = _resolve_policy(policy, self._total_steps).to(_device(optimizer))
        self._direction = direction_of(optimizer)
        self._sample_limit = sample
        self._sample = ParameterSample(optimizer, sample)
        self._step = 0
        self._warned = False
        self._memory = Memory.empty(1, _device(optimizer))
        self._displacement = torch.zeros(1, device=_device(optimizer))
        self._change = torch.zeros(1, device=_device(optimizer))
        self._features: Tensor | None = None
        self._finite: Tensor | None = None
        self._last_lr = list(self.base_lrs)

    @property
    def total_steps(self) -> int | None:
        """The horizon T; it may be moved while the run goes on, but not given up or taken up."""
        return self._total_steps

    @total_steps.setter
    def total_steps(self, value: int | None) -> None:
        value = _checked_horizon(value)
        if (value is None) != (self._total_steps is None):
            raise ValueError(
                f"total_steps={value}: this run began with total_steps={self._total_steps}, and the two modes "
                "have different policies; make a new MetaLR to change the mode"
            )
        self._total_steps = value

    @property
    def last_lr(self) -> list[float]:
        """The rate of each group as set last."""
        return list(self._last_lr)

    def get_last_lr(self) -> list[float]:
        """The same, as torch's schedulers name it."""
        return self.last_lr

    @property
    def last_step(self) -> int:
        """Number of decisions taken."""
        return self._step

    @property
    def displacement(self) -> float:
        """s_t, nats: the log of the rate over its reference schedule."""
        return float(self._displacement)

    @property
    def last_change(self) -> float:
        """s_t - s_{t-1}, nats: what the last decision did to the log rate, beside the reference schedule."""
        return float(self._change)

    @torch.no_grad()
    def step(self, loss: Tensor | float) -> None:
        """Measures this step, decides, and sets every group's "lr".

        A loss or gradient that is not finite halves the rate, and the policy forgets it. Whether the optimizer
        applies it is the loop's to say.

        In a loop of your own: with a GradScaler, call `scaler.unscale_(optimizer)` first, and leave this out on a
        step that the scaler will skip; under DDP, give the loss averaged over the ranks, so that all of them decide
        alike. `MetaLRCallback` does both.

        Args:
            loss: of this step's batch (the mean over an accumulation window), a scalar; it may have any sign.

        Raises:
            ValueError: for a loss that is no scalar, or not finite at the first step.
            RuntimeError: when no parameter has a gradient.
        """
        loss = self._checked_loss(loss)
        self._adopt_new_groups()
        self._warn_beyond_horizon()
        now = self._clock()
        if not self._sample.fits(self.optimizer.param_groups):
            self._sample = ParameterSample(self.optimizer, self._sample_limit)
            self._direction.forget()
        signals = measure(loss, self.optimizer, self.base_lrs, self._direction, self._sample)
        self._decide(signals, now)
        factor = float(torch.exp(now.log_reference + self._displacement))
        self._set([base * factor for base in self.base_lrs])
        self._direction.remember(self._sample)
        self._step += 1

    def _clock(self, step: int | None = None) -> Clock:
        return clock(self._step if step is None else step, self._total_steps, _device(self.optimizer))

    def _decide(self, signals: Signals, now: Clock) -> None:
        self._memory, self._features, self._finite = observe(self._memory, signals, self._displacement, now)
        before, output = self._displacement, self.policy(self._features)
        self._displacement = advance(before, output, now, self._finite)
        self._change = self._displacement - before

    def _set(self, lrs: list[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, lrs, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        self._last_lr = lrs

    def _checked_loss(self, loss: Tensor | float) -> Tensor:
        loss = torch.as_tensor(loss, dtype=torch.float32).detach()
        if loss.numel() != 1:
            raise ValueError(f"loss has shape {tuple(loss.shape)}: give a scalar, such as loss.mean()")
        if self._step == 0 and not bool(torch.isfinite(loss)):
            raise ValueError(
                f"loss={float(loss)} at the first step: no learning rate mends that; check the model's "
                "initialisation, the data and the precision"
            )
        return loss.reshape(())

    def _adopt_new_groups(self) -> None:
        """A group added while the run goes on brings its own initial rate."""
        groups = self.optimizer.param_groups
        for index in range(len(self.base_lrs), len(groups)):
            self.base_lrs.append(_initial_lr(groups[index], index))

    def _warn_beyond_horizon(self) -> None:
        if self._total_steps is not None and self._step >= self._total_steps and not self._warned:
            self._warned = True
            warnings.warn(
                f"the run goes on beyond total_steps={self._total_steps}, where the rate has come to its end; "
                "set meta_lr.total_steps to the number of steps that you mean to take",
                stacklevel=3,
            )

    def explain(self) -> Explanation:
        """The features of the last decision, by name, and what each added to it.

        A ReLU network is linear around every point: a feature's part is its value times the output's derivative
        with respect to it, in proportion of the bounded change. The parts and the constant sum to the change.

        Raises:
            RuntimeError: before the first decision.
        """
        if self._features is None or self._finite is None:
            raise RuntimeError("explain() before the first step(loss): there is no decision yet")
        now = self._clock(self._step - 1)
        features = self._features.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            output = self.policy(features)
            (slope,) = torch.autograd.grad(output.sum(), features)
        zero = torch.zeros_like(self._displacement)
        change = float(advance(zero, output.detach(), now, self._finite))
        output_value = float(output.detach())
        scale = change / output_value if bool(self._finite) and output_value != 0.0 else 0.0
        nats = (slope * features.detach() * scale)[0].tolist()
        values = features.detach()[0].tolist()
        parts = {name: Contribution(values[i], nats[i]) for i, name in enumerate(FEATURES) if name in self._names()}
        constant = change - sum(part.nats for part in parts.values())
        return Explanation(self._step - 1, self.displacement, change, constant, parts)

    def _names(self) -> tuple[str, ...]:
        return self.policy.features

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs to go on with the same rates: tensors, numbers and strings only."""
        return {
            "version": STATE_VERSION,
            "policy": _fingerprint(self.policy),
            "step": self._step,
            "total_steps": self._total_steps,
            "base_lrs": list(self.base_lrs),
            "last_lr": list(self._last_lr),
            "displacement": self._displacement.clone(),
            "memory": {name: value.clone() for name, value in self._memory._asdict().items()},
            "direction": self._direction.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`; the horizon stays the one that this object was made with.

        Raises:
            ValueError: for a state of another version, policy, or mode.
        """
        version = state.get("version")
        if version != STATE_VERSION:
            newer = isinstance(version, int) and version > STATE_VERSION
            raise ValueError(
                f"state has version {version}, this metalr reads {STATE_VERSION}: "
                + ("upgrade metalr to resume from it" if newer else "resume with the older metalr that wrote it")
            )
        if state["policy"] != _fingerprint(self.policy):
            raise ValueError("state was written with another policy; pass the same policy= to go on with it")
        if (state["total_steps"] is None) != (self._total_steps is None):
            raise ValueError(
                f"state has total_steps={state['total_steps']}, this run {self._total_steps}: one of them is in "
                "the anytime mode; give total_steps to both or to neither"
            )
        if len(state["base_lrs"]) > len(self.optimizer.param_groups):
            raise ValueError(
                f"state has {len(state['base_lrs'])} parameter groups, the optimizer "
                f"{len(self.optimizer.param_groups)}: make the optimizer with the groups that it had"
            )
        device = _device(self.optimizer)
        self._step = int(state["step"])
        self.base_lrs = [float(lr) for lr in state["base_lrs"]]
        self._last_lr = [float(lr) for lr in state["last_lr"]]
        self._displacement = state["displacement"].to(device, copy=True)
        self._memory = Memory(**{name: value.to(device, copy=True) for name, value in state["memory"].items()})
        self._direction.load_state_dict(state["direction"])
        self._features = self._finite = None


def _checked_horizon(total_steps: int | None) -> int | None:
    if total_steps is None:
        return None
    if isinstance(total_steps, bool) or total_steps != int(total_steps) or total_steps < 1:
        raise ValueError(
            f"total_steps={total_steps}: give the number of optimizer steps of the whole run, 1 or more, "
            "or None where it is unknown"
        )
    return int(total_steps)


def _check_optimizer(optimizer: Optimizer) -> None:
    if not any(group["params"] for group in optimizer.param_groups):
        raise ValueError("optimizer has no parameters: give it the model's, as in SGD(model.parameters(), lr=0.1)")
    if isinstance(optimizer, LBFGS):
        raise ValueError("optimizer is LBFGS, which searches for its own step size; use it without MetaLR")


def _initial_lr(group: dict[str, Any], index: int) -> float:
    lr = float(group["lr"])
    if not 0.0 < lr < float("inf"):
        raise ValueError(f"param_groups[{index}]['lr']={lr}: give a finite initial rate above 0")
    return lr


def _resolve_policy(policy: str | Path | LRPolicy, total_steps: int | None) -> LRPolicy:
    if not isinstance(policy, LRPolicy):
        policy = LRPolicy.load("anytime" if policy == "default" and total_steps is None else policy)
    if policy.needs_horizon and total_steps is None:
        raise ValueError(
            "policy reads the progress of the run, and total_steps is None: give total_steps, or policy='anytime'"
        )
    if not policy.needs_horizon and total_steps is not None:
        raise ValueError(
            f"policy was trained for the anytime mode, and total_steps={total_steps}: leave total_steps out, or "
            "give policy='default'"
        )
    return policy


def _device(optimizer: Optimizer) -> torch.device:
    device: torch.device = next(p for group in optimizer.param_groups for p in group["params"]).device
    return device


def _fingerprint(policy: LRPolicy) -> str:
    digest = hashlib.sha256(repr(policy.features).encode())
    for parameter in policy.parameters():
        digest.update(repr(parameter.detach().float().flatten().tolist()).encode())
    return digest.hexdigest()[:16]
