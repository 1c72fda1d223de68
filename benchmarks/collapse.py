"""What `Guards(restore=...)` saves of a run that collapses: MiniLM on SST-2 under a policy that destroys it.

    git show 19ae32f:metalr/weights/default.safetensors > before.safetensors
    OMP_NUM_THREADS=1 python -m benchmarks.collapse --policy before.safetensors --data $METALR_DATA

The policy shipped before the present one takes steps that are some ten times too large for a pretrained transformer.
The run is that of the fine-tuning suite, 150 steps of AdamW, without copies of the weights and with one every so many
steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jsonargparse import auto_cli

from benchmarks.denormals import flushed_denormals
from benchmarks.finetuning.tasks import TASKS
from benchmarks.suites.training import Learned, make_optimizer, trainable
from metalr import Guards

STEPS = 150


def run(policy: str, data: str, rate: float, restore: int | None) -> tuple[float, float, list[int]]:
    """Trains the network further.

    Args:
        policy: file or shipped name.
        data: folder of the real data.
        rate: initial one.
        restore: steps between copies; None for none.

    Returns:
        Validation loss, accuracy, and the steps at which the guard acted.
    """
    problem = TASKS["minilm-sst2"].make(data, 0)
    optimizer = make_optimizer("adamw", trainable(problem.model), rate)
    training = Learned(optimizer, STEPS, policy, guards=Guards(restore=restore), module=problem.model)
    for _ in range(STEPS):
        training.step(problem.loss())
    acted = [event.step for event in training.meta_lr.events if event.guard == "collapse"]
    return problem.val_loss(), problem.val_metric(), acted


def main(policy: str, data: str, rates: Sequence[float] = (5e-5, 1e-3), restore: int = 10) -> None:
    """Prints a row for each initial rate, without copies and with them.

    Args:
        policy: file or shipped name.
        data: folder of the real data.
        rates: initial ones.
        restore: steps between copies.
    """
    torch.set_num_threads(1)
    print("| initial rate | restore | validation loss | accuracy | the guard acted at |\n|---|---|---|---|---|")
    for rate in rates:
        for copies in (None, restore):
            with flushed_denormals():
                loss, accuracy, acted = run(policy, data, rate, copies)
            steps = ", ".join(map(str, acted)) or "none"
            print(f"| {rate:g} | {copies or 'off'} | {loss:.3f} | {accuracy:.3f} | {steps} |", flush=True)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
