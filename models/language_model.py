"""Predicts the next token of running text: GPT-2."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric

from models.transformer import TransformerModule


class LanguageModel(TransformerModule):
    """Trains whatever AutoModelForCausalLM loads, with cross entropy of the next token.

    Logged: `train/loss`; `val/loss`, nats a token over the whole split, and `val/perplexity`, its exponential; the
    same with `test`.

    Args:
        path: hub id or folder with the network's config and weights.
        pretrained: load the weights; otherwise the network starts fresh from its config.
        overrides: values of the config to change, such as `n_layer`.
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
        """Logits of the token after each, (B, L, vocabulary)."""
        logits: Tensor = self.network(**batch).logits
        return logits

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch, nats a token."""
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
        """Nats of each token but the first, (B, L - 1)."""
        return self._losses(batch)

    def on_validation_epoch_end(self) -> None:
        """Loss and perplexity over all processes."""
        self._log_metric("val")

    def on_test_epoch_end(self) -> None:
        """Loss and perplexity over all processes."""
        self._log_metric("test")

    def _losses(self, batch: dict[str, Tensor]) -> Tensor:
        logits, targets = self(batch)[:, :-1], batch["input_ids"][:, 1:]
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)

    def _log_metric(self, kind: str) -> None:
        metric = self.metrics[f"{kind}_loss"]
        loss = metric.compute()  # over all processes already
        self.log_dict({f"{kind}/loss": loss, f"{kind}/perplexity": torch.exp(loss)}, prog_bar=True, sync_dist=True)
        metric.reset()
