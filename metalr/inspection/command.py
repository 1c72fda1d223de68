"""The subcommand `inspect`: prints and draws a policy, a run or a meta-training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from metalr.core.policy import LRPolicy, shipped_policies
from metalr.inspection import figures, terminal
from metalr.inspection.folder import FOLDER, load_history, load_run
from metalr.inspection.options import Inspection
from metalr.plotting.canvas import Draw, save_png
from metalr.plotting.palette import theme_named


def inspect(options: Inspection, console: Console | None = None) -> list[Path]:
    """Prints and draws a policy, or what an inspector recorded of a run or a meta-training.

        inspect(Inspection("default", out="pictures"))

    Args:
        options: what to show, and where to write the pictures.
        console: to print to; None for the terminal.

    Returns:
        The paths of the pictures.

    Raises:
        ValueError: for a folder without an inspection, or with one that is damaged or of another version of metalr.
        FileNotFoundError: for a policy that does not exist.
    """
    console, source = console or Console(), options.source
    if Path(source).is_dir() and source not in shipped_policies():
        drawn = _inspect_folder(options, console)
    else:
        policy = LRPolicy.load(source)
        _print_policy(policy, source, console)
        to = Path(options.out or Path("logs") / "inspect" / Path(source).stem)
        drawn = _save(figures.of_policy(policy), to, options.theme)
    for path in drawn:
        console.print(f"picture: {path}", soft_wrap=True, highlight=False)
    return drawn


def _inspect_folder(options: Inspection, console: Console) -> list[Path]:
    folder, theme = _with_inspection(Path(options.source)), options.theme
    to = Path(options.out or folder / FOLDER)
    drawn: list[Path] = []
    for index, part in enumerate(load_run(folder)):
        name = f"optimizer-{index}"
        _print_policy(part.policy, f"of {name} in {folder}", console)
        console.print(terminal.run(part.trace), terminal.attributions(part.trace))
        drawn += _save(figures.of_run(part.policy, part.trace), to / name, theme)
    if (history := load_history(folder)) is not None:
        best = next((p for p in (folder / "best.safetensors", folder / "policy.safetensors") if p.is_file()), None)
        if best is not None:
            policy = LRPolicy.load(best)
            _print_policy(policy, str(best), console)
            drawn += _save(figures.of_policy(policy), to, theme)
        drawn += _save(figures.of_meta(history), to, theme)
    return drawn


def _with_inspection(source: Path) -> Path:
    """Returns the folder itself or its latest version that has an inspection."""
    versions = sorted(source.glob("version_*"), key=lambda path: (len(path.name), path.name))
    for folder in (source, *reversed(versions)):
        if any((folder / FOLDER).glob("**/*.safetensors")):
            return folder
    raise ValueError(
        f"{source} has no {FOLDER}: train with --config configs/inspect.yaml (a meta-training: "
        "configs/inspect_meta.yaml), or give a policy's name or file"
    )


def _print_policy(policy: LRPolicy, name: str, console: Console) -> None:
    console.print(terminal.card(policy, name), terminal.schema(policy, figures.responses_in_support(policy)))


def _save(drawn: Mapping[str, Draw], folder: Path, theme: str) -> list[Path]:
    return [save_png(folder / f"{name}.png", draw, theme_named(theme)) for name, draw in drawn.items()]
