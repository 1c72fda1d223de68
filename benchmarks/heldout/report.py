"""What the suite says: figures, tables and a plot, as far as its runs are done."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from benchmarks.heldout import figures
from benchmarks.heldout.figures import Scores, Table
from benchmarks.heldout.runs import DECADES, POINTS, Run
from benchmarks.heldout.schedules import LEARNED, TUNED, UNTUNED
from benchmarks.heldout.store import Store
from benchmarks.heldout.tasks import TASKS

NAMES = {
    "default": "learned",
    "anytime": "learned, horizon unknown",
    "wsd": "warmup-stable-decay",
    "one_cycle": "one-cycle",
    "linear": "linear to zero",
    "prodigy_cosine": "Prodigy with cosine",
    "schedule_free_adamw": "schedule-free AdamW",
    "schedule_free_sgd": "schedule-free SGD",
    "d_adaptation": "D-Adaptation (Adam)",
}
ORDER = (*LEARNED, "cosine", "linear", "wsd", "one_cycle", "step", "constant", *UNTUNED)
Pick = Callable[[Sequence[float]], float]


@dataclass
class Report:
    """Of a plan and what is stored of it.

    Attributes:
        planned: all runs that the figures are about.
        store: results.
    """

    planned: list[Run]
    store: Store

    def __post_init__(self) -> None:
        self.table: Table = figures.tabulate(self.store.results, self.planned)

    def figures(self) -> list[str]:
        """The `name: value` lines; those without a finished cell are left out."""
        values: dict[str, float] = {}
        for learned, baseline in (("default", "cosine"), ("anytime", "constant")):
            values |= figures.loss_figures(self.table, learned, baseline)
            values |= figures.step_figures(self.table, learned, baseline)
        for learned in LEARNED:
            values |= figures.metric_figures(self.table, learned)
            values |= figures.win_figures(self.table, learned)
        lines = [f"{name}: {_number(value)}" for name, value in values.items()]
        above = figures.above_initial(self.store.results, self.planned)
        done = [run for run in self.planned if run in self.store.results]
        lines.append(f"runs_above_initial_loss: {len(above)} of {sum(bool(run.policy) for run in done)} learned runs")
        lines += [f"  {r.task}, {r.optimizer}, {r.steps} steps, {r.schedule}, lr {r.lr}, seed {r.seed}" for r in above]
        lines.append(f"runs_done: {len(done)} of {len(self.planned)}")
        lines.append(f"core_minutes: {sum(self.store.results[run].seconds for run in done) / 60:.1f}")
        return lines

    def summary(self) -> list[str]:
        """A Markdown table, one row a schedule: geometric means over cells of the loss over cosine's at its best."""
        lines = ["| | best rate | median rate | worst rate |", "|---|---|---|---|"]
        for name in ORDER:
            best, middle, worst = (self._ratio(name, pick) for pick in (min, median, max))
            bold = "**" if name in LEARNED else ""
            row = [middle] * 3 if name in UNTUNED else [best, middle, worst]
            if middle is not None:
                lines.append(f"| {NAMES.get(name, name)} | " + " | ".join(f"{bold}{x:.3f}{bold}" for x in row) + " |")
        return lines

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows, one a cell: final losses and metrics."""
        head = ["task", "optimizer", "steps", "cosine best"]
        head += [f"{name} {which}" for name in LEARNED for which in ("median", "worst")]
        head += ["constant best", *UNTUNED, "metric learned", "metric best tuned"]
        return head, [[*map(str, cell), *self._cell(row)] for cell, row in self.table.items()]

    def _cell(self, row: dict[str, Scores]) -> list[str]:
        def loss(name: str, pick: Pick) -> str:
            return f"{pick(row[name].finals):.4f}" if name in row else ""

        learned = [loss(name, pick) for name in LEARNED for pick in (median, max)]
        untuned = [loss(name, min) for name in UNTUNED]
        metric = f"{median(row['default'].metrics):.4f}" if "default" in row else ""
        tuned = f"{max(max(row[n].metrics) for n in TUNED):.4f}" if row.keys() >= {*TUNED} else ""
        return [loss("cosine", min), *learned, loss("constant", min), *untuned, metric, tuned]

    def _ratio(self, name: str, pick: Pick) -> float | None:
        ratios = [
            pick(row[name].finals) / min(row["cosine"].finals)
            for row in self.table.values()
            if {name, "cosine"} <= row.keys()
        ]
        return geometric_mean(ratios) if ratios else None

    def write(self, folder: Path, command: str) -> None:
        """Writes heldout.md, heldout.csv and heldout.png."""
        folder.mkdir(parents=True, exist_ok=True)
        head, rows = self.cells()
        with (folder / "heldout.csv").open("w", newline="") as file:
            csv.writer(file).writerows([head, *rows])
        self.plot(folder / "heldout.png")
        bars = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
        tasks = [
            f"| {name} | {task.title} | {', '.join(task.optimizers)} | {task.horizons[0]}, {task.horizons[1]} |"
            for name, task in TASKS.items()
        ]
        text = _PAGE.format(
            command=command,
            points=POINTS,
            cap=f"{figures.CAP:g}",
            decades=f"{DECADES:g}",
            tasks="\n".join(tasks),
            summary="\n".join(self.summary()),
            figures="\n".join(self.figures()),
            cells="\n".join(bars),
        )
        (folder / "heldout.md").write_text(text)

    def plot(self, path: Path) -> None:
        """Loss over best-tuned cosine's: on the left by initial rate, on the right cell by cell."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, (left, right) = plt.subplots(
            1, 2, figsize=(13, 0.8 + max(4.5, 0.3 * len(self.table))), layout="constrained"
        )
        self._plot_by_rate(left)
        self._plot_by_cell(right)
        for axis in (left, right):
            axis.grid(alpha=0.3)
        figure.savefig(path, dpi=110)
        plt.close(figure)

    def _plot_by_rate(self, axis: Any) -> None:
        styles = dict(zip((*LEARNED, *TUNED), _COLOURS, strict=False))
        for name, colour in styles.items():
            rows = [row for row in self.table.values() if {name, "cosine"} <= row.keys()]
            if not rows:
                continue
            ratios = [[final / min(row["cosine"].finals) for final in row[name].finals] for row in rows]
            means = [geometric_mean(at_rate) for at_rate in zip(*ratios, strict=True)]
            places = [DECADES * (i / max(1, len(means) - 1) - 0.5) for i in range(len(means))]
            width = 2.6 if name in LEARNED else 1.4
            axis.plot(places, means, label=NAMES.get(name, name), color=colour, lw=width, marker="o", ms=3)
        axis.axhline(1.0, color="grey", lw=0.8)
        axis.set(yscale="log", xlabel="decades from the optimizer's usual rate", title="geometric mean over cells")
        axis.set_ylabel("final validation loss over best-tuned cosine's")
        axis.legend(fontsize=8)

    def _plot_by_cell(self, axis: Any) -> None:
        cells = [cell for cell, row in self.table.items() if "cosine" in row]
        marks: dict[str, tuple[str, str, Pick]] = {
            "learned, median rate": ("default", "o", median),
            "learned, worst rate": ("default", "x", max),
            "Prodigy with cosine": ("prodigy_cosine", "s", min),
            "schedule-free AdamW": ("schedule_free_adamw", "^", min),
        }
        for (label, (name, marker, pick)), colour in zip(
            marks.items(), ("black", "black", *_COLOURS[2:]), strict=False
        ):
            places = [i for i, cell in enumerate(cells) if name in self.table[cell]]
            ratios = [
                pick(self.table[cells[i]][name].finals) / min(self.table[cells[i]]["cosine"].finals) for i in places
            ]
            if places:
                axis.scatter(ratios, places, label=label, marker=marker, color=colour, s=22)
        axis.axvline(1.0, color="grey", lw=0.8)
        axis.set(xscale="log", xlabel="final validation loss over best-tuned cosine's", title="cell by cell")
        axis.set_yticks(range(len(cells)), [f"{c.task}, {c.optimizer}, {c.steps}" for c in cells], fontsize=8)
        axis.invert_yaxis()
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)


