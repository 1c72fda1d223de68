"""Boosted trees against XGBoost's own training, under torch's schedules and MetaLR, saved and resumed."""

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xgboost
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score
from torch.optim.lr_scheduler import CosineAnnealingLR

from datamodules import AdultDataModule
from datamodules.adult import Arrays
from metalr import MetaLRCallback
from models import BoostedTrees, Boosting
from tests.conftest import random_policy
from tests.models.trees import Trees
from tests.real import DATA, datasets_cache, needs_data  # noqa: F401

ROUNDS = 20


def table(rows=400, seed=0):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(rows, 3)).astype(np.float32)
    features[:, 2] = generator.integers(1, 4, rows)
    features[::7, 0] = np.nan
    labels = (np.nan_to_num(features[:, 0]) + features[:, 1] + 0.5 * generator.normal(size=rows) > 0.4).astype(
        np.float32
    )
    return Arrays(features, labels, ["a", "b", "c"], ["q", "q", "c"])


class TableData(L.LightningDataModule):
    """Random rows in the place of Adult's."""

    def arrays(self, split):
        return table(seed=0 if split == "train" else 1)

    def loader(self, split="val"):
        features, labels, *_ = self.arrays(split)
        codes = torch.from_numpy(features[:, 2:]).long()
        rows = torch.utils.data.TensorDataset(torch.from_numpy(features[:, :2]), codes, torch.from_numpy(labels))
        return torch.utils.data.DataLoader(rows, batch_size=100)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = loader


def trainer(tmp_path, **arguments):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    checkpoints = {"enable_checkpointing": False, "default_root_dir": tmp_path}
    return L.Trainer(**(quiet | checkpoints | {"max_epochs": -1, "limit_val_batches": 0} | arguments))


def reference(data, rates, **params):
    """`xgboost.train` with the built-in objective, and its rows."""
    rows = xgboost.DMatrix(*data[:2], feature_names=data.names, feature_types=data.types, enable_categorical=True)
    params = {"objective": "binary:logistic", "max_depth": 6, "tree_method": "hist", "nthread": 1, "seed": 0} | params
    booster = xgboost.Booster(params, [rows])
    for round, rate in enumerate(rates):
        booster.set_param("learning_rate", rate)
        booster.update(rows, round)
    return booster, rows


def grow(model, data, rates=(0.1,) * ROUNDS, schedule=None):
    """The margins after each round, and the rates."""
    model.attach(*data)
    optimizer = Boosting(model.parameters(), rates[0])
    scheduler = schedule(optimizer) if schedule else None
    history, used = [], []
    for _ in rates:
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(model.margins, model.labels).backward()
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if scheduler:
            scheduler.step()
        history.append(model.margins.detach().numpy().copy())
    return history, used


def adult():
    data = AdultDataModule(str(DATA / "adult"), standardise=False)
    data.setup("fit")
    return data


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("schedule", [None, lambda optimizer: CosineAnnealingLR(optimizer, ROUNDS)])
def test_each_round_is_xgboosts_own_on_real_data(schedule):
    data = adult()
    train, test = data.arrays("train"), data.arrays("test")
    model = BoostedTrees()
    history, rates = grow(model, train, schedule=schedule)
    assert (len(set(rates)) == 1) == (schedule is None)
    booster, rows = reference(train, rates, base_score=float(train.labels.mean()))
    for round, margins in enumerate(history, 1):
        expected = booster.predict(rows, output_margin=True, iteration_range=(0, round))
        np.testing.assert_allclose(margins, expected, atol=1e-5)
    held_out = xgboost.DMatrix(
        test.features, feature_names=test.names, feature_types=test.types, enable_categorical=True
    )
    expected = booster.predict(held_out, output_margin=True)
    np.testing.assert_allclose(model(*data.splits["test"].tensors[:2]).numpy(), expected, atol=1e-5)
    if schedule is None:  # and that is what xgboost.train itself does
        params = {"objective": "binary:logistic", "base_score": float(train.labels.mean()), "eta": 0.1, "nthread": 1}
        whole = xgboost.train(params | {"max_depth": 6, "tree_method": "hist"}, rows, ROUNDS)
        np.testing.assert_allclose(whole.predict(held_out, output_margin=True), expected, atol=1e-5)


def test_gradient_and_step_are_those_of_the_mean_loss():
    data = table()
    model = BoostedTrees(base_score=0.5)
    model.attach(*data)
    assert model.margins.abs().max() == 0
    optimizer = Boosting(model.parameters(), lr=0.2)
    F.binary_cross_entropy_with_logits(model.margins, model.labels).backward()
    expected = (0.5 - torch.from_numpy(data.labels)) / len(data.labels)
    torch.testing.assert_close(model.margins.grad, expected)
    optimizer.step()
    moved = model.margins.detach().clone()
    other = BoostedTrees(base_score=0.5)
    history, _ = grow(other, data, rates=(0.4,))
    torch.testing.assert_close(torch.from_numpy(history[0]), 2 * moved)  # by lr times one and the same tree
    assert float(moved @ model.margins.grad) < 0  # downhill


