"""QuestionAnswering: answers questions with a span of a given text, or with none (SQuAD)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.squad_metric import Answer, Candidates, SQuADMetric, best_spans, merge_windows
from models.transformer import TransformerModule


class QuestionAnswering(TransformerModule):
    """Fine-tunes any network of transformers' AutoModelForQuestionAnswering with start and end logits, such as BERT.

    The loss is the mean of the cross entropies of the answer's first and last token; in a window without the answer,
    both targets are its null position. It logs `train/loss`, and `val/exact`, `val/f1` and the other figures of
    `models.squad_metric.evaluate`; the latter also with `test`.

    Args:
        path: hub id or folder of the network's config and weights.
        pretrained: whether to load the weights rather than initialise fresh ones.
        overrides: values of the config to change, such as {"num_hidden_layers": 2}.
        null_threshold: score by which "no answer" must exceed the best span for a question to be left unanswered, nats.
            Not used on data in which every question has an answer (version 1.1).
        n_best: number of spans to keep of each window and question, 1 or more.
        max_answer: largest number of tokens of an answer, 1 or more.

    Raises:
        ValueError: for a number below 1, and as `TransformerModule`.
        FileNotFoundError, ConnectionError: as `TransformerModule`.
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
        """Gives the data module's contexts and answers to the metrics.

        Raises:
            ValueError: for a data module without them.
        """
        super().setup(stage)
        if not hasattr(self.data, "examples"):
            raise ValueError("QuestionAnswering needs contexts and answers: give the Trainer a SQuADDataModule")
        for metric in self.metrics.values():
            metric.read(self.data.examples)
            metric.threshold = self.null_threshold if self.data.unanswerable else float("inf")

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Computes start and end logits, (B, L) each, of a tokenised batch."""
        inputs = {name: value for name, value in batch.items() if name not in _TARGETS}
        outputs = self.network(**inputs)
        return outputs.start_logits, outputs.end_logits

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Returns the loss of a batch, nats."""
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
        """Returns the best spans of each window; `answers` merges the windows of a question."""
        return best_spans(*self(batch), batch, self.n_best, self.max_answer)

    def on_validation_epoch_end(self) -> None:
        """Logs exact match and F1 over all processes."""
        self._log_metric("val")

    def on_test_epoch_end(self) -> None:
        """Logs exact match and F1 over all processes."""
        self._log_metric("test")

    def answers(self, outputs: Iterable[Candidates], examples: Any) -> list[Answer]:
        """Merges what `Trainer.predict` returns to answers of all questions.

        Args:
            outputs: of `predict_step`, from all processes.
            examples: the predicted split, with SQuAD's columns.
        """
        gathered = Candidates(*(torch.cat(values) for values in zip(*outputs, strict=True)))
        return merge_windows(gathered, examples["context"][:], self.n_best)

    def _log_metric(self, kind: str) -> None:
        metric = self.metrics[f"{kind}_metric"]
        figures = {f"{kind}/{name}": value for name, value in metric.compute().items()}
        self.log_dict(figures, prog_bar=False, sync_dist=True)  # the same on every process already
        metric.reset()


_TARGETS = ("start_positions", "end_positions", "null_positions", "offsets", "windows")
