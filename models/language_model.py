"""LanguageModel: trains causal transformers, such as GPT-2, on running text."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric

from models.transformer import TransformerModule


class LanguageModel(TransformerModule):
    """Trains any network of transformers' AutoModelForCausalLM with the cross entropy of the next token.

    It logs `train/loss`, `val/loss` (nats a token, over the whole split) and `val/perplexity` (its exponential); the
    last two also with `test`.

    Args:
        path: hub id or folder of the network's config and weights.
        pretrained: whether to load the weights rather than initialise fresh ones.
        overrides: values of the config to change, such as {"n_layer": 2}.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: as `TransformerModule`.
    """

    head: ClassVar[str] = "AutoModelForCausalLM"

    def __init__(
        self,
        path: str = "openai-community/gpt2",
        pretrained: bool = True,
        overrides: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(path, pretrained, overrides, use_cache=False)
        self.save_hyperparameters()
        self.metrics = nn.ModuleDict({f"{kind}_loss": MeanMetric() for kind in ("val", "test")})

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Computes the logits of each next token, (B, L, vocabulary)."""
        logits: Tensor = self.network(**batch).logits
        return logits

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Returns the loss of a batch, nats a token."""
        loss = self._losses(batch).mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Adds a validation batch."""
        self.metrics["val_loss"].update(self._losses(batch))

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Adds a test batch."""
        self.metrics["test_loss"].update(self._losses(batch))

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Computes the loss of each token but the first, nats, (B, L - 1)."""
        return self._losses(batch)

    def on_validation_epoch_end(self) -> None:
        """Logs loss and perplexity over all processes."""
        self._log_metric("val")

    def on_test_epoch_end(self) -> None:
        """Logs loss and perplexity over all processes."""
        self._log_metric("test")

    def _losses(self, batch: dict[str, Tensor]) -> Tensor:
        logits, targets = self(batch)[:, :-1], batch["input_ids"][:, 1:]
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)

    def _log_metric(self, kind: str) -> None:
        metric = self.metrics[f"{kind}_loss"]
        loss = metric.compute()  # over all processes already
        self.log_dict({f"{kind}/loss": loss, f"{kind}/perplexity": torch.exp(loss)}, prog_bar=True, sync_dist=True)
        metric.reset()
