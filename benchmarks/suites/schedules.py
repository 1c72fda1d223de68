"""The names of what sets a rate, in groups, with what each is: this is in the fingerprint of its runs."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType

from metalr import LRPolicy
from metalr.compare.grid import rates_about
from metalr.core import update_rule
from metalr.core.features import SCHEMA_VERSION

WARM_UP = 0.06
"""Share of the run in which a schedule with a warm-up rises (Liu et al. 2019)."""

LEARNED = {
    "default": "learned",
    "anytime": "learned, horizon unknown",
}
"""`MetaLR(optimizer, total_steps=T)` and `MetaLR(optimizer)`, from every initial rate."""

TUNED = {
    "linear_warmup": f"linear to zero, warm-up of {100 * WARM_UP:g} %",
    "cosine_warmup": f"cosine, warm-up of {100 * WARM_UP:g} %",
    "linear": "linear to zero",
    "cosine": "cosine",
    "wsd": "warmup-stable-decay: a tenth to warm up, the last fifth 1 - sqrt",
    "one_cycle": "one-cycle, torch's defaults",
    "step": "step: a tenth from a half on, a hundredth from three quarters on",
    "plateau": "reduce on plateau: a tenth after two evaluations no better, by the validation loss",
    "constant": "constant",
}
"""Schedules set by hand, from every initial rate."""

FOUND = {
    "finder_one_cycle": "Lightning's rate finder, then one-cycle",
    "finder_cosine": "Lightning's rate finder, then cosine",
}
"""Schedules from the rate that Lightning's `lr_find` suggests, with its defaults."""

YARDSTICK = "linear_warmup"
"""The schedule that all are held against, at the best of its rates."""


@dataclass(frozen=True)
class Rival:
    """Describes an optimizer that sets its rate itself, or is run at rates of its own.

    Attributes:
        title: what it is.
        package: that it comes from.
        base: the optimizer that it stands in for: it is run and compared in this one's cells.
        multiples: of `base`'s usual rate, that it is run from; none: at a rate of 1, as its authors ask.
    """

    title: str
    package: str
    base: str
    multiples: tuple[float, ...] = ()

    def rates(self, usual: float) -> list[float]:
        """Lists its rates, where the usual one of its base is `usual`."""
        return [float(f"{multiple * usual:.6g}") for multiple in self.multiples] or [1.0]


RIVALS = {
    "prodigy_cosine": Rival(
        "Prodigy with cosine, bias correction, safeguarded warm-up", "prodigyopt", "adamw"
    ),  # as its README advises
    "prodigy_plain_cosine": Rival("Prodigy with cosine, its defaults", "prodigyopt", "adamw"),
    "d_adaptation_cosine": Rival("D-Adaptation (Adam, decoupled decay) with cosine", "dadaptation", "adamw"),
    "schedule_free_adamw": Rival(
        f"schedule-free AdamW, warm-up of {100 * WARM_UP:g} %, best of three rates",
        "schedulefree",
        "adamw",
        (1.0, 2.5, 10.0),  # "1x-10x larger" its README; its default is 2.5 times AdamW's
    ),
    "schedule_free_sgd": Rival(
        f"schedule-free SGD, warm-up of {100 * WARM_UP:g} %, best of three rates",
        "schedulefree",
        "sgd",
        (10.0, 20.0, 50.0),  # "10x-50x larger than classical rates" its README; its default is the first
    ),
    "dog": Rival("DoG with averaged weights", "dog-optimizer", "sgd"),
}
"""Optimizers of their own."""

TITLES = LEARNED | TUNED | FOUND | {name: rival.title for name, rival in RIVALS.items()}
"""Every schedule by name: what it is."""

PACKAGES = {
    "wsd": "transformers",
    "prodigy_cosine": "prodigyopt",
    "prodigy_plain_cosine": "prodigyopt",
    "d_adaptation_cosine": "dadaptation",
    "schedule_free_adamw": "schedulefree",
    "schedule_free_sgd": "schedulefree",
    "dog": "dog",
}
"""The module that a schedule needs beside torch."""

GROUPS = {"learned": tuple(LEARNED), "baselines": (*TUNED, *FOUND, *RIVALS)}
"""Names that stand for several schedules."""


def runs_with(schedule: str, optimizer: str) -> bool:
    """Tells whether a schedule is run in an optimizer's cells: trees have no rivals and no finder."""
    if schedule in RIVALS:
        return RIVALS[schedule].base == optimizer
    return schedule not in FOUND or optimizer != "boosting"


def rates_of(schedule: str, usual: float, decades: float, rates: int) -> list[float]:
    """Lists the initial rates that a schedule is run from.

    Args:
        schedule: name.
        usual: rate of the cell's optimizer.
        decades: of the range about it.
        rates: in that range; a finder needs none, and starts from the usual one.
    """
    if schedule in RIVALS:
        return RIVALS[schedule].rates(usual)
    return [usual] if schedule in FOUND else rates_about(usual, decades, rates)


def package(schedule: str) -> ModuleType:
    """Imports what a schedule needs."""
    return importlib.import_module(PACKAGES[schedule])


def check_packages(schedules: Iterable[str]) -> None:
    """Imports what the schedules need.

    Raises:
        ImportError: for a package that is not there.
    """
    for schedule in schedules:
        if schedule in PACKAGES:
            try:
                package(schedule)
            except ImportError as error:
                name = RIVALS[schedule].package if schedule in RIVALS else PACKAGES[schedule]
                raise ImportError(
                    f"schedule {schedule!r} needs {name}: pip install '.[experiments]', or name others with --schedules"
                ) from error


def chosen_schedules(names: str | None, known: Sequence[str]) -> list[str]:
    """Reads the names of a comma-separated list, all of `known` where it is None; a group stands for its schedules.

    Raises:
        ValueError: for a name that is not known.
    """
    if names is None:
        return list(known)
    given: list[str] = []
    for name in names.split(","):
        given += [each for each in GROUPS[name] if each in known] if name in GROUPS else [name]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"schedules={names}: unknown {', '.join(unknown)}; choose of {', '.join([*GROUPS, *known])}")
    return list(dict.fromkeys(given))


def fingerprint(policy: str) -> str:
    """Digests a policy's weights, with the versions of features and update rule: runs with others are other runs."""
    return f"{LRPolicy.load(policy).fingerprint()}-{SCHEMA_VERSION}.{update_rule.VERSION}"
