"""The grid of an experiment: workloads, schedules, initial rates and seeds, and the command of each cell."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

from metalr.compare.shell import fit_options, yaml_value

SCHEDULE_FOLDER = Path("configs/schedule")
"""Where a schedule that is given by its name alone is looked for, from the working folder."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
"""What names a folder."""


@dataclass(frozen=True)
class Workload:
    """Describes a model with its data, and what counts as doing well on it.

    Args:
        name: of the workload; names a folder.
        configs: YAML files of `fit`, merged in order.
        overrides: other options of `fit` (`trainer.max_epochs: 2`). `$NAME` in one is read from the environment.
        metric: the logged validation metric that decides, and that rates are tuned by.
        mode: whether more of it is better, "max", or less, "min".
        loss: the logged validation loss, for the sensitivity to the rate and for the curves; or `train_loss`, where
            there is none.
        train_loss: the logged training loss.
        threshold: value of `metric` to reach; None for the best-tuned baseline's final value.
        test: whether the end of each run is tested on the test split as well.
        rates: initial rates, in place of the grid's.
        rate_keys: options that take the initial rate, in place of `optimizer.lr`.
        seed_keys: options that take the seed, beside `seed_everything`.

    Raises:
        ValueError: for a name that cannot name a folder, no configs, or rates that are not above 0.

    Example:
        >>> from metalr.compare import Workload
        >>> Workload("digits", ["configs/digits.yaml"], rates=[0.01, 0.1]).metric
        'val/loss'
    """

    name: str
    configs: list[str]
    overrides: dict[str, Any] = field(default_factory=dict)
    metric: str = "val/loss"
    mode: Literal["min", "max"] = "min"
    loss: str = "val/loss"
    train_loss: str = "train/loss"
    threshold: float | None = None
    test: bool = False
    rates: list[float] | None = None
    rate_keys: list[str] = field(default_factory=lambda: ["optimizer.lr"])
    seed_keys: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check_name("workloads", self.name)
        if not self.configs:
            raise ValueError(f"workloads: {self.name!r} has no configs: give one YAML of `fit` or more")
        if not self.rate_keys:
            raise ValueError(f"rate_keys of workload {self.name!r}: name one option or more, such as optimizer.lr")
        if self.rates is not None:
            _check_rates(f"rates of workload {self.name!r}", self.rates)
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"threshold={self.threshold} of workload {self.name!r}: give a finite value, or none")


@dataclass(frozen=True)
class Schedule:
    """Sets the rate of a run: a YAML, or what a YAML would hold.

    Args:
        name: of the schedule; names a folder.
        config: a YAML file; or its content: `optimizer` and `lr_scheduler` by class_path, `trainer` with its
            callbacks. It is merged onto the workload's.
        rates: initial rates, in place of the workload's: another optimizer wants other rates.
        rate_keys: options that take the initial rate, in place of the workload's.

    Raises:
        ValueError: for a name that cannot name a folder, or rates that are not above 0.

    Example:
        >>> from metalr.compare import Schedule
        >>> Schedule.named("cosine").config
        'configs/schedule/cosine.yaml'
        >>> halved = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 100, "gamma": 0.5}}
        >>> Schedule("halved", {"lr_scheduler": halved}, rates=[0.1, 1.0]).name
        'halved'
    """

    name: str
    config: str | dict[str, Any]
    rates: list[float] | None = None
    rate_keys: list[str] | None = None

    def __post_init__(self) -> None:
        _check_name("schedules", self.name)
        if self.rates is not None:
            _check_rates(f"rates of schedule {self.name!r}", self.rates)

    @classmethod
    def named(cls, name: str) -> Schedule:
        """Finds the schedule of `configs/schedule/<name>.yaml`.

        Raises:
            FileNotFoundError: where there is none; it lists those that there are.
        """
        path = SCHEDULE_FOLDER / f"{name}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in SCHEDULE_FOLDER.glob("*.yaml"))) or "none"
            raise FileNotFoundError(
                f"schedules: {name!r} is not in {SCHEDULE_FOLDER} (there: {known}): choose one, or give name and config"
            )
        return cls(name, str(path))


