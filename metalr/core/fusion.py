"""Fuses a function of a hundred small operations on a device into a few kernels."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import ParamSpec

import torch

Given = ParamSpec("Given")

logger = logging.getLogger("metalr")


def can_fuse(device: torch.device) -> bool:
    """Tests whether torch.compile is worth it, and there, on a device: a GPU for which Triton is installed."""
    return device.type in ("cuda", "xpu") and importlib.util.find_spec("triton") is not None


def fused(function: Callable[Given, None], device: torch.device, fuse: bool | None) -> Callable[Given, None]:
    """Compiles a function that works in place, for inputs of unchanging shapes.

    Args:
        function: a method, to compile as a whole; where another graph takes it in, it is traced as it is.
        device: that it works on.
        fuse: False for the function itself; None for `can_fuse`, and for the function itself, with a warning in the
            log, where compiling it fails.
    """
    if not (can_fuse(device) if fuse is None else fuse):
        return function
    chosen: Callable[Given, None] = torch.compile(_with_own_code(function), fullgraph=True, dynamic=False)

    def call(*args: Given.args, **kwargs: Given.kwargs) -> None:
        nonlocal chosen
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        try:
            chosen(*args, **kwargs)
        except Exception as error:  # whatever a compiler raises; what the function itself does, it raises again
            if fuse:
                raise
            logger.warning("metalr: torch.compile cannot fuse the decision, which goes on unfused: %s", error)
            chosen = function
            function(*args, **kwargs)

    return call


def _with_own_code(method: Callable[Given, None]) -> Callable[Given, None]:
    """Copies a method's code: torch keeps a few graphs of each code, and another object needs another graph."""
    function: FunctionType = method.__func__  # type: ignore[attr-defined]
    copied = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    own: Callable[Given, None] = MethodType(copied, method.__self__)  # type: ignore[attr-defined]
    return own
