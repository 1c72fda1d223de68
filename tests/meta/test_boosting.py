"""Inner runs of boosted trees: those of `BoostedTrees` under `MetaLR`, many at once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xgboost

from metalr import MetaLR
from metalr.core.features import ANYTIME_FEATURES
from metalr.core.guards import Guards
from metalr.core.policy import LRPolicy
from metalr.integrations.boosting_losses import LOSSES, Rows
from metalr.integrations.xgboost import MetaLRTrainingCallback
from metalr.meta import Component, HeldOutTask, InnerTraining, TaskDistribution, Unroll, rollout
from metalr.meta.boosting_task import OBJECTIVES
from metalr.meta.families import BoostedTreesTasks
from metalr.meta.hyperparameters import PRIORS, Hyperparameters
from models import BoostedTrees, Boosting
from tests.conftest import random_policy

STEPS = 12


def problem(instances: int = 3, **changes):
    given = {"train_sizes": (120,), "valid_size": 60} | changes
    return BoostedTreesTasks(**given).sample(instances, torch.Generator().manual_seed(1))


def inner(rates, steps: int = STEPS) -> InnerTraining:
    return InnerTraining("boosting", Hyperparameters.of(torch.tensor(rates)[:, None]), steps)


@pytest.mark.parametrize("lr", [0.01, 0.3, 3.0])
def test_an_inner_run_is_a_real_one(lr):
    """Feature by feature, rate by rate, tree by tree, of a table with categories."""
    tables, policy = problem(8), random_policy(strength=0.05)
    tables = tables.select(torch.tensor([i for i, table in enumerate(tables.train) if "c" in table.types][:1]))
    runs = rollout(tables, inner([lr]), policy.function(), record=True, evaluations=STEPS)

    model = BoostedTrees(max_depth=tables.params[0]["max_depth"], params=_others(tables.params[0]), seed=_seed(tables))
    names = [f"f{i}" for i in range(len(tables.train[0].types))]
    model.attach(tables.train[0].features, tables.train[0].labels, names, list(tables.train[0].types))
    optimizer = Boosting([model.margins], lr=lr)
    meta_lr = MetaLR(optimizer, STEPS, policy, guards=Guards.none())
    for step, record in enumerate(runs.records):
        loss = F.binary_cross_entropy_with_logits(model.margins, model.labels)
        optimizer.zero_grad()
        loss.backward()
        meta_lr.step(loss)
        optimizer.step()
        assert float(record.loss) == pytest.approx(loss.item(), abs=1e-5), step
        assert float(record.lr) == pytest.approx(meta_lr.last_lr[0], rel=1e-3), step
        features = torch.as_tensor(meta_lr._features).reshape(1, -1).float()
        assert torch.allclose(record.features, features, atol=5e-3), step
        margins = torch.from_numpy(model.margins.ensemble.margins(tables.valid[0].features))
        valid = F.binary_cross_entropy_with_logits(margins, torch.from_numpy(tables.valid[0].labels))
        ratio = (valid / runs.initial).log().clamp(-10, 1.5)
        assert float(runs.curve[step]) == pytest.approx(float(ratio), abs=1e-3), step


def _others(params):
    return {k: v for k, v in params.items() if k not in ("max_depth", "seed")}


def _seed(tables):
    return tables.params[0]["seed"]


def test_copies_of_an_instance_differ_by_their_rates_alone():
    tables, policy = problem(), LRPolicy()
    runs = Unroll(tables, inner([0.1, 0.2, 0.3]), copies=2)
    action_noise = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    runs.advance(policy.function())
    first, second = runs.optimizees.margins.chunk(2)
    assert torch.equal(first, second)
    runs.advance(policy.function(), action_noise)
    first, second = runs.optimizees.margins.chunk(2)
    assert not torch.isclose(first, second).all(1).any()


def test_runs_go_on_from_their_state():
    tables, policy = replace(problem(), params=[{"max_depth": 4}] * 3), random_policy(strength=0.05)
    function = policy.function()
    whole = Unroll(tables, inner([0.1, 0.2, 0.3]), copies=2)
    for _ in range(5):
        whole.advance(function)
    other = Unroll(tables, inner([0.1, 0.2, 0.3]), copies=2)
    other.load_state_dict(whole.state_dict())
    for _ in range(4):
        a, b = whole.advance(function), other.advance(function)
        assert torch.allclose(a.lr, b.lr, rtol=1e-4)
    assert torch.allclose(whole.log_ratio(), other.log_ratio(), atol=1e-4)


def test_some_of_the_instances_are_what_they_were_among_all():
    tables, policy = problem(), LRPolicy()
    function = policy.function()
    whole = rollout(tables, inner([0.1, 0.2, 0.3]), function).curve
    part = rollout(tables.select(slice(1, 3)), inner([0.2, 0.3]), function).curve
    assert torch.allclose(whole[:, 1:], part)


@pytest.mark.parametrize(
    ("labels", "real"),
    [("noisy", False), ("noisy", True), ("classes", False), ("classes", True), ("values", True)]
    + [(labels, False) for labels in ("clean_classes", "robust", "counts", "hinge")],
)
def test_trees_learn_the_tables(labels, real):
    sizes = (
        {"train_sizes": (300,), "valid_size": 140} if labels == "values" else {"train_sizes": (600,), "valid_size": 400}
    )
    tables, policy = problem(6, real=real, labels=labels, **sizes), LRPolicy()
    curve = rollout(tables, inner([0.1] * 6, 30), policy.function()).curve
    assert float(curve[-1].mean()) < -0.1


def test_tables_have_both_classes_and_sometimes_categories_and_gaps():
    tables = problem(20, train_sizes=(40,), valid_size=20)
    for part in (*tables.train, *tables.valid):
        assert set(np.unique(part.labels)) == {0.0, 1.0}
        assert part.features.shape[1] == len(part.types)
    assert any("c" in part.types for part in tables.train)
    assert any(np.isnan(part.features).any() for part in tables.train)


@pytest.mark.parametrize("real", [False, True])
def test_the_trees_of_several_classes_are_xgboosts(real):
    """At a constant rate; a step grows a tree for each class."""
    tables = problem(2, labels="classes", real=real)
    runs = Unroll(tables, replace(inner([0.3, 0.3]), anytime=True))
    for _ in range(STEPS):
        runs.advance(LRPolicy(ANYTIME_FEATURES).function())
    for run, table in enumerate(tables.train):
        params = {"objective": "multi:softprob", "num_class": tables.outputs, "base_score": 0.0, "nthread": 1}
        booster = xgboost.train(tables.params[run] | params | {"learning_rate": 0.3}, table.matrix, STEPS)
        margins = booster.predict(table.matrix, output_margin=True)
        assert margins.shape == (len(table.labels), tables.outputs)
        assert runs.optimizees.margins[run].tolist() == pytest.approx(margins.flatten().tolist(), abs=1e-4)
        predicted = torch.from_numpy(booster.predict(tables.valid[run].matrix, output_margin=True))
        loss = F.cross_entropy(predicted, torch.from_numpy(tables.valid[run].labels).long())
        assert float(runs.optimizees.validate()[run]) == pytest.approx(loss.item(), rel=1e-4)
    assert tables.outputs in ((10,) if real else (3, 4, 6, 10))
    assert set(np.unique(tables.train[0].labels)) <= set(range(tables.outputs))


@pytest.mark.parametrize("labels", ["noisy", "classes", "values", "robust"])
def test_the_derivatives_of_an_objective_are_those_of_its_losses(labels):
    """The hessian of several classes is twice the diagonal one, as XGBoost has it."""
    tables = problem(2, labels=labels)
    objective = OBJECTIVES[tables.objective]
    targets = torch.stack([torch.from_numpy(table.labels) for table in tables.train]).double()
    margins = torch.randn(2, targets.shape[1] * tables.outputs, dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(objective.losses(margins, targets).sum(), margins, create_graph=True)
    expected, hessian = objective.derivatives(margins.detach(), targets)
    torch.testing.assert_close(gradient.detach(), expected)
    for place in range(4):
        second = torch.autograd.grad(gradient[0, place], margins, retain_graph=True)[0][0, place]
        assert float(hessian[0, place]) == pytest.approx(float(second) * (2 if labels == "classes" else 1))


OTHERS = {
    "values": ("reg:squarederror", {}),
    "robust": ("reg:pseudohubererror", {"huber_slope": 1.0}),
    "counts": ("count:poisson", {}),
    "hinge": ("binary:hinge", {}),
}
"""XGBoost's objective for labels of each kind; its parameters for it."""


