"""MetaLRCallback: glue from a Lightning Trainer's hooks to `MetaLR`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from metalr.core.checks import checked_horizon
from metalr.core.controller import MetaLR
from metalr.core.grad_scaler import skips
from metalr.core.guards import DEFAULT_GUARDS, Guards
from metalr.core.lr_limits import LRLimits
from metalr.core.policy import LRPolicy
from metalr.lightning.checks import check_monitor, check_trainer
from metalr.lightning.drive import Drive
from metalr.lightning.hooks import ReplacedHooks
from metalr.lightning.horizon import time_limit
from metalr.lightning.logged_metrics import check_logged
from metalr.lightning.monitors import DeferredMonitors
from metalr.lightning.packages import Callback, rank_zero_info, rank_zero_warn
from metalr.lightning.rates import show_initial_rates

if TYPE_CHECKING:
    import lightning as L


class MetaLRCallback(Callback):
    """Sets the learning rate of every optimizer of a Trainer at each optimizer step.

    Leave the scheduler out of `configure_optimizers`; the optimizer's own rates are the initial ones.

    The Trainer may be that of `lightning` or of `pytorch_lightning`. The horizon is read off it: the steps that were
    taken plus those that are to come by epochs, steps or `max_time`, whichever ends first, recomputed at each
    decision (`metalr.lightning.horizon`); where there is no end, the anytime mode is used, as it is with
    `policy="anytime"`. One `MetaLR` drives each optimizer, and its state is in the checkpoint.

    It reads gradients unscaled and before Lightning clips them, counts optimizer steps (not batches, nor the calls of
    a closure), takes the mean loss of an accumulation window over all ranks, and leaves out steps that a GradScaler
    skips. Rates that other callbacks or the module write are adopted (`metalr.lightning.rates`).
    docs/regimes.md lists the regimes of training that it was tested in. A LearningRateMonitor beside it shows the rate
    that was applied.

    Logged at the Trainer's `log_every_n_steps`: `metalr/lr` (of the first group), `metalr/log_multiplier` (log of
    the rate over its reference schedule, nats), `metalr/change` (nats) and `metalr/guard_<name>` (interventions of each
    guard so far); with several optimizers, `metalr-1/...` and so on.

    Args:
        policy: "default", another shipped name, a path, or an `LRPolicy`, as for `MetaLR`.
        total_steps: horizon in optimizer steps, 1 or more, in place of the Trainer's; infinity or -1 for the anytime
            mode; for several optimizers, one horizon or one each.
        guards: what keeps the rate from doing harm, as for `MetaLR`; in YAML, `guards: {divergence: null}` turns one
            off.
        min_lr: smallest rate, as for `MetaLR`.
        max_lr: largest rate, as for `MetaLR`.
        monitor: name of a loss that the module logs in validation, such as "val/loss", of the same kind as the training
            loss. The policy reads it, averaged over the ranks, after each validation but the sanity check; one that
            reads no validation loss ignores it, with a warning.

    Raises:
        ValueError: for a horizon below 1 or a damaged policy; on fit, for a module without an optimizer, something
            beside it that sets the rate too, a strategy (FSDP1, DeepSpeed) that does not show it the gradients, or a
            monitor in a fit without validation; after a validation that did not log it.
        FileNotFoundError: for a policy that does not exist.

    Example:
        >>> import lightning as L, torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from metalr import MetaLRCallback
        >>> class Linear(L.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = torch.nn.Linear(8, 3)
        ...
        ...     def training_step(self, batch, batch_idx):
        ...         return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
        ...
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        >>> loader = DataLoader(TensorDataset(torch.randn(64, 8), torch.randint(3, (64,))), batch_size=16)
        >>> callback = MetaLRCallback()
        >>> quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        >>> L.Trainer(accelerator="cpu", max_epochs=2, callbacks=[callback], **quiet).fit(Linear(), loader)
        >>> callback.controllers[0].last_step
        8
    """

    def __init__(
        self,
        policy: str | Path | LRPolicy = "default",
        total_steps: int | Sequence[int] | None = None,
        guards: Guards = DEFAULT_GUARDS,
        min_lr: float | list[float] | None = None,
        max_lr: float | list[float] | None = None,
        monitor: str | None = None,
    ) -> None:
        given: Any = total_steps
        if isinstance(total_steps, Sequence) and not total_steps:
            raise ValueError("total_steps=[]: give one horizon for each optimizer, or None for the Trainer's")
        for steps in given if isinstance(given, Sequence) and not isinstance(given, str) else [given]:
            checked_horizon(steps)
        # A missing or damaged file is reported here, before any data is prepared.
        self.policy = policy if policy == "default" or isinstance(policy, LRPolicy) else LRPolicy.load(policy)
        self.total_steps = total_steps
        self.guards = guards
        self.limits = LRLimits(min_lr, max_lr)
        self.monitor = monitor
        self._restored: dict[str, Any] = {}
        self._drives: list[Drive] = []
        self._losses: list[Tensor] = []
        self._consumed = self._decided = False
        self._hooks = ReplacedHooks()
        self._monitors: DeferredMonitors | None = None

    @property
    def controllers(self) -> list[MetaLR]:
        """The `MetaLR` of each optimizer, in the order of `trainer.optimizers`; none before training starts."""
        return [drive.controller for drive in self._drives]

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Forgets an earlier fit, before a checkpoint is loaded."""
        if stage == "fit":
            self._release()
            self._restored, self._drives = {}, []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuses what sets the rate too, and strategies that do not show the gradients."""
        check_trainer(trainer)
        check_monitor(trainer, self.monitor)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Makes a controller for each optimizer, and restores its state on a resumed run."""
        states, count = self._restored.get("controllers", []), len(trainer.optimizers)
        if states and len(states) != count:
            raise ValueError(
                f"the checkpoint has the state of {len(states)} optimizers, this run has "
                f"{count}: resume with the same optimizers"
            )
        paces = self._restored.get("paces") or [None] * count
        parts = zip(trainer.optimizers, self._given(count), states or [None] * count, paces, strict=True)
        self._drives = [
            Drive(
                trainer,
                pl_module,
                optimizer,
                policy=self.policy,
                guards=self.guards,
                limits=self.limits,
                given=given,
                state=state,
                pace=pace,
            )
            for optimizer, given, state, pace in parts
        ]
        self._restored, self._losses, self._consumed, self._decided = {}, [], False, False
        self._monitors = DeferredMonitors(trainer, self._hooks)
        show_initial_rates(trainer, self.controllers, self._hooks)
        self._report_horizon(trainer)
        if self.monitor is not None and not any(each.policy.reads_validation for each in self.controllers):
            rank_zero_warn(f"monitor={self.monitor!r} has no effect: the policy reads no validation loss")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Gives the controllers the validation loss of a fit."""
        if self.monitor is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        check_logged(trainer, [self.monitor], "validation")
        loss = trainer.callback_metrics[self.monitor].detach().float()
        if trainer.world_size > 1:
            own = loss.to(pl_module.device, copy=True)  # the reduction is in place, and the metric is the Trainer's
            loss = trainer.strategy.reduce(own, reduce_op="mean")
        for controller in self.controllers:
            controller.validation(loss)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Lets each optimizer decide once a step of the batch."""
        for drive in self._drives:
            drive.controller.steps.outside()

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Notes the loss; under AMP it comes multiplied by the scaler's scale."""
        if self._consumed:  # several optimizers may step after one backward pass
            self._losses, self._consumed = [], False
        loss, scaler = loss.detach().float(), _scaler(trainer)
        if scaler is not None:  # scaler.get_scale() would wait for the device
            loss = loss / scaler.scale(torch.ones_like(loss))
        self._losses.append(loss)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Decides, between the last backward pass of the window and the update.

        A closure may be called several times in one step, at other points than the parameters' own (sharpness-aware
        minimisation, line searches): the first call decides.
        """
        if pl_module.automatic_optimization and (self._consumed or not self._losses):
            return  # training_step returned None: this batch is left out, and nothing moves
        self._consumed = True
        index, drive = self._drive(optimizer)
        if not self._losses:
            raise RuntimeError(
                "MetaLRCallback saw no loss before this optimizer step: under manual optimization, call "
                "self.manual_backward(loss), not loss.backward()"
            )
        if drive.has_decided(trainer):
            return
        # Lightning divides each loss by accumulate_grad_batches, also in the last window, which may be shorter.
        loss = torch.stack([value.reshape(()) for value in self._losses]).mean() * trainer.accumulate_grad_batches
        scaler = _scaler(trainer)
        if scaler is not None:
            hopeless = drive.controller.last_step == 0 and bool(torch.isnan(loss))  # controller.step says so
            if skips(scaler, drive.controller.optimizer) and not hopeless:
                return
        if trainer.world_size > 1:
            loss = trainer.strategy.reduce(loss, reduce_op="mean")
        drive.decide(trainer, loss)
        self._decided = True
        self._log(trainer, index, drive.controller)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """Lets monitors sample the rates of a step, when every optimizer's is set."""
        if self._decided and self._monitors is not None:
            self._monitors.sample(trainer)
        self._decided = False
        for drive in self._drives:
            drive.end_batch(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reports an epoch in which no rate was set since no step was seen."""
        if self._drives and not any(drive.controller.last_step for drive in self._drives):
            rank_zero_warn(
                f"MetaLRCallback set no rate in epoch {trainer.current_epoch}, for it saw no optimizer step: under "
                "manual optimization, call step() of self.optimizers(), and of a sharpness-aware optimizer "
                "step(closure) in place of first_step() and second_step()"
            )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Gives other callbacks their hooks back."""
        self._release()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Gives other callbacks their hooks back."""
        self._release()

    @property
    def state_key(self) -> str:
        """Names the callback in a checkpoint, subclasses alike: the one resumes from a checkpoint of the other."""
        return "MetaLRCallback"

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of every controller, and the pace of optimizers under manual optimization."""
        if not self._drives:
            return self._restored or {"controllers": []}
        states = [drive.controller.state_dict() for drive in self._drives]
        return {"controllers": states, "paces": [drive.pace() for drive in self._drives]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the state until the optimizers exist."""
        self._restored = dict(state_dict)

    def _release(self) -> None:
        self._hooks.release()
        self._monitors = None
        for drive in self._drives:
            drive.controller.release()

    def _given(self, count: int) -> Sequence[int | None]:
        """Lists the horizon that was asked for of each optimizer."""
        given = self.total_steps
        if not isinstance(given, Sequence):
            return [given] * count
        if len(given) != count:
            raise ValueError(f"total_steps={list(given)}: this run has {count} optimizers, give one horizon each")
        return given

    def _report_horizon(self, trainer: L.Trainer) -> None:
        horizons = list(dict.fromkeys(controller.total_steps for controller in self.controllers))
        if horizons[0] is None:
            rank_zero_info("metalr: no horizon, the anytime mode")
        elif self.total_steps is None and time_limit(trainer) is not None:
            rank_zero_info("metalr: horizon by max_time, estimated from the pace of the steps")
        else:
            rank_zero_info(f"metalr: horizon {', '.join(map(str, horizons))} steps")

    def _drive(self, optimizer: Any) -> tuple[int, Drive]:
        wrapped = getattr(optimizer, "_optimizer", None)  # LightningOptimizer's
        for index, drive in enumerate(self._drives):
            if drive.controller.optimizer in (optimizer, wrapped):
                return index, drive
        raise RuntimeError(
            f"{type(optimizer).__name__} is none of trainer.optimizers: return it from configure_optimizers"
        )

    def _controller(self, optimizer: Any) -> tuple[int, MetaLR]:
        index, drive = self._drive(optimizer)
        return index, drive.controller

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


def _scaler(trainer: L.Trainer) -> Any:
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler if scaler is not None and scaler.is_enabled() else None
