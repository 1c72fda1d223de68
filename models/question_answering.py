"""Answers questions with a span of a given text, or with none: SQuAD."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.squad_metric import Answer, Candidates, SQuADMetric, best_spans, merge_windows
from models.transformer import TransformerModule


class QuestionAnswering(TransformerModule):
    """Fine-tunes whatever AutoModelForQuestionAnswering loads with start and end logits: BERT, GPT-2 and the rest.

    The loss is the mean of the two cross entropies of the answer's first and last token; a window without the
    answer aims at its null position. Logged: `train/loss`; `val/exact`, `val/f1` and the other figures of
    `models.squad_metric.evaluate`; the same with `test`.

    Args:
        path: hub id or folder with the network's config and weights.
        pretrained: load the weights; otherwise the network starts fresh from its config.
        overrides: values of the config to change, such as `num_hidden_layers`.
        null_threshold: a question is left unanswered where the score of no answer exceeds that of the best span by
            more than this, nats. Not used on data where every question has an answer (v1.1).
        n_best: spans to keep of each window and question.
        max_answer: tokens of an answer at most.

    Raises:
        ValueError: for counts below 1.
    """

    head: ClassVar[str] = "AutoModelForQuestionAnswering"

    def __init__(
        self,
        path: str = "google-bert/bert-base-uncased",
        pretrained: bool = True,
        overrides: dict[str, Any] | None = None,
        null_threshold: float = 0.0,
        n_best: int = 20,
        max_answer: int = 30,
    ) -> None:
        for argument, value in (("n_best", n_best), ("max_answer", max_answer)):
            if value < 1:
                raise ValueError(f"{argument}={value}: must be at least 1")
        super().__init__(path, pretrained, overrides)
        self.save_hyperparameters()
        self.null_threshold = null_threshold
        self.n_best = n_best
        self.max_answer = max_answer
        self.metrics = nn.ModuleDict({f"{kind}_metric": SQuADMetric(n_best=n_best) for kind in ("val", "test")})

    def setup(self, stage: str) -> None:
        """Gives the metrics the questions of the data module.

        Raises:
            ValueError: where there is no data module that has them.
        """
        super().setup(stage)
        if not hasattr(self.data, "examples"):
            raise ValueError("QuestionAnswering needs contexts and answers: give the Trainer a SQuADDataModule")
        for metric in self.metrics.values():
            metric.read(self.data.examples)
            metric.threshold = self.null_threshold if self.data.unanswerable else float("inf")

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Start and end logits, (B, L) each, of a tokenised batch."""
        inputs = {name: value for name, value in batch.items() if name not in _TARGETS}
        outputs = self.network(**inputs)
        return outputs.start_logits, outputs.end_logits

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        start, end = self(batch)
        loss = (F.cross_entropy(start, batch["start_positions"]) + F.cross_entropy(end, batch["end_positions"])) / 2
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Collects the best spans of a validation batch."""
        self.metrics["val_metric"].update(self.predict_step(batch, batch_idx))

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Collects the best spans of a test batch."""
        self.metrics["test_metric"].update(self.predict_step(batch, batch_idx))

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Candidates:
        """The best spans of each window; `answers` puts the windows of a question together."""
        return best_spans(*self(batch), batch, self.n_best, self.max_answer)

    def on_validation_epoch_end(self) -> None:
        """Exact match and F1 over all processes."""
        self._log_metric("val")

    def on_test_epoch_end(self) -> None:
        """Exact match and F1 over all processes."""
        self._log_metric("test")

    def answers(self, outputs: Iterable[Candidates], examples: Any) -> list[Answer]:
        """The answers to all questions, from what `Trainer.predict` returns.

        Args:
            outputs: of `predict_step`, from all processes.
            examples: the split that was predicted, with SQuAD's columns.
        """
        gathered = Candidates(*(torch.cat(values) for values in zip(*outputs, strict=True)))
        return merge_windows(gathered, examples["context"][:], self.n_best)

    def _log_metric(self, kind: str) -> None:
        metric = self.metrics[f"{kind}_metric"]
        figures = {f"{kind}/{name}": value for name, value in metric.compute().items()}
        self.log_dict(figures, prog_bar=False, sync_dist=True)  # the same on every process already
        metric.reset()


_TARGETS = ("start_positions", "end_positions", "null_positions", "offsets", "windows")