_COLOURS = ("#000000", "#7f7f7f", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00")  # Okabe-Ito


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"


_PAGE = """# The held-out suite

Kinds of work that meta-training never draws, on real data. This page, its table and its plot are written by

```bash
{command}
```

Each schedule is trained in each cell (task, optimizer, horizon) from each initial rate, log-spaced over {decades}
decades about the optimizer's usual one, and with each seed. For a task and a seed, all of them have the same initial
weights, batches and dropout masks. SGD has momentum 0.9, AdamW torch's defaults. The validation loss is that of one
fixed held-out part, at the start and at {points} evenly spaced steps. A loss that is not a number, or above {cap} times
the run's initial one, counts as {cap} times that.

| task | | optimizers | steps |
|---|---|---|---|
{tasks}

## Final validation loss over that of cosine at its best rate

A schedule's loss at a rate is its mean over seeds; best, median and worst are over the initial rates; the figures are
geometric means over the cells. The optimizers in the last rows take no rate: they run at their published defaults,
and are compared in every cell of the same task and horizon, XGBoost's left out.

{summary}

![Final validation loss over best-tuned cosine's](heldout.png)

## Figures

```
{figures}
```

Steps: the share of the run after which the learned schedule's validation loss first is at most the final one of
cosine (for `anytime`: of a constant rate) at its best rate, 1 where it never is. Metric: accuracy (Adult and XGBoost:
AUC) at the median rate minus the best of the six hand-made schedules at all their rates. Wins: the share of cells in
which the learned schedule at its median rate ends below.

## Cell by cell

Final validation losses, and metrics in the last two columns. The same is in `heldout.csv`.

{cells}
"""
