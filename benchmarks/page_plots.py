"""Draws the tables of docs/cost.md and docs/scaling.md beside them: docs/cost.svg and docs/scaling.svg.

python -m benchmarks.page_plots
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
from jsonargparse import auto_cli

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito's


def table(page: Path, first: str) -> list[list[str]]:
    """Reads the rows of the table of a page whose head begins with a word."""
    lines = page.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line[1:-1].split("|")])
    return rows


def cost(docs: Path) -> Figure:
    """Draws a step without MetaLR and what it adds, of the models that were measured once."""
    rows, model = [], ""
    for name, optimizer, without, more, _ in table(docs / "cost.md", "model"):
        model = name or model
        if ";" not in without:  # several runs, which differ by more than the cost
            rows.append((f"{model.split(',')[0]}, {optimizer}", float(without), float(more)))
    figure, axis = plt.subplots(figsize=(7, 0.45 * len(rows) + 1.1), layout="constrained")
    names, steps, added = zip(*rows[::-1], strict=True)
    places = range(len(rows))
    axis.barh([place + 0.2 for place in places], steps, 0.4, color="0.7", label="a step without MetaLR")
    axis.barh([place - 0.2 for place in places], added, 0.4, color=BLUE, label="what MetaLR adds")
    axis.set(xscale="log", xlabel="ms of processor time", yticks=list(places))
    axis.set_yticklabels(names)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(frameon=False, loc="upper right")
    return figure


def scaling(docs: Path) -> Figure:
    """Draws the efficiency by ranks: modelled lines, measured points."""
    figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
    rows = table(docs / "scaling.md", "scaling")
    for kind, colour, label in (("strong", ORANGE, "512 task batches in all"), ("weak", BLUE, "2 task batches a rank")):
        own = [(int(ranks), float(share), ms) for name, ranks, _, ms, _, share in rows if name == kind]
        modelled = [(ranks, share) for ranks, share, ms in own if not ms]
        measured = [(ranks, share) for ranks, share, ms in own if ms]
        axis.plot(*zip(*modelled, strict=True), color=colour, marker="o", ms=4, label=f"{label}, modelled")
        axis.plot(
            *zip(*measured, strict=True), color=colour, marker="s", ls="", label=f"{kind} scaling, measured on two"
        )
    axis.set(xscale="log", xlabel="ranks", ylabel="efficiency", ylim=(0, 1.05))
    axis.set_xticks([2, 8, 64, 512], ["2", "8", "64", "512"])
    axis.minorticks_off()
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, fontsize=8)
    return figure


def main(docs: Path = DOCS) -> None:
    """Draws both.

    Args:
        docs: folder of the pages, where the pictures go, too.
    """
    matplotlib.rcParams["svg.hashsalt"] = "metalr"
    for name, draw in (("cost", cost), ("scaling", scaling)):
        figure = draw(docs)
        figure.savefig(docs / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)
        print(docs / f"{name}.svg")


if __name__ == "__main__":
    auto_cli(main)