def test_metalr_drives_it_and_sees_descent(tmp_path):
    callback = MetaLRCallback(random_policy())
    model = Trees(n_estimators=12, params={"subsample": 0.9})
    run = trainer(tmp_path, callbacks=[callback])
    run.fit(model, datamodule=TableData())
    assert run.global_step == 12
    assert model.booster.num_boosted_rounds() == 12
    (controller,) = callback.controllers
    assert controller.total_steps == 12
    assert controller.last_step == 12
    assert controller.last_lr[0] != 0.3
    prior = model.labels.mean()
    start = F.binary_cross_entropy(prior.expand_as(model.labels), model.labels)
    assert F.binary_cross_entropy_with_logits(model.margins, model.labels) < start


def test_a_checkpoint_tests_and_resumes_the_same(tmp_path):
    data = TableData()
    whole = Trees(n_estimators=8)
    trainer(tmp_path).fit(whole, datamodule=data)
    half = trainer(tmp_path, max_steps=4)
    half.fit(Trees(n_estimators=8), datamodule=data)
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed, run = Trees(n_estimators=8), trainer(tmp_path)
    run.fit(resumed, datamodule=data, ckpt_path=tmp_path / "half.ckpt")
    torch.testing.assert_close(resumed.margins, whole.margins)

    run.save_checkpoint(tmp_path / "whole.ckpt")
    before = run.test(resumed, datamodule=data, verbose=False)[0]
    loaded = BoostedTrees()
    after = trainer(tmp_path).test(loaded, datamodule=data, ckpt_path=tmp_path / "whole.ckpt", verbose=False)[0]
    assert before == after
    state = torch.load(tmp_path / "whole.ckpt", weights_only=True)["state_dict"]
    assert state["_extra_state"].dtype == torch.uint8
    standalone = xgboost.Booster()
    standalone.load_model(bytearray(state["_extra_state"].numpy().tobytes()))
    rows = xgboost.DMatrix(data.arrays("val").features, feature_names=["a", "b", "c"], feature_types=["q", "q", "c"])
    probabilities = torch.cat(trainer(tmp_path).predict(loaded, datamodule=data))
    np.testing.assert_allclose(standalone.predict(rows), probabilities, atol=1e-6)


def test_metrics_are_scikit_learns(tmp_path):
    data, model = TableData(), Trees(n_estimators=5)
    run = trainer(tmp_path)
    run.fit(model, datamodule=data)
    metrics = run.test(model, datamodule=data, verbose=False)[0]
    labels = data.arrays("val").labels
    probabilities = torch.cat(run.predict(model, datamodule=data)).numpy()
    guesses = probabilities > 0.5
    expected = {
        "accuracy": accuracy_score(labels, guesses),
        "precision": precision_score(labels, guesses),
        "recall": recall_score(labels, guesses),
        "f1": f1_score(labels, guesses),
        "auc": roc_auc_score(labels, probabilities),
    }
    assert {name: metrics[f"test/{name}"] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_what_is_refused(tmp_path):
    for arguments in ({"n_estimators": 0}, {"base_score": 1.0}, {"params": {"eta": 0.1}}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            BoostedTrees(**arguments)
    with pytest.raises(RuntimeError, match="has no trees yet"):
        BoostedTrees().booster  # noqa: B018
    with pytest.raises(ValueError, match="labelled 0 or 1"):
        BoostedTrees().attach(*table()._replace(labels=np.full(400, 2.0, np.float32)))
    with pytest.raises(ValueError, match="give base_score"):
        BoostedTrees().attach(*table()._replace(labels=np.zeros(400, np.float32)))
    with pytest.raises(ValueError, match=r"needs one with arrays\('train'\)"):
        trainer(tmp_path).fit(Trees(), torch.utils.data.DataLoader([0]))
    with pytest.raises(ValueError, match=r"lr=0\.0"):
        Boosting(BoostedTrees().parameters(), lr=0.0)
    with pytest.raises(ValueError, match=r"Margins of models\.BoostedTrees"):
        Boosting(torch.nn.Linear(1, 1).parameters())
    model, other = BoostedTrees(), BoostedTrees()
    grow(model, table(), rates=(0.1,))
    other.attach(*table(rows=50))
    with pytest.raises(ValueError, match="trained on 400 rows, the data has 50"):
        other.load_state_dict(model.state_dict())
