"""See why: what a policy did in a run, what each feature added to it, and how it responds.

`callbacks.Inspector` records a run, `callbacks.MetaInspector` a meta-training, and `python train.py inspect` shows
either, or a policy alone; the parts:

- `thinning`: which steps are kept, so that a long run stays small, and when a figure is drawn.
- `trace`: decisions that were kept. `recorder`: keeps them. `history`: what is kept of a meta-training.
- `response`: how a policy's increment depends on each feature.
- `plot_decisions`, `plot_responses`: figures, on a `canvas`. `scalars`: what goes to TensorBoard.
- `terminal`, `command`: the subcommand `inspect`.
"""

from metalr.inspection.history import MetaHistory, TaskRuns
from metalr.inspection.recorder import Recorder
from metalr.inspection.response import Responses, responses
from metalr.inspection.trace import Mark, Trace

__all__ = ["Mark", "MetaHistory", "Recorder", "Responses", "TaskRuns", "Trace", "responses"]
