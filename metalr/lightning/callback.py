"""MetaLRCallback: glue from a Lightning Trainer's hooks to `MetaLR`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, StochasticWeightAveraging, Timer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer

from metalr.core.controller import MetaLR
from metalr.core.grad_scaler import skips
from metalr.core.guards import DEFAULT_GUARDS, Guards
from metalr.core.policy import LRPolicy
from metalr.lightning.monitors import DeferredMonitors


class MetaLRCallback(L.Callback):
    """Sets the learning rate of every optimizer of a Trainer at each optimizer step.

    `Trainer(callbacks=[MetaLRCallback()])`, and no scheduler in `configure_optimizers`. The horizon is read off
    the Trainer: steps and epochs, or `max_time`, whichever ends first; where there is none, the anytime mode is
    used, as it is with `policy="anytime"`. One `MetaLR` drives each optimizer. Its state is in the checkpoint. Under
    manual optimization, an optimizer is taken to step once a batch: give `total_steps` where it does not.

    It reads gradients unscaled and before Lightning clips them, counts optimizer steps (not batches), takes the mean
    loss of an accumulation window over all ranks, and leaves out steps that a GradScaler skips. docs/regimes.md lists
    the regimes of training that it was tested in. A LearningRateMonitor beside it shows the rate that was applied.

    Logged at the Trainer's `log_every_n_steps`: `metalr/lr` (of the first group), `metalr/log_multiplier` (log of
    the rate over its reference schedule, nats), `metalr/change` (nats) and `metalr/guard_<name>` (actions of each guard
    so far); with several optimizers, `metalr-1/...` and so on.

    Args:
        policy: "default", another shipped name, a path, or an `LRPolicy`, as for `MetaLR`.
        total_steps: horizon in optimizer steps, in place of the Trainer's; for several optimizers, one horizon or
            one each.
        guards: what keeps the rate from doing harm, as for `MetaLR`; in YAML, `guards: {climb: null}` turns one off.

    Raises:
        ValueError: for a horizon below 1 or a damaged policy; on fit, for something beside it that sets the rate
            too, or a strategy (FSDP1, DeepSpeed) that does not show it the gradients.
        FileNotFoundError: for a policy that does not exist.
    """

    def __init__(
        self,
        policy: str | Path | LRPolicy = "default",
        total_steps: int | Sequence[int] | None = None,
        guards: Guards = DEFAULT_GUARDS,
    ) -> None:
        given = total_steps if isinstance(total_steps, Sequence) else [total_steps]
        if not given or any(steps is not None and steps < 1 for steps in given):
            raise ValueError(f"total_steps={total_steps}: give 1 or more, or None for the Trainer's horizon")
        # A missing or damaged file is told here, before any data is prepared.
        self.policy = policy if policy == "default" or isinstance(policy, LRPolicy) else LRPolicy.load(policy)
        self.total_steps = total_steps
        self.guards = guards
        self.controllers: list[MetaLR] = []
        self._restored: list[dict[str, Any]] = []
        self._losses: list[Tensor] = []
        self._consumed = False
        self._decided = False
        self._monitors: DeferredMonitors | None = None
        self._timer: Timer | None = None
        self._max_steps: int | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuses what sets the rate too, and strategies that do not show the gradients."""
        _refuse_rivals(trainer)
        _refuse_strategies(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Makes a controller for each optimizer, and restores its state on a resumed run."""
        horizons = self._horizons(trainer, pl_module)
        pairs = zip(trainer.optimizers, horizons, strict=True)
        self.controllers = [MetaLR(opt, horizon, self.policy, guards=self.guards) for opt, horizon in pairs]
        if self._restored and len(self._restored) != len(self.controllers):
            raise ValueError(
                f"the checkpoint has the state of {len(self._restored)} optimizers, this run has "
                f"{len(self.controllers)}: resume with the same optimizers"
            )
        for controller, state in zip(self.controllers, self._restored, strict=False):
            controller.load_state_dict(state)
        self._restored, self._losses, self._consumed, self._decided = [], [], False, False
        self._monitors = DeferredMonitors(trainer)
        unit = "steps" if self._timer is None else "steps, estimated from max_time"
        told = ", ".join(str(steps) for steps in dict.fromkeys(horizons))
        rank_zero_info(f"metalr: horizon {told} {unit}" if horizons[0] else "metalr: no horizon, the anytime mode")

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Notes the loss; under AMP it comes multiplied by the scaler's scale."""
        if self._consumed:  # several optimizers may step after one backward pass
            self._losses, self._consumed = [], False
        loss, scaler = loss.detach().float(), _scaler(trainer)
        if scaler is not None:  # scaler.get_scale() would wait for the device
            loss = loss / scaler.scale(torch.ones_like(loss))
        self._losses.append(loss)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Decides, between the last backward pass of the window and the update."""
        if pl_module.automatic_optimization and (self._consumed or not self._losses):
            return  # training_step returned None: this batch is left out, and nothing moves
        self._consumed = True
        index, controller = self._controller(optimizer)
        if not self._losses:
            raise RuntimeError(
                "MetaLRCallback saw no loss before this optimizer step: under manual optimization, call "
                "self.manual_backward(loss), not loss.backward()"
            )
        # Lightning divides each loss by accumulate_grad_batches, also in the last window, which may be shorter.
        loss = torch.stack([value.reshape(()) for value in self._losses]).mean() * trainer.accumulate_grad_batches
        scaler = _scaler(trainer)
        if scaler is not None:
            hopeless = controller.last_step == 0 and bool(torch.isnan(loss))  # controller.step says so
            if skips(scaler, controller.optimizer) and not hopeless:
                return
        if trainer.world_size > 1:
            loss = trainer.strategy.reduce(loss, reduce_op="mean")
        if self._timer is not None:
            controller.total_steps = self._time_horizon(trainer, controller.last_step)
        controller.step(loss)
        self._decided = True
        self._log(trainer, index, controller)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """Lets monitors sample the rates of a step, when every optimizer's stands."""
        if self._decided and self._monitors is not None:
            self._monitors.sample(trainer)
        self._decided = False

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leaves the monitors as they were."""
        self._release_monitors()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leaves the monitors as they were."""
        self._release_monitors()

    @property
    def state_key(self) -> str:
        """One key for subclasses too: a checkpoint of the one is gone on with by the other."""
        return "MetaLRCallback"

    def state_dict(self) -> dict[str, Any]:
        """The state of every controller."""
        return {"controllers": [controller.state_dict() for controller in self.controllers] or self._restored}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until the optimizers exist."""
        self._restored = list(state_dict["controllers"])

    def _release_monitors(self) -> None:
        if self._monitors is not None:
            self._monitors.release()
            self._monitors = None

    def _horizons(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Sequence[int | None]:
        """The horizon of each optimizer; also finds out whether the time is the limit."""
        count, given = len(trainer.optimizers), self.total_steps
        self._timer = self._max_steps = None
        if isinstance(self.policy, LRPolicy) and self.policy.anytime:
            return [None] * count
        if isinstance(given, Sequence):
            if len(given) != count:
                raise ValueError(f"total_steps={list(given)}: this run has {count} optimizers, give one horizon each")
            return given
        if given is not None:
            return [given] * count
        done = 0 if self._restored else trainer.global_step // max(1, count)
        self._max_steps = _horizon(trainer, pl_module, done)
        self._timer = _time_limit(trainer)
        return [self._max_steps if self._timer is None else self._time_horizon(trainer, 0)] * count

    def _controller(self, optimizer: Optimizer | LightningOptimizer) -> tuple[int, MetaLR]:
        raw = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        for index, controller in enumerate(self.controllers):
            if controller.optimizer is raw:
                return index, controller
        raise RuntimeError(f"{type(raw).__name__} is none of trainer.optimizers: return it from configure_optimizers")

    def _time_horizon(self, trainer: L.Trainer, step: int) -> int:
        """Steps that fit into `max_time` at the pace so far, the same on all ranks."""
        if self._timer is None:
            raise RuntimeError("no max_time")
        remaining = self._timer.time_remaining() or 0.0
        elapsed = max(self._timer.time_elapsed(), 1e-3)
        steps = max(step + 1, math.ceil((step + 1) * (elapsed + max(remaining, 0.0)) / elapsed))
        steps = min(steps, self._max_steps) if self._max_steps else steps
        return int(trainer.strategy.broadcast(steps)) if trainer.world_size > 1 else steps

    def _log(self, trainer: L.Trainer, index: int, controller: MetaLR) -> None:
        if not trainer.loggers or not trainer._logger_connector.should_update_logs:
            return
        prefix = "metalr" if index == 0 else f"metalr-{index}"
        metrics = {
            f"{prefix}/lr": controller.last_lr[0],
            f"{prefix}/log_multiplier": controller.log_multiplier,
            f"{prefix}/change": controller.last_change,
            **{f"{prefix}/guard_{name}": count for name, count in controller.guard_counts.items()},
        }
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.fit_loop.epoch_loop._batches_that_stepped)


def _horizon(trainer: L.Trainer, pl_module: L.LightningModule, done: int) -> int | None:
    """Steps of each optimizer to come after `done`, or None where the Trainer has no end."""
    total = trainer.estimated_stepping_batches
    if total in (-1, float("inf")):
        return None
    schedulers = [c for c in trainer.callbacks if isinstance(c, GradientAccumulationScheduler)]  # type: ignore[attr-defined]
    if schedulers and trainer.max_epochs is not None and trainer.max_epochs > 0:
        # Lightning's estimate knows the window of the first epoch alone.
        windows = [schedulers[0].get_accumulate_grad_batches(epoch) for epoch in range(trainer.max_epochs)]
        steps = sum(math.ceil(trainer.num_training_batches / window) for window in windows)
        total = steps if trainer.max_steps < 0 else min(steps, trainer.max_steps)
    if not pl_module.automatic_optimization and trainer.max_steps > 0:  # max_steps counts every optimizer's
        total = min(total, math.ceil(trainer.max_steps / max(1, len(trainer.optimizers))))
    return max(1, int(total) - done)


def _time_limit(trainer: L.Trainer) -> Timer | None:
    timers = [c for c in trainer.callbacks if isinstance(c, Timer) and c.time_remaining() is not None]  # type: ignore[attr-defined]
    return timers[0] if timers else None


def _scaler(trainer: L.Trainer) -> Any:
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler if scaler is not None and scaler.is_enabled() else None


def _refuse_strategies(trainer: L.Trainer) -> None:
    if isinstance(trainer.strategy, FSDPStrategy):
        raise ValueError(
            "strategy=FSDPStrategy (FSDP1) flattens parameters, of which a rank cannot tell its part: use "
            "ModelParallelStrategy with fully_shard (FSDP2), or DDP"
        )
    if isinstance(trainer.strategy, DeepSpeedStrategy):
        raise ValueError(
            "strategy=DeepSpeedStrategy keeps the gradients inside its engine, where MetaLRCallback cannot read them: "
            "use ModelParallelStrategy with fully_shard (FSDP2), or DDP"
        )


def _refuse_rivals(trainer: L.Trainer) -> None:
    if trainer.lr_scheduler_configs:
        names = ", ".join(type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs)
        raise ValueError(
            f"MetaLRCallback sets the learning rate, and so does {names} from configure_optimizers: "
            "remove the one or the other"
        )
    if any(isinstance(c, StochasticWeightAveraging) for c in trainer.callbacks):  # type: ignore[attr-defined]
        raise ValueError(
            "MetaLRCallback sets the learning rate, and so does StochasticWeightAveraging: remove the one or the "
            "other, or average with WeightAveraging or EMAWeightAveraging"
        )
