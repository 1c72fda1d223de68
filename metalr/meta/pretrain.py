"""Makes the trained starts that `metalr.meta.families.PretrainedLanguageTasks` and `PretrainedSceneTasks` sample.

python -m metalr.meta.pretrain --out ~/.cache/metalr/starts

A start that the folder already holds is not made again, so that an interrupted command resumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from jsonargparse import auto_cli
from rich.progress import Progress

from metalr.meta.pretraining_recipes import DEFAULT, TINY, Recipe
from metalr.meta.starts import StartsFolder


def make(folder: StartsFolder, recipes: Sequence[Recipe]) -> None:
    """Makes what the folder does not hold yet."""
    missing = [recipe for recipe in recipes if not folder.made(recipe.name, recipe.describe())]
    with Progress() as progress:
        bar = progress.add_task("pretraining", total=sum(recipe.steps for recipe in missing))
        for recipe in missing:
            progress.update(bar, description=recipe.name)
            starts, facts = recipe.make(partial(progress.advance, bar))
            folder.write(starts, recipe.describe(), facts)


def main(out: Path | None = None, tiny: bool = False) -> None:
    """Makes the starts that are missing, on one thread.

    Args:
        out: folder of the starts; by default $METALR_STARTS, or metalr/starts in the user's cache folder.
        tiny: make the few small ones of the tests in place of the default set.
    """
    torch.set_num_threads(1)
    folder = StartsFolder(out)
    make(folder, TINY if tiny else DEFAULT)
    size = sum(file.stat().st_size for file in folder.path.glob("*.safetensors"))
    print(f"{len(folder.manifest())} trained starts, {size / 1e6:.1f} MB, in {folder.path}")


if __name__ == "__main__":
    auto_cli(main)
