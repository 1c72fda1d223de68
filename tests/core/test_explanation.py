"""Decisions copied as they were taken, and attributed later, all at once."""

import torch

from metalr.core.explanation import attribute
from metalr.core.update_rule import Clock, clock_row
from tests.problem import batches, make_run


def test_many_snapshots_are_attributed_as_each_was_explained(policy):
    run = make_run("adam", policy)
    seen, explained = [], []
    for batch in batches(9):
        run.train([batch])
        seen.append(run.meta_lr.snapshot())
        explained.append(run.meta_lr.explain())
    clocks = Clock.from_row(torch.tensor([clock_row(s.step, s.total_steps) for s in seen]).T)
    read = policy.select(torch.cat([s.features for s in seen]))
    found = attribute(policy, read, clocks, torch.cat([s.finite for s in seen]))
    changes = torch.cat([s.change for s in seen])
    assert float(changes.abs().min()) > 0
    torch.testing.assert_close(found.change, changes, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.contributions.sum(1) + found.constant, changes, atol=1e-5, rtol=0)
    for row, each in zip(found.contributions, explained, strict=True):
        each_part = torch.tensor([part.contribution for part in each.features.values()])
        torch.testing.assert_close(row, each_part, atol=1e-5, rtol=1e-5)


def test_a_step_that_was_not_finite_has_no_features_to_blame(policy):
    run = make_run("sgd", policy).train(batches(3))
    run.train(batches(1), change=lambda loss: loss * float("nan"))
    explained = run.meta_lr.explain()
    assert explained.change == explained.constant < 0
    assert not bool(run.meta_lr.snapshot().finite)


def test_a_snapshot_stays_as_it_was(policy):
    run = make_run("sgd", policy).train(batches(3))
    seen = run.meta_lr.snapshot()
    features, log_multiplier = seen.features.clone(), float(seen.log_multiplier)
    run.train(batches(3, seed=1))
    assert torch.equal(seen.features, features)
    assert float(seen.log_multiplier) == log_multiplier
    assert not torch.equal(run.meta_lr.snapshot().features, features)
    assert seen.step == 2
    assert float(seen.loss) > 0
