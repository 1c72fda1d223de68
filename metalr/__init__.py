"""metalr: a meta-trained network that sets the learning rate of a PyTorch training run, online.

Importing it needs torch, NumPy and safetensors; `MetaLRCallback` imports lightning when it is first used.
"""

from typing import TYPE_CHECKING, Any

from metalr.core.controller import MetaLR
from metalr.core.explanation import Contribution, Explanation
from metalr.core.guard_record import DivergenceError, GuardEvent
from metalr.core.guards import Guards
from metalr.core.policy import LRPolicy, shipped_policies

if TYPE_CHECKING:
    from metalr.lightning import MetaLRCallback

__version__ = "0.1.0"
__all__ = [
    "Contribution",
    "DivergenceError",
    "Explanation",
    "GuardEvent",
    "Guards",
    "LRPolicy",
    "MetaLR",
    "MetaLRCallback",
    "shipped_policies",
]


def __getattr__(name: str) -> Any:
    if name == "MetaLRCallback":
        try:
            from metalr.lightning import MetaLRCallback
        except ModuleNotFoundError as error:
            raise ImportError(f"MetaLRCallback needs {error.name}: pip install 'metalr[lightning]'") from error
        return MetaLRCallback
    raise AttributeError(f"module 'metalr' has no attribute {name!r}")
