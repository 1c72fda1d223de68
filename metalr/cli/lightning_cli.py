"""MetaLRCLI: the command line of `train.py`, and of any train script with models and data of your own."""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentError
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, LRSchedulerTypeUnion
from torch.optim import Optimizer

from metalr.cli.checkpoints import newest_whole
from metalr.cluster.options import Submission
from metalr.compare.grid import Grid
from metalr.compare.options import Options
from metalr.inspection.options import Inspection
from metalr.schedules import HorizonLR

log = logging.getLogger("metalr")

T = TypeVar("T")

OWN = {
    "compare": ("Runs a grid of fits, and reports on it.", (Grid, Options)),
    "inspect": ("Shows a policy, or what an inspector recorded of a run.", (Inspection,)),
    "submit": ("Submits the command after `--` to a cluster.", (Submission,)),
}
"""Subcommands beside the Trainer's: the description, and the dataclasses that the arguments are parsed into."""

EXTRAS = {"compare": "cli", "inspect": "cli", "submit": "cluster"}
"""The extra that each of them needs."""


class MetaLRCLI(LightningCLI):
    """Runs the command line of a train script, whose models and data are chosen by `class_path`.

    A train script of your own is

        import my_data, my_models
        from metalr.cli import MetaLRCLI

        if __name__ == "__main__":
            MetaLRCLI()

    and `python train.py fit --config a.yaml --config b.yaml` merges several configurations. Beyond LightningCLI:

    - A scheduler given by `--lr_scheduler` is stepped once an optimizer step, and a `metalr.schedules.HorizonLR` takes
      its horizon from the Trainer.
    - `--ckpt_path` may be a folder, even an empty or missing one: the run resumes from the newest intact checkpoint in
      it, or starts afresh.
    - The full configuration is stored in the log folder, also by a resumed run.
    - `compare` runs a grid (`metalr.compare.Grid`) whose cells are `fit` commands of the same script; `inspect` shows a
      policy, or what an inspector recorded of a run; `submit` submits the command after `--` to a cluster.

    Args:
        **kwargs: of LightningCLI; `args` is a list of arguments to parse in place of the command line's.

    Raises:
        ValueError: for a scheduler without an optimizer, a `HorizonLR` without a horizon, or a `submit` without a
            command that can be submitted.
        ImportError: for a subcommand whose extra is not installed; it names the extra.

    Example:
        >>> from metalr.cli import MetaLRCLI
        >>> options = ["--trainer.max_steps=2", "--trainer.limit_val_batches=0", "--trainer.logger=false"]
        >>> quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
        >>> cli = MetaLRCLI(args=["fit", "--config=configs/digits.yaml", *options, *quiet])
        >>> cli.trainer.global_step
        2
    """

    def __init__(self, **kwargs: Any) -> None:
        self._inner, kwargs["args"] = _split_inner(kwargs.get("args"))
        defaults: dict[str, Any] = {
            "subclass_mode_model": True,
            "subclass_mode_data": True,
            "save_config_kwargs": {"overwrite": True},
            "seed_everything_default": 0,
        }
        super().__init__(**(defaults | kwargs))

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Sets the default of `trainer.log_every_n_steps` to 10."""
        parser.set_defaults({"trainer.log_every_n_steps": 10})

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        super()._add_subcommands(parser, **kwargs)
        subcommands: Any = parser._subcommands_action
        for name, (description, groups) in OWN.items():
            own = self.init_parser(**kwargs.get(name, {"description": description}))
            for group in groups:
                own.add_class_arguments(group, as_positional=group is Inspection)
            self._subcommand_parsers[name] = own
            subcommands.add_subcommand(name, own, help=description)

    def _set_seed(self) -> None:
        if self.subcommand not in OWN:  # cells of a grid have seeds of their own
            super()._set_seed()

    def instantiate_classes(self) -> None:
        """Makes model, data and Trainer; for `compare`, `inspect` and `submit`, their own arguments alone."""
        if self.subcommand in OWN:
            self.config_init = instantiate(self.parser, self.config)
        else:
            self._refuse_lone_scheduler()
            super().instantiate_classes()

    def _refuse_lone_scheduler(self) -> None:
        """Raises for a scheduler without an optimizer, which Lightning would ignore silently."""
        given = self.config[self.subcommand] if self.subcommand else self.config
        if given.get("lr_scheduler") and not given.get("optimizer"):
            raise ValueError(
                f"lr_scheduler={given['lr_scheduler'].class_path} without an optimizer: give optimizer, too, or set "
                "the schedule in the model's own configure_optimizers"
            )

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        given = super()._prepare_subcommand_kwargs(subcommand)
        if (path := given.get("ckpt_path")) is not None and Path(path).is_dir():
            given["ckpt_path"] = newest_whole(Path(path))
            log.info("ckpt_path=%s: %s", path, given["ckpt_path"] or "no checkpoint yet, a fresh start")
        return given

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            if subcommand == "compare":
                self._compare()
            elif subcommand == "inspect":
                self._inspect()
            elif subcommand == "submit":
                self._submit()
            else:
                super()._run_subcommand(subcommand)
        except ModuleNotFoundError as error:
            if subcommand not in OWN:
                raise
            raise ImportError(f"{subcommand} needs {error.name}: pip install 'metalr[{EXTRAS[subcommand]}]'") from error

    def _compare(self) -> None:
        from metalr.compare.command import compare  # late: tables and plots

        grid, options = _made(Grid, self.config_init["compare"]), _made(Options, self.config_init["compare"])
        self.report: Path | None = compare(grid, options, self._strict_parser("fit").parse_args)

    def _submit(self) -> None:
        from metalr.cluster.command import submit, submit_grid  # late: submitit

        options = _made(Submission, self.config_init["submit"])
        name, *arguments = self._inner
        parser = self._strict_parser(name)
        try:
            given = parser.parse_args(arguments)
        except (ArgumentError, ValueError, TypeError) as error:
            raise ValueError(f"the command after `--` does not parse: {error}") from error
        if name == "compare":
            made = instantiate(parser, given)
            grid, how = _made(Grid, made), _made(Options, made)
            self.report = submit_grid(options, grid, how, self._strict_parser("fit").parse_args)
        else:
            self.job = submit(options, self._inner, given.trainer)

    def _strict_parser(self, subcommand: str) -> LightningArgumentParser:
        """Returns a subcommand's parser, set to raise errors rather than end the process."""
        parser = self._parser(subcommand)
        parser.exit_on_error = False
        return parser

    def _inspect(self) -> None:
        from metalr.inspection.command import inspect  # late: tables and plots

        self.pictures = inspect(_made(Inspection, self.config_init["inspect"]))

    @staticmethod
    def configure_optimizers(
        lightning_module: L.LightningModule,
        optimizer: Optimizer,
        lr_scheduler: LRSchedulerTypeUnion | None = None,
    ) -> Any:
        """Returns the optimizer and scheduler for Lightning, with the scheduler stepped once an optimizer step."""
        if lr_scheduler is None:
            return optimizer
        if isinstance(lr_scheduler, HorizonLR) and lr_scheduler.total_steps is None:
            lr_scheduler.total_steps = _horizon(lightning_module.trainer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": lr_scheduler, "interval": "step"}}


def _split_inner(args: Any) -> tuple[list[str], Any]:
    """Splits the arguments of `submit` at `--`; those of other subcommands are left as they are.

    Args:
        args: given to the CLI; None for the command line's.

    Returns:
        The command after `--`, empty for other subcommands, and the arguments to parse.

    Raises:
        ValueError: for a `submit` without a command, or with one that cannot be submitted.
    """
    given = sys.argv[1:] if args is None else args
    if not isinstance(given, list) or given[:1] != ["submit"]:
        return [], args
    end = given.index("--") if "--" in given else len(given)
    own, inner = given[:end], given[end + 1 :]
    if {"-h", "--help"} & set(own):
        return [], args
    names = ("fit", "validate", "test", "predict", "compare")
    if not inner or inner[0] not in names:
        raise ValueError(
            f"submit: give the command after `--`, one of {', '.join(names)}: submit --cluster configs/cluster/"
            f"slurm.yaml -- fit --config ...; got {' '.join(inner) or 'none'}"
        )
    if args is None:  # Lightning warns of arguments beside those of the command line
        sys.argv[1:] = own
    return inner, None if args is None else own


def _made(kind: type[T], given: Any) -> T:
    """Makes a dataclass from the parsed arguments of its fields."""
    return kind(**{field.name: given[field.name] for field in fields(kind)})  # type: ignore[arg-type]


def instantiate(parser: ArgumentParser, config: Namespace) -> Any:
    """Instantiates the classes of a parsed configuration."""
    made = getattr(parser, "instantiate", None) or parser.instantiate_classes  # jsonargparse 4.49 renamed it
    return made(config)


def _horizon(trainer: L.Trainer) -> int:
    total = trainer.estimated_stepping_batches
    if total in (-1, float("inf")):
        raise ValueError(
            "HorizonLR needs the length of the run: give trainer.max_steps, trainer.max_epochs or its own total_steps"
        )
    return int(total)
