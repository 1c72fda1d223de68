"""TransformerModule: the base of LightningModules with a network of the transformers library."""

from __future__ import annotations

from typing import Any, ClassVar

import lightning as L
import torch
from torch import nn

from datamodules.pretrained import locate, missing


class TransformerModule(L.LightningModule):
    """Holds a network of the transformers Auto class `head`, pretrained or fresh.

    It has no `configure_optimizers`: the CLI gives optimizer and schedule.

    Args:
        path: hub id or folder of the network's config and weights.
        pretrained: whether to load the weights rather than initialise fresh ones.
        overrides: values of the config to change, such as {"num_hidden_layers": 2}.
        **values: values of the config from a subclass; `overrides` takes precedence.

    Raises:
        ValueError: for a value that the network's config does not have.
        FileNotFoundError: for a folder that is missing, or lacks config or weights.
        ConnectionError: for an unreachable hub whose files are not in the cache.
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
        """Takes the padding token from the data module, and checks that the network can read its data.

        Raises:
            ValueError: for tokens or positions beyond the embeddings.
        """
        data, config = self.data, self.network.config
        if not hasattr(data, "tokenizer"):
            return
        if len(data.tokenizer) > config.vocab_size:
            raise ValueError(
                f"tokenizer={data.tokenizer_path!r} has {len(data.tokenizer)} tokens, and the network of "
                f"{self.path!r} has {config.vocab_size}: give both of one model"
            )
        longest = getattr(config, "max_position_embeddings", None)
        if longest is not None and data.max_length > longest:
            raise ValueError(f"max_length={data.max_length}: {self.path!r} takes {longest} tokens at most")
        if data.tokenizer.pad_token_id is not None:
            config.pad_token_id = data.tokenizer.pad_token_id

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the padding token, which the data may have set."""
        checkpoint["pad_token_id"] = self.network.config.pad_token_id

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the padding token."""
        self.network.config.pad_token_id = checkpoint["pad_token_id"]


def load_config(path: str, overrides: dict[str, Any]) -> Any:
    """Loads the configuration at `path`, with some values changed.

    Args:
        path: hub id or folder.
        overrides: values by name.

    Raises:
        ValueError: for a name that this kind of network does not have.
        FileNotFoundError: for a folder that is missing, or lacks a config.
        ConnectionError: for an unreachable hub whose config is not in the cache.
    """
    from transformers import AutoConfig  # late: importing it takes seconds

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
    """Makes a network with the given configuration.

    Args:
        head: an Auto class of transformers, such as "AutoModelForCausalLM".
        path: hub id or folder of the weights.
        config: of the network.
        pretrained: whether to load the weights, from safetensors alone (nothing is unpickled).

    Raises:
        FileNotFoundError: for a folder without weights.
        ConnectionError: for an unreachable hub whose weights are not in the cache.
        ValueError: for an id without weights on the hub, or weights of other shapes than the config's.
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
        return network.train()  # from_pretrained returns it in evaluation mode, without dropout
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise ValueError(
            f"path={path!r}: its weights have other shapes than the network that its config with num_labels="
            f"{config.num_labels} and the overrides describes: leave these out (a head is then replaced where the data "
            "have another number of labels), or use fresh weights: pretrained=False"
        ) from error
    except OSError as error:
        reason = missing(path, "weights (model.safetensors)", source["local_files_only"], error)
        raise type(reason)(f"{reason}; or use fresh weights: pretrained=False") from error
