"""MetaLR in Lightning's Trainer: the callback, and what callbacks that stand beside it need.

Adaptors of other frameworks are in `metalr.integrations`.
It imports lightning and `metalr.core`, and nothing else of metalr.
"""

from metalr.lightning.callback import MetaLRCallback

__all__ = ["MetaLRCallback"]
