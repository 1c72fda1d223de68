"""The validation loss in the other frameworks: the plain loop's rates, resumption, ranks, and what is refused."""

import logging

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xgboost
from sklearn.datasets import load_diabetes
from torch import nn
from transformers import TrainingArguments

from metalr import MetaLR
from metalr.core.features import FEATURES
from metalr.integrations.fabric import FabricMetaLR
from metalr.integrations.huggingface import MetaLRTrainerCallback
from metalr.integrations.scheduler import MetaLRScheduler
from metalr.integrations.xgboost import MetaLRTrainingCallback
from tests.conftest import random_policy, validating_policy
from tests.integrations.boosting import rows
from tests.integrations.hugging_face import InOrder, Model, Recorder
from tests.problem import OPTIMIZERS, batches, make_model, make_run

STEPS, EVERY, ROWS = 12, 4, 16
RECENCY = FEATURES.index("validation_recency")
VALID = batches(2, seed=9)


def valid_loss(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return sum(F.cross_entropy(model(x), y) for x, y in VALID) / len(VALID)


def plain_rates(policy, optimizer: str = "sgd") -> list[float]:
    run = make_run(optimizer, policy, STEPS)
    for step, batch in enumerate(batches(STEPS)):
        run.train([batch])
        if (step + 1) % EVERY == 0:
            run.meta_lr.validation(valid_loss(run.model))
    return [rate for (rate,) in run.rates]


def on_fabric(fabric: L.Fabric) -> list[float]:
    """Each of two ranks gives the loss of one of two validation batches."""
    model = make_model()
    model, made = fabric.setup(model, OPTIMIZERS["sgd"](model.parameters()))
    meta_lr = FabricMetaLR(fabric, made, STEPS, validating_policy(strength=0.1))
    rates = []
    for step, batch in enumerate(batches(STEPS)):
        x, y = (part[fabric.global_rank :: fabric.world_size] for part in batch)
        loss = F.cross_entropy(model(x), y)
        made.zero_grad()
        fabric.backward(loss)
        meta_lr.step(loss)
        made.step()
        rates.append(made.param_groups[0]["lr"])
        if (step + 1) % EVERY == 0:
            mine = VALID[fabric.global_rank :: fabric.world_size]
            with torch.no_grad():
                own = sum(F.cross_entropy(model(x), y) for x, y in mine) / len(mine)
            before = own.clone()
            meta_lr.validation(own)
            assert torch.equal(own, before)  # a reduction is in place
    return fabric.all_gather(torch.tensor(rates, dtype=torch.float64)).tolist()


def test_fabric_averages_it_over_the_ranks():
    plain = plain_rates(validating_policy(strength=0.1))
    assert on_fabric(L.Fabric(accelerator="cpu")) == pytest.approx(plain, rel=1e-5)
    first, second = L.Fabric(accelerator="cpu", devices=2, strategy="ddp_fork").launch(on_fabric)
    assert first == second
    assert first == pytest.approx(plain, rel=1e-3)


def test_a_scheduler_passes_it_on():
    policy, model = validating_policy(strength=0.1), make_model()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    scheduler, rates = MetaLRScheduler(optimizer, STEPS, policy), []
    for step, (x, y) in enumerate(batches(STEPS)):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        scheduler.observe(loss)
        optimizer.step()
        rates.append(scheduler.get_last_lr()[0])
        if (step + 1) % EVERY == 0:
            scheduler.validation(valid_loss(model))
    assert rates == plain_rates(policy)


def as_rows(data) -> list[dict]:
    return [{"x": x, "labels": y} for xs, ys in data for x, y in zip(xs, ys, strict=True)]


def train(folder, callback, resume=None, valid=None, steps: int = STEPS, **options) -> None:
    defaults = {
        "learning_rate": 0.01, "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "report_to": [],
        "per_device_train_batch_size": ROWS, "per_device_eval_batch_size": ROWS, "max_steps": steps, "use_cpu": True,
        "disable_tqdm": True, "save_strategy": "no", "eval_strategy": "steps", "eval_steps": EVERY,
        "optim": "adamw_torch",
    }  # fmt: skip
    args = TrainingArguments(str(folder), **(defaults | options))
    data, valid = as_rows(batches(STEPS)), valid or as_rows(VALID)
    trainer = InOrder(Model(), args, train_dataset=data, eval_dataset=valid, callbacks=[callback])
    trainer.train(resume_from_checkpoint=resume)


def hf_plain(policy) -> list[float]:
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    run = make_run("adamw", policy, STEPS)
    run = type(run)(model, optimizer, type(run.meta_lr)(optimizer, STEPS, policy, steps_per_epoch=STEPS))
    for step, batch in enumerate(batches(STEPS)):
        run.train([batch])
        if (step + 1) % EVERY == 0:
            run.meta_lr.validation(valid_loss(model))
    return [rate for (rate,) in run.rates]


def test_hugging_faces_rates_are_the_plain_loops_and_it_resumes_to_the_last_bit(tmp_path):
    """From the checkpoint that is written after an evaluation, before the step that reads it."""
    policy = validating_policy(strength=0.1)
    whole = Recorder(policy, monitor="eval_loss")
    train(tmp_path / "a", whole, save_strategy="steps", save_steps=EVERY)
    assert whole.rates == pytest.approx(hf_plain(policy), rel=1e-5)
    resumed = Recorder(policy, monitor="eval_loss")
    train(tmp_path / "b", resumed, resume=str(tmp_path / "a" / f"checkpoint-{EVERY}"))
    assert resumed.rates == whole.rates[EVERY:]
    assert whole.state()["args"]["monitor"] == "eval_loss"


def test_hugging_faces_metric_is_one_of_several_evaluation_sets(tmp_path):
    policy, callback = validating_policy(strength=0.1), Recorder(validating_policy(strength=0.1), monitor="eval_b_loss")
    train(tmp_path, callback, valid={"a": as_rows(batches(1, seed=3)), "b": as_rows(VALID)})
    assert callback.rates == pytest.approx(hf_plain(policy), rel=1e-5)


def test_a_metric_that_is_not_evaluated_is_named_with_those_that_are(tmp_path):
    callback = MetaLRTrainerCallback(validating_policy(strength=0.1), monitor="eval_los")
    with pytest.raises(ValueError, match=r"monitor='eval_los' is not evaluated: choose of .*eval_loss"):
        train(tmp_path, callback)


def test_an_evaluation_of_another_prefix_may_come_first(tmp_path):
    callback = MetaLRTrainerCallback(validating_policy(), monitor="eval_loss")
    callback.on_evaluate(None, None, None, {"train_loss": 1.0, "epoch": 0.5})
    callback._check_monitor()
    callback.on_evaluate(None, None, None, {"eval_other": 1.0})
    with pytest.raises(
        ValueError, match="monitor='eval_loss' is not evaluated: choose of epoch, eval_other, train_loss"
    ):
        callback._check_monitor()


def test_a_monitor_of_a_policy_that_reads_none_is_reported(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "metalr"):
        train(tmp_path, MetaLRTrainerCallback(random_policy(distances=False), monitor="eval_loss"), steps=2)
    assert "monitor='eval_loss' has no effect" in caplog.text


PARAMS = {"objective": "binary:logistic", "max_depth": 3, "eta": 0.5, "nthread": 1, "base_score": 0.5}


def seen(monkeypatch) -> list[float]:
    """Fills with the losses that a controller is given."""
    losses, own = [], MetaLR.validation
    monkeypatch.setattr(MetaLR, "validation", lambda self, loss: (losses.append(float(loss)), own(self, loss)))
    return losses


def test_each_round_of_xgboost_gives_the_loss_of_its_evaluation_set(monkeypatch):
    """XGBoost's own metric, where that is the objective; the evaluation itself goes on as ever."""
    losses, results = seen(monkeypatch), {}
    callback = MetaLRTrainingCallback(total_steps=10, policy=validating_policy(strength=0.1), monitor="valid")
    evals = [(rows(), "train"), (rows(seed=1), "valid")]
    xgboost.train(PARAMS, rows(), 10, evals=evals, evals_result=results, verbose_eval=False, callbacks=[callback])
    assert losses == pytest.approx(results["valid"]["logloss"], rel=1e-5)
    assert float(callback.meta_lr._features[0, RECENCY]) == 2.0
    blind = MetaLRTrainingCallback(total_steps=10, policy=validating_policy(strength=0.1))
    xgboost.train(PARAMS, rows(), 10, evals=evals, verbose_eval=False, callbacks=[blind])
    assert blind.rates[0] == callback.rates[0]
    assert blind.rates[1:] != callback.rates[1:]


def test_its_unit_is_the_objectives_and_scikit_learns_sets_have_names(monkeypatch):
    """The metric is a root mean square, the loss half of the square."""
    losses, (x, y) = seen(monkeypatch), load_diabetes(return_X_y=True)
    callback = MetaLRTrainingCallback(total_steps=5, policy=validating_policy(strength=0.1), monitor="validation_0")
    estimator = xgboost.XGBRegressor(n_estimators=5, n_jobs=1, callbacks=[callback])
    estimator.fit(x[:300], y[:300], eval_set=[(x[300:], y[300:])], verbose=False)
    errors = np.array(estimator.evals_result()["validation_0"]["rmse"])
    assert losses == pytest.approx((0.5 * errors**2).tolist(), rel=1e-4)


def test_xgboost_reports_a_monitor_without_effect_and_names_a_set_without_labels():
    evals = [(xgboost.DMatrix(np.ones((3, 4))), "valid")]
    blind = MetaLRTrainingCallback(monitor="valid")  # `boosting_anytime`
    with pytest.warns(UserWarning, match="monitor='valid' has no effect"):
        xgboost.train(PARAMS, rows(), 3, evals=[(rows(seed=1), "valid")], verbose_eval=False, callbacks=[blind])
    callback = MetaLRTrainingCallback(total_steps=3, policy=validating_policy(), monitor="valid")
    with pytest.raises(ValueError, match="evaluation set 'valid' has no labels"):
        xgboost.train(PARAMS, rows(), 3, evals=evals, verbose_eval=False, callbacks=[callback])


@pytest.mark.parametrize(("evals", "found"), [([], "there is none"), ([(rows(), "train")], "there are train")])
def test_an_evaluation_set_that_is_not_there_is_named_with_those_that_are(evals, found):
    callback = MetaLRTrainingCallback(total_steps=3, policy=validating_policy(strength=0.1), monitor="valid")
    with pytest.raises(ValueError, match=f"monitor='valid' is no evaluation set .*{found}"):
        xgboost.train(PARAMS, rows(), 3, evals=evals, verbose_eval=False, callbacks=[callback])


def test_an_objective_of_ones_own_needs_its_loss(monkeypatch):
    def squared(predicted, data):
        return predicted - data.get_label(), np.ones_like(predicted)

    losses, evals = seen(monkeypatch), [(rows(seed=1), "valid")]
    options = {"total_steps": 3, "policy": validating_policy(strength=0.1), "monitor": "valid"}
    own = {name: value for name, value in PARAMS.items() if name not in ("objective", "base_score")}
    with pytest.raises(ValueError, match="give its loss=, too"):
        xgboost.train(own, rows(), 3, evals=evals, obj=squared, verbose_eval=False,
                      callbacks=[MetaLRTrainingCallback(**options)])  # fmt: skip
    half = MetaLRTrainingCallback(**options, loss=lambda margins, labels: 0.5 * (margins - labels).square())
    xgboost.train(own, rows(), 3, evals=evals, obj=squared, verbose_eval=False, callbacks=[half])
    assert len(losses) == 3
    assert losses[-1] < losses[0]
