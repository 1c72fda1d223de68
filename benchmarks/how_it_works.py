"""Draws the picture of docs/how-it-works.md: the shipped policy from rates that are right, too low and too high.

    python -m benchmarks.how_it_works

Trains a perceptron on real 8x8 digits with SGD with momentum from three initial rates, for 200 steps each, and writes
docs/how-it-works.svg.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from torch import nn

from metalr import MetaLR
from metalr.core.update_rule import log_reference

matplotlib.use("Agg")
import matplotlib.pyplot as plt

STEPS = 200
RATES = {0.001: "#0072B2", 0.1: "#009E73", 10.0: "#D55E00"}  # Okabe and Ito's, told apart by the colour-blind
PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-it-works.svg"


def train(rate: float, learned: bool, seed: int = 0) -> tuple[list[float], list[float]]:
    """Trains one run with the policy or with the reference schedule alone, and returns its rates and losses."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    inputs, labels = torch.tensor(bunch.data / 16.0, dtype=torch.float32), torch.tensor(bunch.target)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    meta_lr = MetaLR(optimizer, STEPS)
    rates, losses = [], []
    for step in range(STEPS):
        rows = torch.randint(len(inputs), (64,))
        loss = F.cross_entropy(model(inputs[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        if learned:
            meta_lr.step(loss)
        else:
            optimizer.param_groups[0]["lr"] = rate * torch.tensor(log_reference(step, STEPS)).exp().item()
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
        losses.append(min(loss.item(), 10.0) if loss.isfinite() else 10.0)
    return rates, losses


def smooth(values: list[float], window: int = 10) -> list[float]:
    """Returns the running mean over the last `window` values."""
    return [sum(values[max(0, i - window + 1) : i + 1]) / min(window, i + 1) for i in range(len(values))]


def main(page: Path = PAGE) -> None:
    """Draws the picture.

    Args:
        page: path of the picture.
    """
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 6), sharex=True, layout="constrained")
    for rate, colour in RATES.items():
        for learned, style in ((True, "-"), (False, ":")):
            rates, losses = train(rate, learned)
            label = f"{'learned' if learned else 'cosine'} from {rate:g}"
            above.plot(rates, style, color=colour, label=label)
            below.plot(smooth(losses), style, color=colour)
    above.set(yscale="log", ylabel="learning rate")
    below.set(yscale="log", ylabel="training loss, mean of 10 steps", xlabel="optimizer step")
    above.legend(ncols=3, fontsize=8, loc="lower left")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.savefig(page, metadata={"Date": None})
    print(f"wrote {page}")


if __name__ == "__main__":
    auto_cli(main)
