"""LoRA: low-rank adapters in a frozen network (Hu et al. 2021), through `peft`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class LoRA:
    """Describes the adapters of a network: the update of a layer's weights is alpha / rank * B A.

    Args:
        rank: of the updates, 1 or more.
        alpha: scale of the updates; the published choice is twice the rank.
        dropout: of the adapters' inputs, in [0, 1).
        targets: ends of the names of the layers that are adapted, such as ["query", "value"]; None for those that
            `peft` has for this kind of network.

    Raises:
        ValueError: for a value out of range.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: list[str] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0 or not 0.0 <= self.dropout < 1.0:
            raise ValueError(
                f"lora: rank={self.rank}, alpha={self.alpha}, dropout={self.dropout}: give a rank of 1 or more, an "
                "alpha above 0 and a dropout in [0, 1)"
            )
        if self.targets is not None and not self.targets:
            raise ValueError("lora: targets=[] adapts no layer: name one or more, or leave it out")


def adapt(network: nn.Module, lora: LoRA) -> None:
    """Adds the adapters in place, and freezes all else but the head.

    The head is what lies outside of the network's body: it is fresh, and trained whole.

    Args:
        network: of the transformers library, with a head for classification.
        lora: the adapters.

    Raises:
        ImportError: without `peft`.
        ValueError: for targets that the network does not have, or that are part of the head.
    """
    try:
        from peft import LoraConfig, TaskType, inject_adapter_in_model
    except ImportError as error:
        raise ImportError("lora needs peft: pip install '.[experiments]', or leave lora out") from error
    body = f"{network.base_model_prefix}."
    linear = _linear(network)
    settings: dict[str, Any] = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    config = LoraConfig(task_type=TaskType.SEQ_CLS, target_modules=lora.targets, **settings)
    try:
        inject_adapter_in_model(config, network)
    except ValueError as error:
        names = ", ".join(sorted({name.rpartition(".")[2] for name in linear if name.startswith(body)}))
        raise ValueError(
            f"lora: targets={lora.targets} does not go with {type(network).__name__}, whose layers are {names}: name "
            f"some of these ({str(error).splitlines()[0]})"
        ) from error
    if heads := [name for name in linear if not name.startswith(body) and name not in _linear(network)]:
        raise ValueError(
            f"lora: targets={lora.targets} adapts {', '.join(heads)}, the head, which is trained whole: name layers of "
            f"{body[:-1]} alone"
        )
    for name, parameter in network.named_parameters():
        if not name.startswith(body):
            parameter.requires_grad_(True)


def _linear(network: nn.Module) -> list[str]:
    """Names the layers that an adapter can be added to."""
    kinds = ("Linear", "Conv1D")  # transformers' GPT-2 has a linear layer of the second name
    return [name for name, module in network.named_modules() if type(module).__name__ in kinds and _plain(module)]


def _plain(module: nn.Module) -> bool:
    return not hasattr(module, "base_layer")
