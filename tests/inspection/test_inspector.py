"""The inspector in real fits: it logs what was decided, changes nothing, and continues with a resumed run."""

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from metalr import MetaLRCallback
from metalr.inspection import ConvergenceSpeed, Inspector, RunTable
from metalr.inspection.folder import load_run
from tests.compare.problem import Line, Points
from tests.conftest import random_policy
from tests.inspection.fits import events, fit


class Noting(MetaLRCallback):
    """Notes every decision, explained by the controller itself."""

    def __init__(self, **options) -> None:
        super().__init__(random_policy(), **options)
        self.explained = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        self.explained.append((self.controllers[0].explain(), self.controllers[0].last_lr[0]))


@pytest.mark.slow
def test_a_fit_is_shown_as_it_was(tmp_path):
    noting, speed = Noting(), ConvergenceSpeed(thresholds=[100.0, 1e-9])
    trainer = fit(tmp_path, Inspector(), noting, speed)  # before the callback that decides
    found = events(Path(trainer.log_dir))
    for tag, wanted in {
        "decision/lr": [lr for _, lr in noting.explained],
        "decision/log_multiplier": [one.log_multiplier for one, _ in noting.explained],
        "feature/loss_noise": [one.features["loss_noise"].value for one, _ in noting.explained],
        "contribution/loss_noise": [one.features["loss_noise"].contribution for one, _ in noting.explained],
        "contribution/constant": [one.constant for one, _ in noting.explained],
    }.items():
        scalars = found.Scalars(tag)
        assert [event.step for event in scalars] == list(range(12))
        np.testing.assert_allclose([event.value for event in scalars], wanted, rtol=1e-4, atol=1e-5)
    assert set(found.Tags()["images"]) == {"metalr/decisions", "metalr/features", "metalr/responses"}
    (part,) = load_run(Path(trainer.log_dir))
    assert part.policy.fingerprint() == noting.policy.fingerprint()
    assert len(part.trace) == 12
    assert [each.label for each in part.trace.reached] == ["val/loss 100"]


def test_it_changes_nothing_and_a_resumed_run_is_shown_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(Inspector, "_draw", lambda self, trainer: (self._write(trainer), self._save(trainer)))
    plain = fit(tmp_path / "plain", MetaLRCallback(random_policy()), epochs=4)
    shown = fit(tmp_path / "shown", MetaLRCallback(random_policy()), Inspector(first=4, capacity=4), epochs=4)
    for one, other in zip(plain.model.parameters(), shown.model.parameters(), strict=True):
        assert torch.equal(one, other)
    half = [MetaLRCallback(random_policy(), total_steps=16), Inspector(first=4, capacity=4)]
    stopped = fit(tmp_path / "half", *half, epochs=2)
    stopped.save_checkpoint(tmp_path / "half.ckpt")
    rest = [MetaLRCallback(random_policy(), total_steps=16), Inspector(first=4, capacity=4)]
    resumed = fit(tmp_path / "half", *rest, epochs=4, ckpt_path=tmp_path / "half.ckpt")
    (part,) = load_run(Path(resumed.log_dir))
    assert part.trace.step[:4].tolist() == [0, 1, 2, 3]
    assert part.trace.step[-1] == 15
    assert len(part.trace) <= 9


def test_what_led_to_a_crash_is_kept(tmp_path):
    class Crash(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            if trainer.global_step == 5:
                raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        fit(tmp_path, MetaLRCallback(random_policy()), Inspector(), Crash())
    (part,) = load_run(tmp_path / "fit" / "version_0")
    assert part.trace.step.tolist() == [0, 1, 2, 3, 4]


def test_it_needs_something_to_show_and_a_place_for_it(tmp_path):
    with pytest.raises(ValueError, match="no.*|none among the callbacks"):
        fit(tmp_path, Inspector())
    trainer = L.Trainer(logger=False, accelerator="cpu", callbacks=[MetaLRCallback(), Inspector()], max_steps=1)
    with pytest.raises(ValueError, match="Inspector writes to TensorBoard"):
        trainer.fit(Line(), Points())
    with pytest.raises(ValueError, match="theme='pink'"):
        Inspector(theme="pink")
    with pytest.raises(ValueError, match="capacity=1"):
        Inspector(capacity=1)


def test_runs_are_rows_of_one_table(tmp_path):
    """As TensorBoard's own backend reads them: the columns of all runs, and the last value of each metric."""
    speed = ConvergenceSpeed(thresholds=[100.0])
    trainer = fit(tmp_path, MetaLRCallback(random_policy()), speed, RunTable({"note": "learned"}))
    fit(tmp_path, RunTable({"note": "plain"}), epochs=2)
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams.backend_context import Context

    multiplexer = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
    context = Context(TBContext(data_provider=provider))
    asked = RequestContext()
    experiment = context.experiment_from_metadata(
        asked, "", True, context.hparams_metadata(asked, ""), context.hparams_from_data_provider(asked, "", None)
    )
    columns = {info.name for info in experiment.hparam_infos}
    assert {"schedule", "optimizer", "lr", "batch_size", "seed", "steps", "note"} <= columns
    assert {info.name.tag for info in experiment.metric_infos} == {
        *trainer.callback_metrics,
        "steps_to/val/loss 100",
    }
    (last,) = events(Path(trainer.log_dir) / "table").Scalars("val/loss")
    assert last.value == pytest.approx(float(trainer.callback_metrics["val/loss"]))


@pytest.mark.slow
def test_of_two_ranks_the_first_writes_for_both(tmp_path):
    callbacks = [MetaLRCallback(random_policy()), Inspector(), ConvergenceSpeed(thresholds=[100.0]), RunTable()]
    fit(tmp_path, *callbacks, epochs=2, strategy="ddp_fork", devices=2)
    (version,) = (tmp_path / "fit").glob("version_*")
    (part,) = load_run(version)
    assert part.trace.step.tolist() == [0, 1, 2, 3]
    assert len(events(version).Scalars("decision/lr")) == 4
    assert len(events(version / "table").Scalars("val/loss")) == 1


class TwoOptimizers(Line):
    """The first optimizer steps at every batch, the second at every other one."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.second = torch.nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        for index, (optimizer, layers) in enumerate(zip(self.optimizers(), (self.layers, self.second), strict=True)):
            if batch_idx % (index + 1) == 0:
                optimizer.zero_grad()
                self.manual_backward(torch.nn.functional.mse_loss(layers(batch[0]), batch[1]))
                optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.layers, self.second)]


@pytest.mark.slow
def test_each_of_two_optimizers_is_shown(tmp_path):
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=TensorBoardLogger(tmp_path),
        callbacks=[MetaLRCallback(random_policy(), total_steps=[4, 2]), Inspector(theme="dark")],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(TwoOptimizers(), Points())
    steps = [part.trace.step.tolist() for part in load_run(Path(trainer.log_dir))]
    assert steps == [[0, 1, 2, 3], [0, 1]]
    found = events(Path(trainer.log_dir))
    assert len(found.Scalars("contribution-1/loss_noise")) == 2
    assert {"metalr/decisions", "metalr-1/decisions"} <= set(found.Tags()["images"])
