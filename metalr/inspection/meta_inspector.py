"""MetaInspector: shows in TensorBoard what a meta-training learns, and from how noisy a gradient."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.nn.utils import parameters_to_vector
from torch.optim import Optimizer

from metalr.inspection import MetaHistory, TaskRuns, responses
from metalr.inspection.decimation import Decimation, Pace
from metalr.inspection.folder import save_history
from metalr.inspection.loggers import tensorboard
from metalr.inspection.response import known_states
from metalr.meta import HeldOutTask, MetaLearner
from metalr.meta.moments import GradientMoments
from metalr.plotting.palette import theme_named

_LEAST = 8
_POINTS = 200


class MetaInspector(L.Callback):
    """Logs a `MetaLearner`'s gradient by family, and shows how its policy changes.

    Beside the outer losses by family, which the learner logs: `gradient_norm/<family>`, and
    `signal_to_noise/<family>`, |E g|^2 over the variance of one meta-step's gradient g, over the last `window`
    meta-steps that drew the family (see `metalr.meta.moments`); at the Trainer's `log_every_n_steps`. Each estimate
    is one meta-step's: accumulation of several draws mixes families, and counts for the last one.

    As images: the policy's response to each feature over the meta-training, around the states that it comes to; and
    its runs on the held-out tasks from each initial rate, at each doubling of the meta-step while they take less
    than `share` of the time, and at the end. `<log folder>/inspection` has both for `python train.py inspect`.

    Args:
        window: meta-steps of a family that count, > 1.
        tasks: held-out tasks that are shown, 0 for none.
        capacity: responses that are kept, at most, beside the first eight.
        share: of the time that the images before the last may take, in (0, 1].
        theme: of the images, "light" or "dark".

    Raises:
        ValueError: for settings out of range; on fit, without a TensorBoardLogger, or for a module that is no
            MetaLearner.
    """

    def __init__(
        self, window: float = 32.0, tasks: int = 4, capacity: int = 48, share: float = 0.02, theme: str = "light"
    ) -> None:
        GradientMoments(window)  # says what is out of range before any task is drawn
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
        """Refuses what it cannot show."""
        if not isinstance(pl_module, MetaLearner):
            raise ValueError(f"MetaInspector shows a MetaLearner, and this is a {type(pl_module).__name__}")
        tensorboard(trainer, self)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._pace = Pace(self.share)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: MetaLearner, optimizer: Optimizer) -> None:
        """Takes in the estimate, which all ranks have by now."""
        if not trainer.is_global_zero:
            return
        gradient = parameters_to_vector([p.grad for p in pl_module.policy.parameters() if p.grad is not None]).cpu()
        moments = self.moments.setdefault(pl_module.family, GradientMoments(self.window))
        moments.add(gradient)
        if not trainer._logger_connector.should_update_logs:
            return
        metrics = {f"gradient_norm/{pl_module.family}": float(gradient.norm())}
        if moments.count >= _LEAST:
            metrics[f"signal_to_noise/{pl_module.family}"] = moments.signal_noise().ratio
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: MetaLearner, outputs: Any, batch: HeldOutTask, *_: Any, **__: Any
    ) -> None:
        """Gets to know the held-out tasks."""
        if len(self._shown) < self.tasks:
            self._shown[batch.name] = batch

    def on_validation_end(self, trainer: L.Trainer, pl_module: MetaLearner) -> None:
        """Keeps the policy's response, with the states that the learner has just seen it come to."""
        step = trainer.global_step
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        if self.decimation.due(step, -1 if self.history is None else int(self.history.step[-1])):
            found = responses(pl_module.policy, known_states(pl_module.policy), whole=True)
            more = self.history is not None
            self.history = self.history.add(step, found, self.decimation) if more else MetaHistory.start(step, found)
        if self._pace.due(step):
            with self._pace.spend(step):
                self._draw(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: MetaLearner) -> None:
        """Shows the policy as it is in the end."""
        if trainer.is_global_zero:
            self._draw(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The responses that are kept."""
        if self.history is None:
            return {}
        arrays = {name: torch.from_numpy(getattr(self.history, name).copy()) for name in ("grid", "step", "curves")}
        return {"features": list(self.history.features), "stride": self.decimation.stride, **arrays}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
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
