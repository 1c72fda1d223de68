"""What the fine-tuning suite runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from benchmarks.finetuning import weights
from benchmarks.finetuning.data import MAX_TOKENS, VALIDATION
from benchmarks.finetuning.tasks import PACKAGES, TASKS, USUAL_LR
from benchmarks.suites.runs import SuiteRun
from benchmarks.suites.suite import Suite

SUITE = Suite(
    "finetuning",
    "Fine-tuning pretrained networks",
    f"""The learned schedule beside tuned and untuned ones, from real pretrained weights: those in the packages
{weights.MINILM} (all-MiniLM-L6-v2, six layers) and {weights.MOBILENET} (MobileNetV2, ImageNet).
Each network has a fresh head. Sentences are cut at {MAX_TOKENS} tokens; {VALIDATION} fixed rows are held out.""",
    TASKS,
    USUAL_LR,
    learned=("default",),
    baselines=(
        "linear_warmup",
        "cosine",
        "constant",
        "finder_cosine",
        "prodigy_cosine",
        "prodigy_plain_cosine",
        "schedule_free_adamw",
    ),
    points=5,
    rates=5,
    seeds=1,
)


class FineTuningRun(SuiteRun):
    """Fine-tunes one network once."""

    suite: ClassVar[Suite] = SUITE

    @classmethod
    def check(cls, tasks: Sequence[str]) -> None:
        """Looks for the weights before any work starts.

        Raises:
            FileNotFoundError: where they are not there.
        """
        weights.check(dict.fromkeys(PACKAGES[name] for name in tasks))