@dataclass(frozen=True)
class Grid:
    """Describes {workload} x {schedule} x {initial rate} x {seed}; each cell is an ordinary `fit`.

    Args:
        name: of the experiment, for the report.
        workloads: what is trained.
        schedules: names of `configs/schedule`, or schedules of one's own.
        rates: initial rates, where neither the workload nor the schedule has its own.
        seeds: of initialisation and batches, the same for all schedules.
        candidate: the schedule that the others, the baselines, are compared with.

    Raises:
        ValueError: for an empty axis, a bad rate or seed, an unknown candidate, or two cells of one name.
        FileNotFoundError: for a schedule's name or a config that does not exist.

    Example:
        >>> from metalr.compare import Grid, Workload
        >>> digits = Workload("digits", ["configs/digits.yaml"], metric="val/accuracy", mode="max")
        >>> grid = Grid("small", [digits], ["metalr", "cosine"], rates=[0.01, 0.1], seeds=[0])
        >>> [(cell.schedule.name, cell.rate) for cell in grid.cells()]
        [('metalr', 0.01), ('metalr', 0.1), ('cosine', 0.01), ('cosine', 0.1)]
    """

    name: str
    workloads: list[Workload]
    schedules: list[str | Schedule]
    rates: list[float]
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    candidate: str = "metalr"

    def __post_init__(self) -> None:
        for axis in ("workloads", "schedules", "seeds"):
            if not getattr(self, axis):
                raise ValueError(f"{axis}=[]: the grid is empty; give one or more")
        _check_rates("rates", self.rates)
        if any(seed < 0 for seed in self.seeds):
            raise ValueError(f"seeds={self.seeds}: give whole numbers from 0")
        named = [Schedule.named(each) if isinstance(each, str) else each for each in self.schedules]
        object.__setattr__(self, "schedules", named)
        names = [schedule.name for schedule in named]
        if self.candidate not in names:
            raise ValueError(f"candidate={self.candidate!r}: choose one of the schedules, {', '.join(names)}")
        _check_unique("schedules", names)
        _check_unique("workloads", [workload.name for workload in self.workloads])
        _check_unique("cells", [cell.name for cell in self.cells()])
        files = [file for workload in self.workloads for file in workload.configs]
        for file in files + [schedule.config for schedule in named if isinstance(schedule.config, str)]:
            if not Path(file).is_file():
                raise FileNotFoundError(f"configs: {file!r} does not exist; paths start at the working folder")

    @property
    def resolved_schedules(self) -> list[Schedule]:
        """The schedules, those that were given by name with the YAML of that name."""
        return [each for each in self.schedules if isinstance(each, Schedule)]

    @property
    def schedule_names(self) -> list[str]:
        """The schedules' names, in their order."""
        return [schedule.name for schedule in self.resolved_schedules]

    def cells(self) -> list[Cell]:
        """Lists all cells, seed by seed: an interrupted grid has all schedules at the first seeds."""
        return [
            Cell(workload, schedule, rate, seed)
            for seed, workload in product(self.seeds, self.workloads)
            for schedule in self.resolved_schedules
            for rate in schedule.rates or workload.rates or self.rates
        ]


def cell_name(workload: str, schedule: str, rate: float, seed: int) -> str:
    """Names a cell, and its folder below that of the grid."""
    return f"{workload}/{schedule}/rate={rate:.6g}/seed={seed}"


@dataclass(frozen=True)
class Cell:
    """Names one run of the grid."""

    workload: Workload
    schedule: Schedule
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """Unique in a grid; also the cell's folder below that of the grid."""
        return cell_name(self.workload.name, self.schedule.name, self.rate, self.seed)

    def fit(self, out: Path) -> list[str]:
        """Makes the arguments of the train script, `fit` first; the folder of the grid is `out`."""
        wanted = dict.fromkeys((self.workload.metric, self.workload.loss))
        metrics = [name for name in wanted if name != self.workload.train_loss]
        return [
            *("fit", *self._options(out), f"--seed_everything={self.seed}"),
            *_logger(out / self.name, "fit"),
            "--trainer.callbacks+=metalr.compare.CellCallback",
            f"--trainer.callbacks.metrics={yaml_value(metrics)}",
            f"--trainer.callbacks.train_loss={self.workload.train_loss}",
        ]

    def test(self, out: Path, checkpoint: Path) -> list[str]:
        """Makes the arguments of the train script that test the end of the run."""
        options = self._options(out)
        return ["test", *options, *_logger(out / self.name, "test"), f"--ckpt_path={checkpoint}"]

    def _options(self, out: Path) -> list[str]:
        keys = self.schedule.rate_keys or self.workload.rate_keys
        overrides = self.workload.overrides | dict.fromkeys(keys, self.rate)
        overrides |= dict.fromkeys(self.workload.seed_keys, self.seed)
        configs = [*self.workload.configs, str(schedule_file(self.schedule, out))]
        return fit_options(configs, overrides)


def rates_about(usual: float, decades: float, count: int) -> list[float]:
    """Spaces initial rates evenly in the logarithm about the usual one.

    Args:
        usual: rate in the middle.
        decades: width of the range.
        count: number of rates, 2 or more.

    Returns:
        Ascending rates of six significant digits, so that a rate read from text is the same number.

    Raises:
        ValueError: for fewer than two rates.

    Example:
        >>> rates_about(0.1, 2.0, 3)
        [0.01, 0.1, 1.0]
    """
    if count < 2:
        raise ValueError(f"count={count}: give two rates or more")
    exponents = [decades * (i / (count - 1) - 0.5) for i in range(count)]
    return [float(f"{usual * 10**exponent:.6g}") for exponent in exponents]


def schedule_file(schedule: Schedule, out: Path) -> Path:
    """Finds the YAML of a schedule: its own, or the one that the grid's folder has for an inline one."""
    if isinstance(schedule.config, str):
        return Path(schedule.config)
    return out / "schedules" / f"{schedule.name}.yaml"


def _logger(folder: Path, name: str) -> list[str]:
    options = {"save_dir": folder, "name": name}
    logger = "--trainer.logger=lightning.pytorch.loggers.TensorBoardLogger"
    return [logger, *(f"--trainer.logger.{key}={value}" for key, value in options.items())]


def _check_name(argument: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise ValueError(f"{argument}: {name!r} names a folder: use letters, digits and . _ + - only")


def _check_rates(argument: str, rates: Sequence[float]) -> None:
    if not rates or not all(math.isfinite(rate) and rate > 0 for rate in rates):
        raise ValueError(f"{argument}={list(rates)}: give one initial rate or more, each above 0")


def _check_unique(argument: str, names: Sequence[str]) -> None:
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise ValueError(f"{argument}: {', '.join(twice)} is there twice, and would write to one folder: rename one")
