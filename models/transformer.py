"""What every transformer module shares: a network of the transformers library, pretrained or fresh."""

from __future__ import annotations

from typing import Any, ClassVar

import lightning as L
import torch
from torch import nn

from datamodules.pretrained import locate, missing


class TransformerModule(L.LightningModule):
    """A network of transformers' Auto classes.

    It has no `configure_optimizers`: the CLI gives optimizer and schedule.

    Args:
        path: hub id or folder with the network's config and weights.
        pretrained: load the weights; otherwise the network starts fresh from its config.
        overrides: values of the config to change, such as `num_hidden_layers`.
        values: of the config too, from the subclass; `overrides` goes first.

    Raises:
        ValueError: for a config value that the network does not have.
        FileNotFoundError: for a folder that does not exist, or without config or weights.
        ConnectionError: where the hub is out of reach, and the cache has none.
    """

    head: ClassVar[str] = "AutoModel"

    def __init__(self, path: str, pretrained: bool, overrides: dict[str, Any] | None, **values: Any) -> None:
        super().__init__()
        self.path = path
        self.network = load_network(self.head, path, load_config(path, values | (overrides or {})), pretrained)

    @property
    def data(self) -> Any:
        """The Trainer's data module, or None."""
        return None if self._trainer is None else getattr(self._trainer, "datamodule", None)

    def setup(self, stage: str) -> None:
        """Takes the padding token from the data module, and refuses data that the network cannot read.

        Raises:
            ValueError: where tokens or positions would be out of the embeddings' range.
        """
        data, config = self.data, self.network.config
        if not hasattr(data, "tokenizer"):
            return
        if len(data.tokenizer) > config.vocab_size:
            raise ValueError(
                f"tokenizer={data.tokenizer_path!r} has {len(data.tokenizer)} tokens, and the network of "
                f"{self.path!r} knows {config.vocab_size}: give the two of one model"
            )
        longest = getattr(config, "max_position_embeddings", None)
        if longest is not None and data.max_length > longest:
            raise ValueError(f"max_length={data.max_length}: {self.path!r} takes {longest} tokens at most")
        if data.tokenizer.pad_token_id is not None:
            config.pad_token_id = data.tokenizer.pad_token_id

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what the data decided about the network."""
        checkpoint["pad_token_id"] = self.network.config.pad_token_id

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores what the data decided about the network."""
        self.network.config.pad_token_id = checkpoint["pad_token_id"]


def load_config(path: str, overrides: dict[str, Any]) -> Any:
    """The configuration at `path` with some values changed.

    Args:
        path: hub id or folder.
        overrides: values by name.

    Raises:
        ValueError: for a name that this kind of network does not have.
        FileNotFoundError: for a folder that does not exist, or without a config.
        ConnectionError: where the hub is out of reach, and the cache has none.
    """
    from transformers import AutoConfig  # seconds: late

    source = locate(path)
    try:
        config, unknown = AutoConfig.from_pretrained(**source, return_unused_kwargs=True, **overrides)
    except (OSError, ValueError) as error:
        raise missing(path, "config.json", source["local_files_only"], error) from error
    unknown = {name: value for name, value in unknown.items() if name in overrides}
    if unknown:
        known = ", ".join(sorted(name for name in config.to_dict() if not name.startswith("_")))
        raise ValueError(f"overrides={unknown}: {type(config).__name__} has {known}")
    return config


def load_network(head: str, path: str, config: Any, pretrained: bool) -> nn.Module:
    """A network with the given configuration.

    Args:
        head: an Auto class of transformers, such as "AutoModelForCausalLM".
        path: hub id or folder of the weights.
        config: of the network.
        pretrained: load the weights, from safetensors (nothing is unpickled); fresh ones otherwise.

    Raises:
        FileNotFoundError: where a folder has no weights.
        ConnectionError: where the hub is out of reach, and the cache has none.
        ValueError: where the hub has none.
    """
    import transformers

    auto = getattr(transformers, head)
    if not pretrained:
        network: nn.Module = auto.from_config(config)
        return network
    source = locate(path)
    try:
        # Weights in float32, whatever they were stored in: precision is the Trainer's.
        network = auto.from_pretrained(**source, config=config, use_safetensors=True, dtype=torch.float32)
        return network.train()  # it comes in evaluation mode, without dropout
    except OSError as error:
        reason = missing(path, "weights (model.safetensors)", source["local_files_only"], error)
        raise type(reason)(f"{reason}; or start from fresh weights: pretrained=False") from error
