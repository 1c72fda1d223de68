"""Lightning's two packages, `lightning` and the standalone `pytorch_lightning`: the same classes under two names.

A Trainer of either package takes callbacks of both, so a check by class asks for the class of each package that is
loaded. Nothing is imported for it: what is not in `sys.modules` has no instances.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

ROOTS = ("lightning.pytorch", "pytorch_lightning")
"""Names under which a Trainer may be imported."""


def classes(path: str) -> tuple[type, ...]:
    """Finds a class in each of Lightning's packages that is loaded, for `isinstance`.

        >>> import lightning
        >>> [timer.__module__ for timer in classes("callbacks.Timer")]
        ['lightning.pytorch.callbacks.timer']

    Args:
        path: module and class below the package, such as "callbacks.Timer".

    Returns:
        At most one class a package.
    """
    module, _, name = path.rpartition(".")
    found = (getattr(sys.modules.get(f"{root}.{module}"), name, None) for root in ROOTS)
    return tuple(each for each in found if each is not None)


def instances(trainer: Any, path: str) -> list[Any]:
    """Lists the Trainer's callbacks of a class of either package, in their order."""
    kinds = classes(path)
    return [callback for callback in trainer.callbacks if isinstance(callback, kinds)]


def _package() -> ModuleType:
    """The package that is loaded, or else one that is installed."""
    for root in sorted(ROOTS, key=lambda root: root not in sys.modules):
        try:
            return import_module(root)
        except ModuleNotFoundError as error:
            if error.name != root.partition(".")[0]:
                raise
    raise ModuleNotFoundError("No module named 'lightning'", name="lightning")


if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
else:
    Callback = _package().Callback
    rank_zero_info, rank_zero_warn = (
        getattr(_package().utilities, name) for name in ("rank_zero_info", "rank_zero_warn")
    )

__all__ = ["ROOTS", "Callback", "classes", "instances", "rank_zero_info", "rank_zero_warn"]
