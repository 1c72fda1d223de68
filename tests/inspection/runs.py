"""Small recordings of a run and of a meta-training, made without a Trainer."""

from dataclasses import replace

import numpy as np

from metalr import LRPolicy
from metalr.inspection import Mark, MetaHistory, Recorder, TaskRuns, Trace, responses
from metalr.inspection.decimation import Decimation
from metalr.inspection.response import support_states
from tests.problem import Run, batches, make_run


def recorded(policy: LRPolicy, steps: int = 90, optimizer: str = "adam", capacity: int = 16) -> tuple[Run, Recorder]:
    run = make_run(optimizer, policy, None if policy.anytime else steps)
    recorder = Recorder(run.meta_lr, Decimation(8, capacity))
    for batch in batches(steps):
        run.train([batch])
        recorder.offer()
    recorder.finish()
    recorder.resolve()
    return run, recorder


def marked(trace: Trace) -> Trace:
    return replace(trace, marks=(Mark("val/loss 0.5", 20), Mark("val/loss 0.2", 60)))


def history(policy, runs: bool = True) -> MetaHistory:
    found = responses(policy, support_states(policy), whole=True)
    kept = MetaHistory.start(10, found)
    for step in range(20, 200, 10):
        kept = kept.add(step, found, Decimation(2, 6))
    curve = -np.linspace(0.1, 1.0, 6).reshape(2, 3)
    one = TaskRuns("task_a", np.array([0.01, 0.1]), np.arange(4), np.ones((2, 4)), np.array([1, 2, 4]), curve, curve)
    return replace(kept, runs=(one, replace(one, name="task_b")) if runs else (), runs_at=190)
