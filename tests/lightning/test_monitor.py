"""MetaLRCallback(monitor=...): the Trainer's own validation loss, when, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from metalr import MetaLRCallback
from metalr.core.features import FEATURES
from tests.conftest import random_policy, validating_policy
from tests.fit import BATCHES, Crash, Module, Recorder, Resumable, applied, loader, make_trainer
from tests.problem import batches, make_run
from tests.regimes.ranks import initialises, run_ranks

RECENCY = FEATURES.index("validation_recency")
BATCHES_OF_VALIDATION = batches(2, seed=9)
VALID = DataLoader(BATCHES_OF_VALIDATION, batch_size=None)


class Validated(Module):
    """Logs the mean over two validation batches, of which each of two ranks has one."""

    def validation_step(self, batch, batch_idx):
        if batch_idx % self.trainer.world_size == self.global_rank:
            self.log("val/loss", F.cross_entropy(self.model(batch[0]), batch[1]), on_epoch=True)


def plain(policy, epochs: int) -> list[float]:
    """The same in a loop of one's own."""
    run = make_run("sgd", policy, epochs * BATCHES, steps_per_epoch=BATCHES)
    for _ in range(epochs):
        run.train(batches(BATCHES))
        with torch.no_grad():
            loss = sum(F.cross_entropy(run.model(x), y) for x, y in BATCHES_OF_VALIDATION) / 2
        run.meta_lr.validation(loss)
    return [rate for (rate,) in run.rates]


def test_its_rates_are_the_plain_loops(tmp_path):
    """The sanity check, of parameters that no step has reached, is left out."""
    policy = validating_policy(strength=0.1)
    module, callback = Validated(), Recorder(policy, monitor="val/loss")
    make_trainer(tmp_path, callback, max_epochs=3).fit(module, loader(), VALID)
    assert applied(module) == pytest.approx(plain(policy, 3), rel=1e-6)
    recency = [float(row[0, RECENCY]) for row in callback.features]
    assert recency[:BATCHES] == [0.0] * BATCHES
    assert [step for step, value in enumerate(recency) if value == 2.0] == [BATCHES, 2 * BATCHES]


@pytest.mark.parametrize("step", [BATCHES, BATCHES + 2])
def test_a_crashed_fit_goes_on_to_the_last_bit(tmp_path, step):
    """Also from a checkpoint that is written after a validation, before the step that reads it."""
    policy = validating_policy(strength=0.1)
    whole = Validated()
    make_trainer(tmp_path / "whole", MetaLRCallback(policy, monitor="val/loss")).fit(whole, Resumable(), VALID)
    checkpoint = ModelCheckpoint(tmp_path / "c", monitor="val/loss", save_last=True, save_on_train_epoch_end=False)
    if step > BATCHES:
        checkpoint = ModelCheckpoint(tmp_path / "c", every_n_train_steps=1, save_last=True, save_top_k=0)
    with pytest.raises(RuntimeError, match="crash"):
        make_trainer(tmp_path, MetaLRCallback(policy, monitor="val/loss"), checkpoint, Crash(step)).fit(
            Validated(), Resumable(), VALID
        )
    resumed = Validated()
    make_trainer(tmp_path, MetaLRCallback(policy, monitor="val/loss")).fit(
        resumed, Resumable(), VALID, ckpt_path=tmp_path / "c" / "last.ckpt", weights_only=True
    )
    assert applied(resumed) == applied(whole)[step:]


@initialises
def on_ranks(rank: int, folder) -> tuple[list[float], float]:
    seen = Recorder(validating_policy(strength=0.1), monitor="val/loss")
    trainer = make_trainer(
        folder, seen, max_epochs=2, strategy="ddp", devices=2, use_distributed_sampler=False, num_sanity_val_steps=0
    )
    trainer.fit(Validated(), loader(), VALID)
    return [rate for (rate,) in seen.rates], float(trainer.callback_metrics["val/loss"])


def test_ranks_decide_alike_by_the_mean_of_their_losses(tmp_path):
    """Each rank logs a loss of its own, unsynchronised, and keeps it."""
    (first, own), (second, other) = run_ranks(on_ranks, 2, tmp_path / "ranks", tmp_path)
    assert first == second
    assert own != other
    assert first == pytest.approx(plain(validating_policy(strength=0.1), 2), rel=1e-3)


def test_a_metric_that_is_not_logged_is_named_with_those_that_are(tmp_path):
    with pytest.raises(ValueError, match="metric valid is not logged in validation: choose of val/loss"):
        make_trainer(tmp_path, MetaLRCallback(validating_policy(), monitor="valid")).fit(Validated(), loader(), VALID)


@pytest.mark.parametrize("case", ["no data", "no step", "limit"])
def test_a_fit_without_validation_is_refused(tmp_path, case):
    module = Module() if case == "no step" else Validated()
    data = () if case == "no data" else (VALID,)
    options = {"limit_val_batches": 0} if case == "limit" else {}
    with pytest.raises(ValueError, match="monitor='val/loss', and this fit has no validation"):
        make_trainer(tmp_path, MetaLRCallback(validating_policy(), monitor="val/loss"), **options).fit(
            module, loader(), *data
        )


def test_a_policy_that_reads_none_has_its_own_rates_and_a_warning(tmp_path):
    rates = []
    for monitor in (None, "val/loss"):
        module = Validated()
        trainer = make_trainer(tmp_path, MetaLRCallback(random_policy(distances=False), monitor=monitor), max_epochs=2)
        if monitor:
            with pytest.warns(UserWarning, match="monitor='val/loss' has no effect"):
                trainer.fit(module, loader(), VALID)
        else:
            trainer.fit(module, loader(), VALID)
        rates.append(applied(module))
    assert rates[0] == rates[1]


def test_validation_outside_of_a_fit_is_none_of_its_business(tmp_path):
    callback = MetaLRCallback(validating_policy(), monitor="other")
    trainer = make_trainer(tmp_path, callback)
    trainer.validate(Validated(), VALID, verbose=False)
    assert callback.controllers == []
