"""Refuses fits that `MetaLRCallback` cannot drive: without an optimizer, with rival schedules or hidden gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metalr.lightning.packages import classes, instances

if TYPE_CHECKING:
    import lightning as L


def check_trainer(trainer: L.Trainer) -> None:
    """Refuses a fit in which the learning rate cannot be set, or is set by something else.

    Raises:
        ValueError: for a module without an optimizer; a scheduler from `configure_optimizers` or
            StochasticWeightAveraging, which set the rate too; FSDP1 or DeepSpeed, which do not show the gradients.
    """
    _refuse_no_optimizer(trainer)
    _refuse_schedulers(trainer)
    _refuse_weight_averaging(trainer)
    _refuse_strategies(trainer)


def check_monitor(trainer: L.Trainer, monitor: str | None) -> None:
    """Refuses a fit that could never show the loss that is to be monitored.

    Raises:
        ValueError: for a monitor where no validation can run.
    """
    if monitor is not None and not trainer.enable_validation:
        raise ValueError(
            f"monitor={monitor!r}, and this fit has no validation: give validation data, a validation_step that logs "
            "it and limit_val_batches above 0, or leave monitor out"
        )


def _refuse_no_optimizer(trainer: L.Trainer) -> None:
    optimizers = [opt for opt in trainer.optimizers if not isinstance(opt, classes("core.optimizer._MockOptimizer"))]
    if not optimizers:
        raise ValueError(
            "configure_optimizers returned no optimizer, so MetaLRCallback has no learning rate to set: return an "
            "optimizer, or remove the callback"
        )


def _refuse_schedulers(trainer: L.Trainer) -> None:
    if trainer.lr_scheduler_configs:
        names = ", ".join(type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs)
        raise ValueError(
            f"MetaLRCallback sets the learning rate, and so does {names} from configure_optimizers: "
            "remove the one or the other"
        )


def _refuse_weight_averaging(trainer: L.Trainer) -> None:
    if instances(trainer, "callbacks.StochasticWeightAveraging"):
        raise ValueError(
            "MetaLRCallback sets the learning rate, and so does StochasticWeightAveraging: remove the one or the "
            "other, or average with WeightAveraging or EMAWeightAveraging"
        )


def _refuse_strategies(trainer: L.Trainer) -> None:
    if isinstance(trainer.strategy, classes("strategies.FSDPStrategy")):
        raise ValueError(
            "strategy=FSDPStrategy (FSDP1) flattens parameters, of which a rank cannot tell its part: use "
            "ModelParallelStrategy with fully_shard (FSDP2), or DDP"
        )
    if isinstance(trainer.strategy, classes("strategies.DeepSpeedStrategy")):
        raise ValueError(
            "strategy=DeepSpeedStrategy keeps the gradients inside its engine, where MetaLRCallback cannot read them: "
            "use ModelParallelStrategy with fully_shard (FSDP2), or DDP"
        )