@pytest.mark.parametrize("labels", OTHERS)
def test_the_trees_and_the_losses_of_other_objectives_are_xgboosts(labels):
    """At a constant rate, which an untrained policy without a horizon sets."""
    tables, (name, options) = problem(2, labels=labels), OTHERS[labels]
    runs = Unroll(tables, replace(inner([0.3, 0.3]), anytime=True))
    for _ in range(STEPS):
        runs.advance(LRPolicy(ANYTIME_FEATURES).function())
    for run, table in enumerate(tables.train):
        base = 0.0 if labels == "hinge" else float(table.labels.mean())
        params = {"objective": name, "base_score": base, "nthread": 1, **options}
        booster = xgboost.train(tables.params[run] | params | {"learning_rate": 0.3}, table.matrix, STEPS)
        margins = booster.predict(table.matrix, output_margin=True)
        assert runs.optimizees.margins[run].tolist() == pytest.approx(margins.tolist(), abs=1e-3)
        valid = tables.valid[run]
        predicted = torch.from_numpy(booster.predict(valid.matrix, output_margin=True))
        rows = Rows(torch.from_numpy(valid.labels), torch.ones(len(predicted)), {"huber_slope": "1"})
        loss = float(LOSSES[name](predicted, rows).mean())
        if labels == "counts":  # up to what the labels alone make of it
            loss += float((torch.xlogy(rows.labels, rows.labels) - rows.labels).mean())
        assert float(runs.optimizees.validate()[run]) == pytest.approx(loss, rel=1e-3)


