"""Validation losses that the batched runs show the policy: of other samples, at intervals, or never."""

from dataclasses import replace

import pytest
import torch

from metalr import LRPolicy
from metalr.core.features import FEATURES
from metalr.core.validation_loss import VALIDATION_FEATURES
from metalr.meta import (
    PES,
    Component,
    Episode,
    HeldOutTask,
    InnerTraining,
    MetaLearner,
    Split,
    TaskDistribution,
    TruncatedBackprop,
    Unroll,
    rollout,
)
from metalr.meta.families import BoostedTreesTasks, MLPTasks, QuadraticTasks
from metalr.meta.hyperparameters import PRIORS
from tests.conftest import validating_policy

STEPS = 12
RECENCY = FEATURES.index("validation_recency")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(interval: int | None, optimizer: str = "adam", instances: int = 3):
    task = MLPTasks(sources=["clusters"], train_sizes=(64,), valid_size=21).sample(instances, generator())
    hyper = PRIORS[optimizer].sample(instances, generator(), 0.5)
    return task, InnerTraining(optimizer, hyper, STEPS, validation_interval=interval)


def test_halves_share_no_sample():
    first, second = Split(torch.arange(10.0).view(2, 5), torch.arange(10).view(2, 5)).halves()
    assert first.inputs.tolist() == [[0.0, 1.0], [5.0, 6.0]]
    assert second.targets.tolist() == [[2, 3, 4], [7, 8, 9]]
    with pytest.raises(ValueError, match="1 samples have no two halves"):
        Split(torch.zeros(2, 1), torch.zeros(2, 1)).halves()


def test_the_policy_never_sees_what_it_is_scored_by():
    """Samples that are scored change no rate, and those that are shown no score at an equal rate."""
    task, inner = make(3)
    half = 10

    def changed(part: slice):
        inputs = task.valid.inputs.clone()
        inputs[:, part] = -inputs[:, part]
        return replace(task, valid=Split(inputs, task.valid.targets))

    policy, untrained = validating_policy(strength=0.1).function(), LRPolicy().function()
    rates = lambda of: [record.lr for record in rollout(of, inner, policy, record=True).records]  # noqa: E731
    scored, shown = changed(slice(half, None)), changed(slice(None, half))
    assert all(torch.equal(a, b) for a, b in zip(rates(task), rates(scored), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(rates(task), rates(shown), strict=True))
    assert torch.equal(rollout(task, inner, untrained).curve, rollout(shown, inner, untrained).curve)
    assert not torch.equal(rollout(task, inner, untrained).curve, rollout(scored, inner, untrained).curve)


def test_losses_are_shown_at_the_interval_and_not_before_the_first():
    task, inner = make(5)
    records = rollout(task, inner, LRPolicy().function(), record=True).records
    recency = [float(record.features[0, RECENCY]) for record in records]
    assert recency[:5] == [0.0] * 5
    assert [step for step, value in enumerate(recency) if value == 2.0] == [5, 10]
    assert 0.0 < recency[9] < recency[6] < 2.0


def test_never_is_the_run_of_before():
    task, inner = make(None)
    records = rollout(task, inner, validating_policy(strength=0.1).function(), record=True).records
    columns = [FEATURES.index(name) for name in VALIDATION_FEATURES]
    assert float(torch.stack([record.features for record in records])[..., columns].abs().max()) == 0.0


def test_a_loss_waits_for_a_finite_step_and_is_part_of_the_state():
    task, inner = make(3)
    runs, function = Unroll(task, inner), validating_policy(strength=0.1).function()
    for _ in range(3):
        runs.advance(function)
    measure = runs.optimizees.measure
    runs.optimizees.measure = lambda: measure()._replace(loss=torch.tensor([1.0, float("nan"), 1.0]))
    runs.advance(function)
    runs.optimizees.measure = measure
    assert torch.isnan(runs._shown).tolist() == [True, False, True]
    again = Unroll(task, inner)
    again.load_state_dict(runs.state_dict())
    first, second = runs.advance(function), again.advance(function)
    assert first.features[1, RECENCY] == 2.0
    assert torch.equal(first.features, second.features)


@pytest.mark.parametrize("estimator", [PES(pairs=3, truncations=3), TruncatedBackprop(pairs=3, truncations=3)])
def test_estimators_in_truncations_are_finite(estimator):
    task, inner = make(2)
    episode, policy = Episode(task, inner), validating_policy(strength=0.01).requires_grad_(True)
    while not episode.done:
        assert bool(torch.isfinite(estimator.estimate(policy, episode).gradient).all())


def test_boosted_trees_show_some_rows_and_are_scored_by_the_others():
    task = BoostedTreesTasks((60,), 21).sample(2, generator())
    inner = InnerTraining("boosting", PRIORS["boosting"].sample(2, generator(), 0.5), 6, validation_interval=1)
    runs = Unroll(task, inner)
    for _ in range(4):
        record = runs.advance(LRPolicy().function())
    losses = runs.optimizees._valid_losses()
    assert torch.allclose(runs.optimizees.shown_validation(), losses[:, :10].mean(1))
    assert torch.allclose(runs.optimizees.validate(), losses[:, 10:].mean(1))
    assert record.features[:, RECENCY].tolist() == [2.0, 2.0]
    never = Unroll(task, replace(inner, validation_interval=None)).optimizees
    assert torch.allclose(never.validate(), never._valid_losses().mean(1))


def test_intervals_are_drawn_and_change_nothing_else():
    components = {"q": Component(QuadraticTasks(train_sizes=(8,), valid_size=4), horizons=(40, 1000))}
    without, with_some, always = (TaskDistribution(components, validated=share) for share in (0.0, 0.6, 1.0))
    intervals, shares = [], []
    for index in range(60):
        plain, some, each = (distribution.sample(index, 1) for distribution in (without, with_some, always))
        assert plain.inner.validation_interval is None
        assert torch.equal(plain.task.theta, some.task.theta)
        assert torch.equal(plain.inner.hyper.lr, some.inner.hyper.lr)
        assert plain.inner.total_steps == some.inner.total_steps
        intervals.append(some.inner.validation_interval)
        shares.append(each.inner.validation_interval / each.inner.total_steps)
    assert 10 < intervals.count(None) < 40
    assert 0.005 < min(shares) < 0.03
    assert 0.25 < max(shares) <= 0.55
    with pytest.raises(ValueError, match="validated=2"):
        TaskDistribution(components, validated=2)


def test_a_held_out_task_shows_it_too():
    family = MLPTasks(sources=["clusters"], train_sizes=(32,), valid_size=16)
    task = HeldOutTask("m", family, "sgd", 10, instances=2, rates=3, validation_interval=2)
    policy = validating_policy(strength=0.3)
    runs = task.runs(policy, False, torch.device("cpu"), record=True)
    recency = torch.stack([record.features[:, FEATURES.index("validation_recency")] for record in runs.records])
    assert bool((recency[:2] == 0.0).all())
    assert bool((recency[2::2] == 2.0).all())
    assert bool((recency[3::2] < 2.0).all())
    with pytest.raises(ValueError, match="validation_interval=0: give a number of steps"):
        replace(task, validation_interval=0).runs(policy, False, torch.device("cpu"))


def test_a_meta_training_reads_it_only_where_it_is_named():
    """So that a policy is never shown what it has not learned to read."""
    assert not MetaLearner().policy.reads_validation
    assert MetaLearner(features=FEATURES).policy.reads_validation
    assert not MetaLearner(anytime=True).policy.reads_validation
