"""A small run that is recorded, without a Trainer."""

from metalr import LRPolicy
from metalr.inspection import Mark, Recorder, Trace
from metalr.inspection.decimation import Decimation
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
    from dataclasses import replace

    return replace(trace, marks=(Mark("val/loss 0.5", 20), Mark("val/loss 0.2", 60)))