@pytest.mark.parametrize("labels", ["values", "robust", "counts", "hinge", "classes"])
def test_the_policy_sees_what_it_sees_of_an_xgboost_train(labels):
    """Rate by rate, in the frame of the objective."""
    tables, policy = problem(1, labels=labels), random_policy(strength=0.1)
    runs = rollout(tables, inner([0.3]), policy.function(), record=True)
    name = OBJECTIVES[tables.objective].name
    base = {"base_score": 0.0} if labels in ("hinge", "classes") else {}
    base |= {"num_class": tables.outputs} if labels == "classes" else {}
    callback = MetaLRTrainingCallback(total_steps=STEPS, policy=policy, guards=Guards.none())
    params = tables.params[0] | {"objective": name, "eta": 0.3, "nthread": 1, **base}
    xgboost.train(params, tables.train[0].matrix, STEPS, callbacks=[callback])
    assert callback.rates == pytest.approx([float(record.lr) for record in runs.records], rel=0.05)
    assert len(set(callback.rates)) == STEPS


def test_clean_labels_can_be_learned_to_the_end():
    """Of the loss on the training rows, 60 trees leave less than a tenth; of noisy labels, more."""
    left = {}
    for labels in ("clean", "noisy"):
        tables = problem(6, train_sizes=(400,), labels=labels)
        runs = Unroll(tables, inner([0.3] * 6, 60))
        first = runs.optimizees.measure().loss
        for _ in range(60):
            runs.advance(LRPolicy().function())
        left[labels] = float((runs.optimizees.measure().loss / first).median())
    assert left["clean"] < 0.1 < left["noisy"]


def test_a_family_names_its_optimizer():
    component = Component(BoostedTreesTasks((40,), 20), horizons=(3, 5))
    for index in range(3):
        batch = TaskDistribution({"trees": component}, decades=4.0).sample(index, 4)
        assert batch.inner.optimizer == "boosting"
        assert bool(((batch.inner.hyper.lr >= 1e-3) & (batch.inner.hyper.lr <= 10.0)).all())
    assert PRIORS["boosting"].usual_lr == Boosting(BoostedTrees().parameters()).defaults["lr"]


def test_an_untrained_policy_is_as_good_as_cosine_on_a_held_out_set():
    task = HeldOutTask("trees", BoostedTreesTasks((100,), 50), "boosting", total_steps=5, instances=2, rates=3)
    assert float(task.score(LRPolicy(), True, torch.device("cpu")).worst) >= 0


def test_bad_requests_are_named():
    with pytest.raises(ValueError, match="the real sets have 1797 at most"):
        problem(train_sizes=(1500,), valid_size=1500, real=True)
    for labels in ("clean", "robust"):
        with pytest.raises(
            ValueError, match=f"labels='{labels}', real=True: choose .*; with real, of noisy, classes, val"
        ):
            problem(labels=labels, real=True)
    with pytest.raises(ValueError, match="the real sets have 442 at most"):
        problem(train_sizes=(400,), valid_size=100, real=True, labels="values")
    with pytest.raises(ValueError, match="device=cuda: boosted trees are meta-trained on the CPU"):
        problem().to(torch.device("cuda"))
