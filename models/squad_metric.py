"""SQuAD's exact match and F1, with the null answers of version 2.0, over the windows of all processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.text import squad
from torchmetrics.utilities import dim_zero_cat


class Candidates(NamedTuple):
    """Holds the best spans of W windows.

    Attributes:
        windows: row of the question and number of the window, (W, 2).
        null: score of no answer, start logit plus end logit, (W,).
        scores: of the spans, start logit plus end logit, best first, -inf beyond the last, (W, N).
        spans: index of the first character in the context and of the one after the last, (W, N, 2).
    """

    windows: Tensor
    null: Tensor
    scores: Tensor
    spans: Tensor


def best_spans(
    start: Tensor, end: Tensor, batch: Mapping[str, Tensor], n_best: int = 20, max_answer: int = 30
) -> Candidates:
    """Finds the best spans of each window of a batch.

    Args:
        start: logits of the first token, (W, L).
        end: logits of the last token, (W, L).
        batch: an evaluation batch of `SQuADDataModule`.
        n_best: number of starts and of ends to combine, and of spans to keep.
        max_answer: largest number of tokens of a span.
    """
    start, end, offsets = start.float(), end.float(), batch["offsets"]
    null = batch["null_positions"][:, None]
    null_score = (start.gather(1, null) + end.gather(1, null)).squeeze(1)
    outside = offsets[..., 0] < 0
    n = min(n_best, start.shape[1])
    start_logits, starts = start.masked_fill(outside, -torch.inf).topk(n)
    end_logits, ends = end.masked_fill(outside, -torch.inf).topk(n)
    length = ends[:, None, :] - starts[:, :, None] + 1
    pairs = start_logits[:, :, None] + end_logits[:, None, :]
    scores, chosen = pairs.masked_fill((length < 1) | (length > max_answer), -torch.inf).flatten(1).topk(n)
    first = offsets[..., 0].gather(1, starts.gather(1, chosen // n))
    last = offsets[..., 1].gather(1, ends.gather(1, chosen % n))
    if n < n_best:  # all batches need one shape
        scores = torch.nn.functional.pad(scores, (0, n_best - n), value=-torch.inf)
        first, last = (torch.nn.functional.pad(x, (0, n_best - n)) for x in (first, last))
    return Candidates(batch["windows"], null_score, scores, torch.stack([first, last], -1))


@dataclass(frozen=True)
class Answer:
    """Holds the answer to one question.

    Attributes:
        row: of the question in its split.
        texts: the best spans, best first, without repeats; [""] where there is none.
        scores: of the spans, start logit plus end logit.
        null_odds: score of no answer minus that of the best span.
    """

    row: int
    texts: list[str]
    scores: list[float]
    null_odds: float

    def text(self, threshold: float = 0.0) -> str:
        """Returns the best span, or "" if `null_odds` exceeds the threshold (nats)."""
        return "" if self.null_odds > threshold else self.texts[0]


def merge_windows(candidates: Candidates, contexts: Sequence[str], n_best: int = 20) -> list[Answer]:
    """Merges the windows of each question to its answer; a repeated window counts once.

    The null score of a question is the lowest of its windows (Devlin et al. 2019): one window with an answer is
    enough.

    Args:
        candidates: windows in any order, of any number of questions.
        contexts: of all rows of the split.
        n_best: number of spans to keep of each question.
    """
    windows, null, scores, spans = (x.cpu().numpy() for x in candidates)
    _, kept = np.unique(windows, axis=0, return_index=True)  # sorted by row, then by window
    rows, starts = np.unique(windows[kept, 0], return_index=True)
    answers = []
    for row, group in zip(rows.tolist(), np.split(kept, starts[1:]), strict=True):
        flat, places = scores[group].ravel(), spans[group].reshape(-1, 2)
        order = [i for i in np.argsort(-flat, kind="stable") if np.isfinite(flat[i])]
        best: dict[str, float] = {}
        for i in order:
            if len(best) == n_best:
                break
            best.setdefault(contexts[row][places[i, 0] : places[i, 1]], float(flat[i]))
        lowest = float(null[group].min())
        texts, values = (list(best), list(best.values())) if best else ([""], [-np.inf])
        answers.append(Answer(row, texts, values, lowest - values[0]))
    return answers


def score(prediction: str, gold: Sequence[str]) -> tuple[float, float]:
    """Computes exact match and F1 of one prediction, each in [0, 1], as SQuAD 2.0's evaluation script does.

    Args:
        prediction: "" for no answer.
        gold: answers to choose the best of; none for a question without an answer.
    """
    return _squad(prediction, tuple(filter(_says_something, gold)) or ("",))


def evaluate(answers: Sequence[Answer], gold: Sequence[Sequence[str]], threshold: float = 0.0) -> dict[str, float]:
    """The figures of SQuAD 2.0's evaluation script, each in [0, 1].

    `exact` and `f1` at the threshold; both over the questions with an answer alone (`has_answer_exact`,
    `has_answer_f1`) and the share of right ones without (`no_answer`), where there are such; and the best that any
    threshold would have given, with that threshold (`best_f1`, `best_f1_threshold`, and so on).

    Args:
        answers: one a question.
        gold: answers of all rows of the split.
        threshold: of `Answer.null_odds`, nats; infinite for version 1.1.
    """
    truths = [gold[answer.row] for answer in answers]
    spans = np.array([score(answer.texts[0], truth) for answer, truth in zip(answers, truths, strict=True)])
    answerable = np.array([len(truth) > 0 for truth in truths])
    nothing = 1.0 - answerable
    odds = np.array([answer.null_odds for answer in answers])
    chosen = np.where((odds > threshold)[:, None], nothing[:, None], spans)
    figures = {"exact": chosen[:, 0].mean(), "f1": chosen[:, 1].mean()}
    if answerable.any():
        figures |= {"has_answer_exact": chosen[answerable, 0].mean(), "has_answer_f1": chosen[answerable, 1].mean()}
    if not answerable.all():
        figures["no_answer"] = chosen[~answerable, 0].mean()
        wrong = np.array([answer.texts[0] != "" for answer in answers])  # as an answer to an unanswerable question
        for column, name in enumerate(("exact", "f1")):
            best, at = _best_threshold(odds, np.where(answerable, spans[:, column], -1.0 * wrong), nothing.mean())
            figures |= {f"best_{name}": best, f"best_{name}_threshold": at}
    return {name: float(value) for name, value in figures.items()}


def _best_threshold(odds: np.ndarray, gains: np.ndarray, base: float) -> tuple[float, float]:
    """Finds the best mean score and the threshold that gives it: one of the odds, or a value below all of them.

    Args:
        odds: of no answer.
        gains: of answering a question rather than not.
        base: mean score of answering none.
    """
    order = np.argsort(odds, kind="stable")
    ranked, means = odds[order], base + np.cumsum(gains[order]) / len(odds)
    means[:-1][ranked[1:] == ranked[:-1]] = -np.inf  # equal odds fall on one side of a threshold together
    best = int(means.argmax())
    return (float(means[best]), float(ranked[best])) if means[best] > base else (float(base), float(ranked[0] - 1.0))


@lru_cache(maxsize=2**17)  # gold answers recur at every validation
def _says_something(text: str) -> bool:
    """Returns whether an answer is more than articles and punctuation; the script drops one that is not."""
    return _squad(text, [""])[0] < 1.0


def _squad(prediction: str, gold: Sequence[str]) -> tuple[float, float]:
    result = squad({"id": "", "prediction_text": prediction}, {"id": "", "answers": {"text": list(gold)}})
    return float(result["exact_match"]) / 100.0, float(result["f1"]) / 100.0


class SQuADMetric(Metric):
    """Computes `evaluate` over all processes; windows that a sampler repeated count once.

    Args:
        threshold: of the null odds, nats.
        n_best: number of spans kept of each window.
    """

    full_state_update = False
    higher_is_better = True

    windows: list[Tensor]
    null: list[Tensor]
    scores: list[Tensor]
    spans: list[Tensor]

    def __init__(self, threshold: float = 0.0, n_best: int = 20) -> None:
        super().__init__()
        self.threshold = threshold
        self.n_best = n_best
        self.contexts: Sequence[str] = []
        self.gold: list[list[str]] = []
        for name in Candidates._fields:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def read(self, examples: Any) -> None:
        """Reads contexts and answers from a split with SQuAD's columns."""
        self.contexts = examples["context"][:]
        self.gold = [answers["text"] for answers in examples["answers"][:]]

    def update(self, candidates: Candidates) -> None:
        """Adds the windows of one batch."""
        for name, value in candidates._asdict().items():
            getattr(self, name).append(value)

    def compute(self) -> dict[str, float]:
        """Computes the figures of `evaluate` over the questions seen."""
        gathered = Candidates(*(dim_zero_cat(getattr(self, name)) for name in Candidates._fields))
        return evaluate(merge_windows(gathered, self.contexts, self.n_best), self.gold, self.threshold)
