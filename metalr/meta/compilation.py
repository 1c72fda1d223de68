"""Compilation of the parts of an inner step, kept on disk between runs.

torch keeps what it has compiled, by its content, in a folder that is gone with the next restart. Here that folder is
`metalr/compiled` in the user's cache folder, or where $TORCHINDUCTOR_CACHE_DIR says; all processes share it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def compiled_folder() -> Path:
    """Returns the folder of compiled parts: $TORCHINDUCTOR_CACHE_DIR, or metalr/compiled in the user's cache folder."""
    if given := os.environ.get("TORCHINDUCTOR_CACHE_DIR"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metalr" / "compiled"


def any_size(tensor: Tensor, dim: int) -> None:
    """Lets compiled parts take this tensor with any number of entries along the dimension."""
    torch._dynamo.maybe_mark_dynamic(tensor, dim)


def compile_part(function: Callable[..., Any], compiled: bool, dynamic: bool = False) -> Callable[..., Any]:
    """Compiles a function by torch.compile, or returns it as it is.

    Args:
        function: of tensors alone; all its branches are taken when it is first called.
        compiled: False returns the function.
        dynamic: compile it once for all sizes, in place of once for each.
    """
    if not compiled:
        return function
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(compiled_folder())
    # All networks share one code object, and the default allows eight compilations of it.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 256)
    return torch.compile(function, dynamic=dynamic, fullgraph=True)
