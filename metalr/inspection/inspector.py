"""Inspector: logs to TensorBoard what MetaLRCallback decides, and what each feature contributed."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L

from metalr import MetaLRCallback
from metalr.inspection.convergence_speed import ConvergenceSpeed
from metalr.inspection.decimation import Decimation, Pace
from metalr.inspection.folder import Inspected, save_run
from metalr.inspection.recorder import Recorder
from metalr.inspection.tensorboard_events import layout, suffix, write_decisions
from metalr.inspection.trainer import callbacks_of, tensorboard
from metalr.plotting.palette import theme_named

_PENDING, _SECONDS = 64, 30.0


class Inspector(L.Callback):
    """Logs the decisions of a Trainer's `MetaLRCallback`, each attributed exactly to the features.

    For every recorded decision it writes to TensorBoard:

    - `decision/lr` beside `decision/lr_reference`, `decision/log_multiplier`, `decision/change` and
      `decision/change_bound` (nats),
    - `feature/<name>`, dimensionless, and `contribution/<name>`, the part of the change that it explains (nats),
    - `guard/<name>`, the interventions of each guard so far;

    and as images: all of these over time, with the thresholds of a `ConvergenceSpeed` in the same Trainer; the
    features; and the policy's response to each feature around the run's states. `<log folder>/inspection` gets the
    recorded decisions and the policy, for `python train.py inspect`.

    The cost is bounded: the first decisions and one in a stride of the others are recorded, and the stride doubles as
    the run goes on. A step that is not recorded costs one comparison; the host waits for the device once in 64 recorded
    decisions. Images are drawn at the end, and at each doubling of the step while that takes less than `share` of the
    time.

    Args:
        first: number of first decisions that are all recorded.
        capacity: largest number of later decisions that are recorded.
        share: largest share of the time spent on images before the end, in (0, 1].
        theme: of the images, "light" or "dark".

    Raises:
        ValueError: for an argument out of range; on fit, for a Trainer without a TensorBoardLogger or MetaLRCallback.

    Example:
        >>> import lightning as L, torch
        >>> from metalr import MetaLRCallback
        >>> from metalr.inspection import Inspector
        >>> from lightning.pytorch.demos.boring_classes import BoringModel
        >>> class Model(BoringModel):
        ...     def validation_step(self, batch, batch_idx):
        ...         self.log("val/loss", self.step(batch))
        ...
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), lr=0.1)
        >>> inspector = Inspector()
        >>> quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        >>> trainer = L.Trainer(accelerator="cpu", max_epochs=1, callbacks=[MetaLRCallback(), inspector], **quiet)
        >>> trainer.fit(Model())
        >>> len(inspector.recorders[0].trace)
        64
    """

    def __init__(self, first: int = 32, capacity: int = 512, share: float = 0.01, theme: str = "light") -> None:
        Decimation(first, capacity)  # checks the arguments before any data is prepared
        self.first = first
        self.capacity = capacity
        self.share = share
        self.theme = theme_named(theme)
        self.recorders: list[Recorder] = []
        self._pace = Pace(share)
        self._restored: list[dict[str, Any]] = []
        self._meta_lr: MetaLRCallback | None = None
        self._written = 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Finds the MetaLRCallback and the logger."""
        if stage != "fit":
            return
        found = callbacks_of(trainer, MetaLRCallback)
        if not found:
            raise ValueError(
                "Inspector logs the decisions of a MetaLRCallback, and there is none among the callbacks: add "
                "MetaLRCallback, or leave Inspector out"
            )
        self._meta_lr = found[0]
        tensorboard(trainer, self)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self.recorders, self._pace, self._written = [], Pace(self.share), time.monotonic()

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """Finds the controllers at the first batch, when they exist in whichever order the callbacks are listed."""
        if self.recorders or self._meta_lr is None or not trainer.is_global_zero:
            return
        self.recorders = [Recorder(c, Decimation(self.first, self.capacity)) for c in self._meta_lr.controllers]
        for recorder, state in zip(self.recorders, self._restored, strict=False):
            recorder.load_state_dict(state)
        self._restored = []
        charts = {f"optimizer {i}": layout(recorder.trace, suffix(i)) for i, recorder in enumerate(self.recorders)}
        tensorboard(trainer, self).experiment.add_custom_scalars(charts)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """Records the decisions that are due."""
        kept = [recorder.offer() for recorder in self.recorders]  # a list: every recorder is offered its decision
        if not any(kept):
            return
        late = time.monotonic() - self._written >= _SECONDS
        if late or any(recorder.pending >= _PENDING for recorder in self.recorders):
            self._write(trainer)
        step = self.recorders[0].controller.last_step
        if self._pace.due(step):
            with self._pace.spend(step):
                self._draw(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws the whole run."""
        if self.recorders:
            for recorder in self.recorders:
                recorder.finish()
            self._draw(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Writes the decisions that led to the exception."""
        if self.recorders:
            for recorder in self.recorders:
                recorder.finish()
            self._write(trainer)
            self._save(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Returns the recorded decisions."""
        return {"recorders": [recorder.state_dict() for recorder in self.recorders] or self._restored}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the recorded decisions until the controllers exist."""
        self._restored = list(state_dict["recorders"])

    def _write(self, trainer: L.Trainer) -> None:
        """Writes the pending decisions as scalars."""
        self._written = time.monotonic()
        for index, recorder in enumerate(self.recorders):
            write_decisions(tensorboard(trainer, self).experiment, recorder.drain(), suffix(index))

    def _save(self, trainer: L.Trainer) -> list[Inspected]:
        reached = [each for speed in callbacks_of(trainer, ConvergenceSpeed) for each in speed.reached]
        parts = [Inspected(r.policy, replace(r.trace, reached=tuple(reached))) for r in self.recorders if len(r.trace)]
        save_run(Path(tensorboard(trainer, self).log_dir), parts)
        return parts

    def _draw(self, trainer: L.Trainer) -> None:
        from metalr.inspection import figures  # late: matplotlib
        from metalr.plotting.canvas import image

        self._write(trainer)
        writer = tensorboard(trainer, self).experiment
        for index, part in enumerate(self._save(trainer)):
            for name, draw in figures.of_run(part.policy, part.trace).items():
                pixels = image(draw, self.theme)
                writer.add_image(f"metalr{suffix(index)}/{name}", pixels, int(part.trace.step[-1]), dataformats="HWC")
