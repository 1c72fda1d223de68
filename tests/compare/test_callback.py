"""What a cell adds to a fit: the same batches whatever happens, logs, a checkpoint to go on from."""

import json

import lightning as L
import pytest
from lightning.pytorch.loggers import TensorBoardLogger

from metalr.compare import CellCallback
from metalr.compare.callback import CHECKPOINT, PROGRESS
from metalr.compare.logs import read_scalars
from tests.compare.problem import Line, Points


def fit(folder, seed=0, num_workers=0, draws=0, resume=False, **line):
    L.seed_everything(seed, verbose=False)
    model = Line(**line)
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        log_every_n_steps=1,
        logger=TensorBoardLogger(folder, name="fit"),
        callbacks=[CellCallback(["val/loss"], "train/loss"), Draws(draws)],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, Points(num_workers), ckpt_path=folder / CHECKPOINT if resume else None)
    return model


class Draws(L.Callback):
    """A schedule that draws random numbers of its own."""

    def __init__(self, draws):
        self.draws = draws

    def on_train_epoch_end(self, trainer, pl_module):
        import torch

        torch.rand(self.draws)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_resumed_run_is_the_run_that_was_not_stopped(tmp_path, num_workers):
    through = fit(tmp_path / "through", num_workers=num_workers)
    flag = tmp_path / "die"
    flag.touch()
    with pytest.raises(RuntimeError, match="asked to die"):
        fit(tmp_path / "resumed", num_workers=num_workers, die_at=6, die_flag=str(flag))
    resumed = fit(tmp_path / "resumed", num_workers=num_workers, resume=True)
    assert resumed.seen == through.seen[4:]  # from the end of the first of three epochs of four steps
    for one, other in zip(resumed.parameters(), through.parameters(), strict=True):
        assert one.equal(other)
    joined, whole = (read_scalars(tmp_path / name / "fit") for name in ("resumed", "through"))
    for tag in ("train/loss", "val/loss", "compare/lr"):
        assert joined[tag] == whole[tag]
    assert joined["train/loss"][0] == list(range(1, 13))
    assert joined["val/loss"][0] == [4, 8, 12]
    seconds = joined["compare/seconds"][1]
    assert seconds == sorted(seconds)


def test_batches_are_those_of_the_seed_whatever_a_schedule_draws(tmp_path):
    one = fit(tmp_path / "one").seen
    assert fit(tmp_path / "two", draws=5, lr=0.3).seen == one
    assert fit(tmp_path / "three", seed=1).seen != one


def test_the_rate_and_the_progress_are_noted(tmp_path):
    fit(tmp_path, lr=0.25)
    assert read_scalars(tmp_path / "fit")["compare/lr"][1] == [0.25] * 12
    note = json.loads((tmp_path / PROGRESS).read_text())
    assert (note["step"], note["total"], note["epoch"]) == (12, 12, 4)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (lambda: CellCallback(["val/loss", "val/acuracy"]), "val/acuracy is not logged in validation: .*val/loss"),
        (lambda: CellCallback([], "train_loss"), "train_loss is not logged in training: .*train/loss"),
    ],
)
def test_a_metric_that_is_not_logged_is_refused_before_training(tmp_path, callback, message):
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(max_epochs=9, accelerator="cpu", callbacks=[callback()], logger=TensorBoardLogger(tmp_path))
    with pytest.raises(ValueError, match=message):
        trainer.fit(Line(), Points())
    assert trainer.global_step <= 1


def test_of_several_validation_loaders_the_first_validation_is_looked_at(tmp_path):
    class Twice(Points):
        def val_dataloader(self):
            return [super().val_dataloader()] * 2

    class Named(Line):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.log(f"val{dataloader_idx}/loss", self._loss(batch), add_dataloader_idx=False)

    def run(metric):
        L.seed_everything(0, verbose=False)
        callbacks = [CellCallback([metric], "train/loss")]
        trainer = L.Trainer(max_epochs=2, accelerator="cpu", callbacks=callbacks, logger=TensorBoardLogger(tmp_path))
        trainer.fit(Named(), Twice())
        return trainer.global_step

    assert run("val1/loss") == 8
    with pytest.raises(ValueError, match=r"val/loss is not logged in validation: .*val0/loss"):
        run("val/loss")


def test_a_run_needs_a_seed_and_a_logger(tmp_path, monkeypatch):
    L.seed_everything(0, verbose=False)
    with pytest.raises(ValueError, match="trainer.logger with a save_dir"):
        L.Trainer(logger=False, accelerator="cpu", callbacks=[CellCallback()]).fit(Line(), Points())
    monkeypatch.delenv("PL_GLOBAL_SEED")
    with pytest.raises(ValueError, match="seed_everything"):
        CellCallback()
