"""What an inspection writes to TensorBoard: one event a decision, figures, and the table of runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from metalr.inspection.trace import Trace


def suffix(index: int) -> str:
    """What tells the tags of a run's optimizers apart: nothing for the first."""
    return "" if index == 0 else f"-{index}"


def columns(trace: Trace, own: str = "") -> Iterator[tuple[str, Any]]:
    """Tag and values (N,) of every scalar of a trace."""
    decision = f"decision{own}"
    yield f"{decision}/lr", trace.lr
    yield f"{decision}/lr_reference", trace.reference
    yield f"{decision}/s_nats", trace.log_multiplier
    yield f"{decision}/increment_nats", trace.change
    yield f"{decision}/increment_bound_nats", trace.bound
    for i, name in enumerate(trace.guards):
        yield f"guard{own}/{name}", trace.counts[:, i]
    for i, name in enumerate(trace.features):
        yield f"feature{own}/{name}", trace.values[:, i]
        yield f"added_nats{own}/{name}", trace.nats[:, i]
    yield f"added_nats{own}/constant", trace.constant


def write_decisions(writer: Any, trace: Trace, own: str = "") -> None:
    """Writes N decisions to a `SummaryWriter`: one event each, at the time when it was taken."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    named = list(columns(trace, own))
    file = writer._get_file_writer()  # add_scalar would make an event of each of some fifty values
    for row in range(len(trace)):
        values = [Summary.Value(tag=tag, simple_value=float(array[row])) for tag, array in named]
        file.add_summary(Summary(value=values), int(trace.step[row]), float(trace.time[row]))


def layout(trace: Trace, own: str = "") -> dict[str, list[Any]]:
    """Charts of TensorBoard's Custom Scalars that show together what belongs together.

    It draws all lines of a run in one colour, so the features are left to the pictures.
    """
    decision = f"decision{own}"
    charts = {
        "rate beside its reference schedule": [f"{decision}/lr", f"{decision}/lr_reference"],
        "s = log(rate / reference), nats": [f"{decision}/s_nats"],
        "increment and its bound, nats": [f"{decision}/increment_nats", f"{decision}/increment_bound_nats"],
        "actions of the guards so far": [f"guard{own}/{name}" for name in trace.guards],
    }
    return {title: ["Multiline", [f"^{tag}$" for tag in chart]] for title, chart in charts.items()}


def write_run(folder: str, hyperparameters: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
    """Writes a run's row for TensorBoard's HParams table to a folder of its own.

    The table takes every scalar below that folder for a column, so it holds the final metrics and nothing else; and
    without a list of columns, which would be that of one run alone, TensorBoard makes one of all runs.
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
