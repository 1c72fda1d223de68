"""Other callbacks that read or set the rate, or average the weights."""

import csv
import warnings

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.loggers import CSVLogger

from metalr import MetaLRCallback
from tests.conftest import random_policy
from tests.fit import BATCHES, Module, Recorder, Resumable, applied, loader, make_trainer

averaging = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging", reason="Lightning 2.6 and newer")


def logged(folder, key: str) -> dict[int, list[float]]:
    """The values of a metric by step."""
    values: dict[int, list[float]] = {}
    with (folder / "lightning_logs" / "version_0" / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            if row.get(key):
                values.setdefault(int(row["step"]), []).append(float(row[key]))
    return values


def monitored(tmp_path, monitor, module, seen, order=1, **options):
    callbacks = (monitor, seen)[::order]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a monitor without a scheduler warns
        trainer = make_trainer(tmp_path, *callbacks, logger=CSVLogger(tmp_path), log_every_n_steps=1, **options)
        trainer.fit(module, loader())
    return trainer


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("interval", [None, "step"])
def test_a_monitor_of_steps_shows_the_applied_rates(tmp_path, policy, interval, order):
    seen = Recorder(policy)
    monitored(tmp_path, LearningRateMonitor(interval), Module(), seen, order, max_epochs=2)
    assert len(seen.rates) == 2 * BATCHES
    assert logged(tmp_path, "lr-SGD") == {step: pytest.approx([rate]) for step, (rate,) in enumerate(seen.rates)}
    assert logged(tmp_path, "metalr/lr") == logged(tmp_path, "lr-SGD")


def test_a_monitor_shows_one_rate_a_window(tmp_path, policy):
    seen = Recorder(policy)
    monitored(tmp_path, LearningRateMonitor(), Module(), seen, max_epochs=1, accumulate_grad_batches=4)
    assert logged(tmp_path, "lr-SGD") == {step: pytest.approx([rate]) for step, (rate,) in enumerate(seen.rates)}


def test_a_monitor_of_epochs_shows_each_ones_first_rate(tmp_path, policy):
    seen = Recorder(policy)
    monitored(tmp_path, LearningRateMonitor("epoch"), Module(), seen, max_epochs=3)
    firsts = {epoch * BATCHES: pytest.approx(seen.rates[epoch * BATCHES]) for epoch in range(3)}
    assert logged(tmp_path, "lr-SGD") == firsts


class Crash(L.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        raise RuntimeError("crash")


def test_a_monitor_has_its_hooks_back_after_the_fit(tmp_path, policy):
    monitor = LearningRateMonitor()
    monitored(tmp_path / "a", monitor, Module(), MetaLRCallback(policy), max_epochs=1)
    assert "on_train_batch_start" not in vars(monitor)
    with pytest.raises(RuntimeError, match="crash"):
        make_trainer(tmp_path, MetaLRCallback(policy), monitor, Crash(), logger=CSVLogger(tmp_path)).fit(
            Module(), loader()
        )
    assert not {"on_train_batch_start", "on_train_epoch_start"} & set(vars(monitor))


def test_stochastic_weight_averaging_is_refused(tmp_path, policy):
    with pytest.raises(ValueError, match="so does StochasticWeightAveraging.*WeightAveraging or EMAWeightAveraging"):
        make_trainer(tmp_path, MetaLRCallback(policy), StochasticWeightAveraging(0.1)).fit(Module(), loader())


@pytest.mark.parametrize(
    "make",
    [averaging.WeightAveraging, lambda: averaging.EMAWeightAveraging(decay=0.9)],
    ids=["swa", "ema"],
)
def test_averaged_weights_change_no_rate_and_resume(tmp_path, make):
    policy, rates, finals = random_policy(strength=0.1), [], []
    for callbacks in ([], [make()]):
        module = Module()
        make_trainer(tmp_path, MetaLRCallback(policy), *callbacks, max_epochs=2).fit(module, loader())
        rates.append(applied(module))
        finals.append(module)
    assert rates[0] == rates[1]
    pairs = list(zip(finals[0].parameters(), finals[1].parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in pairs)  # the second is the average

    checkpoint = ModelCheckpoint(tmp_path / "c", every_n_train_steps=5, save_top_k=-1)
    make_trainer(tmp_path, MetaLRCallback(policy), make(), checkpoint, max_epochs=2).fit(Module(), Resumable())
    resumed = Module()
    (path,) = (tmp_path / "c").glob("*step=5.ckpt")
    trainer = make_trainer(tmp_path, MetaLRCallback(policy), make(), max_epochs=2)
    trainer.fit(resumed, Resumable(), ckpt_path=path, weights_only=False)
    assert applied(resumed) == rates[0][5:]
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), finals[1].parameters(), strict=True))


def test_a_torch_average_beside_a_plain_loop(policy):
    """torch.optim.swa_utils.AveragedModel has no rate of its own."""
    from tests.problem import batches, make_run

    run, other = make_run("sgd", policy), make_run("sgd", policy)
    average = torch.optim.swa_utils.AveragedModel(run.model)
    for batch in batches(10):
        run.train([batch])
        average.update_parameters(run.model)
    assert run.rates == other.train(batches(10)).rates
