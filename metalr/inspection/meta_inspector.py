"""MetaInspector: logs to TensorBoard how a meta-training changes its policy, and how noisy its gradients are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.nn.utils import parameters_to_vector
from torch.optim import Optimizer

from metalr.inspection.decimation import Decimation, Pace
from metalr.inspection.folder import save_history
from metalr.inspection.history import MetaHistory, TaskRuns
from metalr.inspection.response import responses, support_states
from metalr.inspection.trainer import tensorboard
from metalr.meta import HeldOutTask, MetaLearner
from metalr.meta.moments import GradientMoments
from metalr.plotting.palette import theme_named

_LEAST = 8
_POINTS = 200


class MetaInspector(L.Callback):
    """Logs the meta-gradient of a `MetaLearner` by task family, and draws how its policy changes.

    At the Trainer's `log_every_n_steps` it logs `gradient_norm/<family>` and `signal_to_noise/<family>`: |E g|^2 over
    the variance of one meta-step's gradient g, over the last `window` meta-steps of that family (see
    `metalr.meta.moments`). A meta-step whose task batches are from several families counts for `mixture`; with gradient
    accumulation it counts for the last ones.

    As images it draws the policy's response to each feature over the meta-training, around the states that it meets,
    and its runs on the held-out tasks from each initial rate: at the end, and at each doubling of the meta-step while
    that takes less than `share` of the time. `<log folder>/inspection` gets both for `python train.py inspect`.

    Args:
        window: meta-steps of a family that count, > 1.
        tasks: number of held-out tasks to draw, 0 for none.
        capacity: largest number of responses that are kept after the first eight.
        share: largest share of the time spent on images before the end, in (0, 1].
        theme: of the images, "light" or "dark".

    Raises:
        ValueError: for an argument out of range; on fit, for a Trainer without a TensorBoardLogger, or a module that is
            not a MetaLearner.

    Example:
        >>> import lightning as L
        >>> from metalr.inspection import MetaInspector
        >>> from metalr.meta import ActionES, Component, HeldOutTask, MetaLearner, MetaTasksDataModule
        >>> from metalr.meta.families import QuadraticTasks
        >>> data = MetaTasksDataModule(
        ...     components={"quadratic": Component(QuadraticTasks(), horizons=(10, 20))},
        ...     heldout=[HeldOutTask("quadratic", QuadraticTasks(), "sgd", total_steps=20, instances=2, rates=3)],
        ... )
        >>> inspector = MetaInspector(tasks=1)
        >>> quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
        >>> trainer = L.Trainer(max_steps=4, val_check_interval=2, callbacks=[inspector], **quiet)
        >>> trainer.fit(MetaLearner(estimator=ActionES(pairs=4)), data)
        >>> sorted(inspector.moments)
        ['quadratic']
    """

    def __init__(
        self, window: float = 32.0, tasks: int = 4, capacity: int = 48, share: float = 0.02, theme: str = "light"
    ) -> None:
        GradientMoments(window)  # checks the argument before any task is sampled
        self.window = window
        self.tasks = tasks
        self.decimation = Decimation(8, capacity)
        self.share = share
        self.theme = theme_named(theme)
        self.moments: dict[str, GradientMoments] = {}
        self.history: MetaHistory | None = None
        self._pace = Pace(share)
        self._shown: dict[str, HeldOutTask] = {}
        self._references: dict[str, torch.Tensor] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Checks that the module is a MetaLearner, and finds the logger."""
        _learner(pl_module)
        tensorboard(trainer, self)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._pace = Pace(self.share)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Adds this meta-step's gradient, which has been averaged over the ranks, to the family's moments."""
        if not trainer.is_global_zero:
            return
        learner = _learner(pl_module)
        gradient = parameters_to_vector([p.grad for p in learner.policy.parameters() if p.grad is not None]).cpu()
        moments = self.moments.setdefault(learner.family, GradientMoments(self.window))
        moments.add(gradient)
        if not trainer._logger_connector.should_update_logs:
            return
        metrics = {f"gradient_norm/{learner.family}": float(gradient.norm())}
        if moments.count >= _LEAST:
            metrics[f"signal_to_noise/{learner.family}"] = moments.signal_noise().ratio
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Notes the held-out tasks to draw."""
        if len(self._shown) < self.tasks:
            self._shown[batch.name] = batch

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Records the policy's response around the states that this validation met."""
        step = trainer.global_step
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        if self.decimation.due(step, -1 if self.history is None else int(self.history.step[-1])):
            policy, past = _learner(pl_module).policy, self.history
            found = responses(policy, support_states(policy), whole=True)
            self.history = MetaHistory.start(step, found) if past is None else past.add(step, found, self.decimation)
        if self._pace.due(step):
            with self._pace.spend(step):
                self._draw(trainer, _learner(pl_module))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws the final policy."""
        if trainer.is_global_zero:
            self._draw(trainer, _learner(pl_module))

    def state_dict(self) -> dict[str, Any]:
        """Returns the recorded responses."""
        if self.history is None:
            return {}
        arrays = {name: torch.from_numpy(getattr(self.history, name).copy()) for name in ("grid", "step", "curves")}
        return {"features": list(self.history.features), "stride": self.decimation.stride, **arrays}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        if state_dict:
            grid, step, curves = (state_dict[name].numpy() for name in ("grid", "step", "curves"))
            self.history = MetaHistory(tuple(state_dict["features"]), grid, step, curves)
            self.decimation.stride = int(state_dict["stride"])

    def _draw(self, trainer: L.Trainer, learner: MetaLearner) -> None:
        from metalr.inspection import figures  # late: matplotlib
        from metalr.plotting.canvas import image

        if self.history is None:
            return
        runs = tuple(self._task_runs(task, learner) for task in self._shown.values())
        self.history = replace(self.history, runs=runs, runs_at=trainer.global_step)
        logger = tensorboard(trainer, self)
        save_history(Path(logger.log_dir), self.history)
        for name, draw in figures.of_meta(self.history).items():
            pixels = image(draw, self.theme)
            logger.experiment.add_image(f"policy/{name}", pixels, trainer.global_step, dataformats="HWC")

    def _task_runs(self, task: HeldOutTask, learner: MetaLearner) -> TaskRuns:
        shape = (-1, task.rates, task.instances)
        if task.name not in self._references:
            reference = task.reference_runs(learner.policy, learner.anytime, learner.device)
            self._references[task.name] = reference.curve.view(shape).mean(2).T
        runs = task.runs(learner.policy, learner.anytime, learner.device, record=True)
        steps = np.unique(np.linspace(0, task.total_steps - 1, _POINTS).round().astype(np.int64))
        lr = torch.stack([runs.records[step].lr for step in steps])
        return TaskRuns(
            task.name,
            task.grid.double().numpy(),
            steps,
            lr.view(shape)[:, :, 0].T.double().cpu().numpy(),
            runs.evaluation_steps.numpy(),
            runs.curve.view(shape).mean(2).T.double().cpu().numpy(),
            self._references[task.name].double().cpu().numpy(),
        )


def _learner(module: L.LightningModule) -> MetaLearner:
    if not isinstance(module, MetaLearner):
        raise ValueError(f"MetaInspector shows a MetaLearner, and this is a {type(module).__name__}")
    return module
