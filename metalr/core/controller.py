"""MetaLR: features, policy and update rule on one torch optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from metalr.core.backend import TORCH, to_tensor
from metalr.core.checks import check_loss, check_optimizer, check_scalar, checked_horizon, checked_steps_per_epoch
from metalr.core.decider import Decider, device_of_rates
from metalr.core.direction import direction_of
from metalr.core.explanation import Explanation, Snapshot, explain
from metalr.core.features import FEATURES, ORIGIN_FEATURES
from metalr.core.graph_checks import WARM_UP, check_graph
from metalr.core.groups import GroupRates
from metalr.core.guard_record import GuardEvent, GuardRecord
from metalr.core.guards import DEFAULT_GUARDS, Guards
from metalr.core.lr_limits import Limit, LRLimits
from metalr.core.origin import Origin
from metalr.core.policy import LRPolicy, policy_for
from metalr.core.restore import Restore
from metalr.core.sample import LIMIT, ParameterSample
from metalr.core.signals import measure
from metalr.core.state_checks import STATE_VERSION, check_state
from metalr.core.steps import StepWatch


class MetaLR:
    """Sets the learning rate of a torch optimizer at each step, by a meta-trained policy.

    Call `step(loss)` between `backward()` and `optimizer.step()`. The optimizer's own rates are the initial ones,
    lr_g(0): any within some four decades of a good one will do. Groups keep their ratios.

    Args:
        optimizer: any torch optimizer but LBFGS; its gradients may be sparse, and its parameters sharded as DTensor
            (FSDP2, tensor parallelism). SGD with momentum, Adam and AdamW are read off their state; for any other,
            the change of the sampled parameters is measured, of which one copy is kept.
        total_steps: horizon T, optimizer steps. Without one, the policy works in the anytime mode: no reference
            schedule, and a policy that was trained for that.
        policy: "default" (the shipped one for the horizon's mode, or that which the optimizer's class names by an
            attribute `lr_policies`, as boosted trees' do), another shipped name, a path, or an `LRPolicy`.
        sample: elements of the parameters that norms and products are measured on, so that a step's cost does not
            grow with the model; a model with fewer is measured whole.
        guards: what keeps the rate from doing harm; `Guards.none()` for nothing. `events` lists what they did.
        min_lr: smallest rate, in the optimizer's own unit: for all groups, or one for each; None for no limit.
        max_lr: largest rate, likewise: the group that comes to its limit first holds the others back, so that groups
            keep their ratios.
        fused: make few kernels of a decision by torch.compile, with rates that are tensors; None for wherever it
            pays, which is on a GPU with Triton.
        module: that holds the parameters: its buffers, such as the statistics of a batch norm, go back with them under
            `Guards(restore=...)`; None to leave them as they are.
        steps_per_epoch: optimizer steps of one pass over the training data, len(loader) in a plain loop, by which a
            policy that reads it (`LRPolicy.reads_epochs`) tells data that it sees over and over, and may memorise,
            from data without an end; None where that is unknown.

    With rates that are Python floats, as most are, a step on an accelerator waits for it once, to bring their value to
    the host; give the optimizer `lr=torch.tensor(...)` on the parameters' device, and the host waits for nothing: the
    rates are filled in place, and what the guards did is noticed when `events`, `guard_counts` or `state_dict()` is
    read. The step's number lives there, too, so that a whole step, this one included, can be captured in a CUDA graph
    after two ordinary ones, or compiled by torch.compile(fullgraph=True); see docs/cost.md.
    With `Guards(restore=...)` it waits at each step, to see a collapse at once.

    Raises:
        ValueError: for a horizon below 1, a steps_per_epoch that is not above 0, an optimizer with no parameters or a
            rate that is not finite and positive or outside of min_lr and max_lr, or a policy that needs a horizon where
            there is none.
        FileNotFoundError: for a policy that does not exist.

    Example:
        >>> import torch
        >>> from metalr import MetaLR
        >>> model = torch.nn.Linear(8, 3)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> batches = [(torch.randn(16, 8), torch.randint(3, (16,))) for _ in range(20)]
        >>> meta_lr = MetaLR(optimizer, total_steps=len(batches))
        >>> for x, y in batches:
        ...     loss = torch.nn.functional.cross_entropy(model(x), y)
        ...     optimizer.zero_grad()
        ...     loss.backward()
        ...     meta_lr.step(loss)
        ...     optimizer.step()
        >>> meta_lr.last_step
        20
        >>> meta_lr.validation(0.9)  # the next step reads it, if the policy does
        >>> meta_lr.explain().step, meta_lr.snapshot().total_steps
        (19, 20)
        >>> meta_lr.load_state_dict(meta_lr.state_dict())
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: float | None = None,
        policy: str | Path | LRPolicy = "default",
        sample: int = LIMIT,
        guards: Guards = DEFAULT_GUARDS,
        min_lr: Limit = None,
        max_lr: Limit = None,
        fused: bool | None = None,
        module: nn.Module | None = None,
        steps_per_epoch: float | None = None,
    ) -> None:
        if sample < 1:
            raise ValueError(f"sample={sample}: give the number of elements to measure, 1 or more")
        self.optimizer = optimizer
        self._total_steps = checked_horizon(total_steps)
        self._steps_per_epoch = checked_steps_per_epoch(steps_per_epoch)
        check_optimizer(optimizer)
        self._rates = GroupRates(optimizer)
        self.policy = policy_for(policy, self._total_steps, optimizer)
        self._limits = LRLimits(min_lr, max_lr)
        self._limits.check(self.base_lrs)
        device = device_of_rates(optimizer)
        self._decider = Decider(self.policy, guards, device, self._total_steps, self._steps_per_epoch, fused)
        self._record = GuardRecord(guards)
        self._restore = None if guards.restore is None else Restore(guards.restore, optimizer, module)
        self._looked_at = -1
        self._direction = direction_of(optimizer)
        self._sample_limit = sample
        self._sample = ParameterSample(optimizer, sample)
        self._origin = self._new_origin()
        self.steps = StepWatch(optimizer, self._direction, self._sample, self._rates)
        self._step = 0
        self._warm = 0
        self._in_graph = False
        self._warned = False

    @property
    def total_steps(self) -> int | None:
        """The horizon T; it may be changed during the run, but neither removed nor introduced."""
        return self._total_steps

    @total_steps.setter
    def total_steps(self, value: float | None) -> None:
        value = checked_horizon(value)
        if (value is None) != (self._total_steps is None):
            raise ValueError(
                f"total_steps={value}: this run began with total_steps={self._total_steps}, and the two modes "
                "have different policies; make a new MetaLR to change the mode"
            )
        self._total_steps = value
        self._decider.set_horizon(value)

    @property
    def steps_per_epoch(self) -> float | None:
        """Optimizer steps of one pass over the training data; None where that is unknown."""
        return self._steps_per_epoch

    @property
    def base_lrs(self) -> list[float]:
        """The initial rate of each group, lr_g(0); 0 for one that is frozen."""
        return self._rates.base

    @base_lrs.setter
    def base_lrs(self, rates: Sequence[float]) -> None:
        self._rates.rebase(rates)

    @property
    def last_lr(self) -> list[float]:
        """The rate of each group as set last."""
        factor = float(self._rates.factor)
        return [base * factor for base in self.base_lrs]

    def get_last_lr(self) -> list[float]:
        """Returns `last_lr`, under the name that torch's schedulers have."""
        return self.last_lr

    @property
    def last_step(self) -> int:
        """Number of decisions taken; where graphs take them, reading it waits for the device."""
        if self._in_graph:
            self._step = self._decider.steps()
        return self._step

    @property
    def log_multiplier(self) -> float:
        """s_t, nats: the log of the rate over its reference schedule."""
        return float(self._decider.log_multiplier)

    @property
    def last_change(self) -> float:
        """s_t - s_{t-1}, nats: what the last decision did to the log rate, beside the reference schedule."""
        return float(self._decider.change)

    @property
    def guard_counts(self) -> dict[str, int]:
        """Interventions of each guard so far, by name."""
        self._notice()
        return self._record.counts

    @property
    def events(self) -> list[GuardEvent]:
        """What the guards did, oldest first; at most the last hundred events."""
        self._notice()
        return list(self._record.events)

    @torch.no_grad()
    def step(self, loss: Tensor | float) -> None:
        """Measures this step, decides, and sets every group's "lr".

        A loss or gradient that is not finite never reaches the policy, and halves the rate unless that guard is off.
        The caller decides whether to apply the step.

        In a loop of your own: with a GradScaler, call `scaler.unscale_(optimizer)` first, and leave this out on a
        step that the scaler will skip; under DDP, give the loss averaged over the ranks, so that all of them decide
        alike. `MetaLRCallback` does both.

        Args:
            loss: of this step's batch (the mean over an accumulation window), a scalar; it may have any sign.

        Raises:
            ValueError: for a loss that is no scalar, or not finite at the first step.
            RuntimeError: when no parameter has a gradient.
            DivergenceError: when the loss diverges and `Guards(on_divergence="raise")` asks for it; the rates have
                been set.
        """
        if not self._decider.is_in_graph():
            self._step_now(loss)
        elif torch.compiler.is_compiling() and self._warm < WARM_UP:
            self._step_uncompiled(loss)
        else:
            self._step_in_graph(loss)

    def _step_now(self, loss: Tensor | float) -> None:
        check_loss(loss, self._step)
        if not self.steps.takes_decision():
            return
        if self._step == 1:
            check_optimizer(self.optimizer)  # some keep what they estimate from their first step on
        self._rates.adopt(self._step)
        self._warn_beyond_horizon()
        if not self._sample.fits(self.optimizer.param_groups):
            self._sample = self.steps.sample = ParameterSample(self.optimizer, self._sample_limit)
            self._direction.forget()
        reading, rows = measure(loss, self.optimizer, self.base_lrs, self._direction, self._sample, self._origin)
        self._rates.set(
            self._decider.decide(reading, self._step, self._total_steps, self._limits.bounds(self.base_lrs))
        )
        self._direction.remember(rows)
        restored = self._keep_or_restore()
        self._step += 1
        self._warm = min(self._warm + 1, WARM_UP)
        if (self._decider.device is None and self._decider.any_acted) or restored is not None:
            self._notice(restored)

    def _keep_or_restore(self) -> int | None:
        """Goes back to the copy of the weights where the run has collapsed, and returns its step; else keeps one."""
        restore = self._restore
        if restore is None:
            return None
        if not self._decider.has_collapsed or restore.step is None:
            restore.keep(self._step, self._decider, self._origin)
            return None
        self._origin = restore.go_back(self._step, self._decider)
        self._direction.forget()
        return restore.step

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _step_uncompiled(self, loss: Tensor | float) -> None:
        """Runs a warm-up step outside of the compiled graph."""
        self._step_now(loss)

    def _step_in_graph(self, loss: Tensor | float) -> None:
        """Records what a graph repeats: all that happens on the device, and nothing of what the host keeps."""
        self._enter_graph()
        reading, rows = measure(loss, self.optimizer, self.base_lrs, self._direction, self._sample, self._origin)
        factor = self._decider.decide_in_graph(reading, self._limits.bounds(self.base_lrs))
        self._rates.fill(factor)
        self._direction.remember(rows)

    @torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
    def _enter_graph(self) -> None:
        """Checks, once for each graph when it is made, that there may be one."""
        if self.steps.released:
            self.steps.outside()
        check_graph(self._warm, restores=self._restore is not None)
        self._in_graph = True
        self._decider.mark_decided()

    @torch.no_grad()
    def validation(self, loss: Tensor | float) -> None:
        """Gives a validation loss of the parameters as they are, whenever there is one; the next `step` reads it.

        It is ignored where it is not finite, and by a policy that reads none (`LRPolicy.reads_validation`). In a loop
        of your own under DDP, give the loss averaged over the ranks, as to `step`.

        Args:
            loss: a scalar, of the same kind and unit as the training loss.

        Raises:
            ValueError: for a loss that is no scalar.
        """
        check_scalar(loss)
        self._decider.take_validation(loss)

    @torch.no_grad()
    def set_first_rates(self) -> None:
        """Sets the rates that a first step has whatever its loss, and remembers nothing of it."""
        guards, device, epoch = self._decider.guards, self._decider.device, self._steps_per_epoch
        decider = Decider(self.policy, guards, device, self._total_steps, epoch, False)
        reading, _ = measure(0.0, self.optimizer, self.base_lrs, self._direction, self._sample, self._new_origin())
        self._rates.set(decider.decide(reading, 0, self._total_steps, self._limits.bounds(self.base_lrs)))

    def release(self) -> None:
        """Gives the optimizer up: removes all hooks from it, after which `step` raises; its rates stay as they are."""
        self.steps.release()

    def _new_origin(self) -> Origin | None:
        return None if set(ORIGIN_FEATURES).isdisjoint(self.policy.features) else Origin()

    def _notice(self, restored: int | None = None) -> None:
        """Takes what the guards did into the record; on the host, that of each step at once.

        Args:
            restored: step to which weights and optimizer have gone back.
        """
        counts, step = self._decider.counts, self.last_step - 1
        since = step - 1 if self._decider.device is None else self._looked_at
        self._looked_at = step
        if counts != list(self._record.counts.values()):
            self._record.note(counts, since, step, self.log_multiplier, self._named_features(), restored)

    def _named_features(self) -> dict[str, float]:
        values = [] if self._features is None else self._features[0].tolist()
        return {name: value for name, value in zip(FEATURES, values, strict=False) if name in self.policy.features}

    @property
    def _features(self) -> Tensor | None:
        """Features of the last decision, (1, F)."""
        features = self._decider.features
        return features if features is None or isinstance(features, Tensor) else torch.as_tensor(features).float()[None]

    def _warn_beyond_horizon(self) -> None:
        if self._total_steps is not None and self._step >= self._total_steps and not self._warned:
            self._warned = True
            warnings.warn(
                f"the run goes on beyond total_steps={self._total_steps}, where the rate has come to its end; "
                "set total_steps to the number of steps that you mean to take, as in MetaLRCallback(total_steps=...), "
                "or meta_lr.total_steps in a loop of your own",
                stacklevel=3,
            )

    def snapshot(self) -> Snapshot:
        """Copies the last decision where it lies, without waiting for a device, unless graphs take the decisions.

        Raises:
            RuntimeError: before the first decision.
        """
        decider, features = self._decider, self._features
        if features is None:
            raise RuntimeError("no decision yet: call step(loss) first")
        fast, _, _ = decider.feature_state.windows(TORCH)
        numbers = [
            to_tensor(part).float().clone() for part in (fast.loss, decider.log_multiplier, decider.change, features)
        ]
        interventions = [to_tensor(flag) for flag in decider.interventions or ()]
        others = [to_tensor(decider.finite).clone(), torch.stack(interventions), decider.counts_in_place().clone()]
        return Snapshot(self.last_step - 1, self._total_steps, self.base_lrs[0], *numbers, *others)

    def explain(self) -> Explanation:
        """Names the features of the last decision, and what each contributed to it, exactly.

        Raises:
            RuntimeError: before the first decision.
        """
        return replace(explain(self.policy, self.snapshot()), log_multiplier=self.log_multiplier)  # in full precision

    def state_dict(self) -> dict[str, Any]:
        """Returns all that a resumed run needs for the same rates: tensors, numbers and strings only."""
        self._notice()
        return {
            "version": STATE_VERSION,
            "policy": self.policy.fingerprint(),
            "step": self.last_step,
            "total_steps": self._total_steps,
            "base_lrs": list(self.base_lrs),
            "lr_factor": float(self._rates.factor),
            **self._decider.state_dict(),
            "guards": self._record.state_dict(),
            "direction": self._direction.state_dict(),
            "origin": self._origin.state_dict() if self._origin and not self._sample.is_sharded else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`; the horizon stays the one that this object was made with.

        Raises:
            ValueError: for a state of another version, policy, or mode.
        """
        check_state(state, self.policy.fingerprint(), self._total_steps, len(self.optimizer.param_groups))
        self._step = int(state["step"])
        self._looked_at = self._step - 1
        self._decider.load_state_dict(state)
        factor = self._decider.placed(float(state["lr_factor"]))
        self._rates.restore([float(lr) for lr in state["base_lrs"]], factor)
        if self._in_graph:
            self._decider.mark_decided()
        self._record.load_state_dict(state["guards"])
        self._direction.load_state_dict(state["direction"])
        if self._origin is not None:
            self._origin.load_state_dict(state["origin"], [part.device for part in self._sample.groups])
