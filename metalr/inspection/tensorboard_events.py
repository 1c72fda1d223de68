"""TensorBoard events of an inspection: scalars of each decision, their charts, a run's row of hyperparameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from metalr.inspection.trace import Trace


def suffix(index: int) -> str:
    """Returns the suffix of an optimizer's tags: "" for the first, then "-1", "-2" and so on."""
    return "" if index == 0 else f"-{index}"


def columns(trace: Trace, own: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the tag and the values (N,) of every scalar of a trace; `own` is the optimizer's suffix."""
    decision = f"decision{own}"
    yield f"{decision}/lr", trace.lr
    yield f"{decision}/lr_reference", trace.reference
    yield f"{decision}/log_multiplier", trace.log_multiplier
    yield f"{decision}/change", trace.change
    yield f"{decision}/change_bound", trace.bound
    for i, name in enumerate(trace.guards):
        yield f"guard{own}/{name}", trace.counts[:, i]
    for i, name in enumerate(trace.features):
        yield f"feature{own}/{name}", trace.values[:, i]
        yield f"contribution{own}/{name}", trace.contributions[:, i]
    yield f"contribution{own}/constant", trace.constant


def write_decisions(writer: Any, trace: Trace, own: str = "") -> None:
    """Writes the N decisions of a trace to a `SummaryWriter`, one event each, with the time at which it was taken."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    named = list(columns(trace, own))
    file = writer._get_file_writer()  # add_scalar would make an event of each of some fifty values
    for row in range(len(trace)):
        values = [Summary.Value(tag=tag, simple_value=float(array[row])) for tag, array in named]
        file.add_summary(Summary(value=values), int(trace.step[row]), float(trace.time[row]))


def layout(trace: Trace, own: str = "") -> dict[str, list[Any]]:
    """Returns charts for TensorBoard's Custom Scalars: the rate beside its reference, the change within its bound, ...

    TensorBoard draws all lines of a run in one colour, so features and contributions are shown by the pictures alone.
    """
    decision = f"decision{own}"
    charts = {
        "rate beside its reference schedule": [f"{decision}/lr", f"{decision}/lr_reference"],
        "log multiplier s = log(rate / reference), nats": [f"{decision}/log_multiplier"],
        "change of s and its bound, nats": [f"{decision}/change", f"{decision}/change_bound"],
        "interventions of the guards so far": [f"guard{own}/{name}" for name in trace.guards],
    }
    return {title: ["Multiline", [f"^{tag}$" for tag in chart]] for title, chart in charts.items()}


def write_run(folder: str, hyperparameters: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
    """Writes a run's row of TensorBoard's HParams table to a folder of its own.

    TensorBoard makes a column of every scalar below that folder, so the final metrics alone are written there. No list
    of columns is written: it would be one run's, and TensorBoard collects that of all runs where there is none.

    Args:
        folder: that gets the event file.
        hyperparameters: by name.
        metrics: final values by name.
        step: optimizer steps done.
    """
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    with SummaryWriter(folder) as writer:
        untyped: Any = hparams
        _, start, end = untyped(dict(hyperparameters), dict(metrics))
        file = writer._get_file_writer()
        file.add_summary(start)
        file.add_summary(end)
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)
