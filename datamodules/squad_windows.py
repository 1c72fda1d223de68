"""Overlapping windows of tokens on SQuAD's contexts, and where the answers are in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def separate(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Has a tokenizer without special tokens (GPT-2) close the question, and the context, with its end-of-text token.

    Args:
        tokenizer: a fast one; it is changed.

    Returns:
        The same tokenizer; one that adds special tokens already is left as it is.

    Raises:
        ValueError: where it has neither special tokens nor an end-of-text token.
    """
    if tokenizer.num_special_tokens_to_add(pair=True):
        return tokenizer
    if tokenizer.eos_token is None:
        raise ValueError(f"tokenizer={tokenizer.name_or_path!r} has no token to end a text with: give another")
    from tokenizers import processors

    end = tokenizer.eos_token
    template = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    # Offsets without the space before a word, also that of a window's first word.
    trim = processors.ByteLevel(add_prefix_space=False, trim_offsets=True)
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([trim, template])
    return tokenizer


def cut_windows(
    rows: dict[str, list[Any]],
    indices: list[int],
    tokenizer: PreTrainedTokenizerBase,
    training: bool,
    max_length: int,
    stride: int,
    max_question: int,
) -> dict[str, list[Any]]:
    """Tokens of the windows on a batch of rows.

    Args:
        rows: columns "question", "context" and "answers" of SQuAD.
        indices: of the rows in their split.
        tokenizer: a fast one with special tokens.
        training: whether to find the answers' tokens, or to keep what finds the tokens' text.
        max_length: tokens a window at most.
        stride: tokens that two windows share.
        max_question: tokens of a question at most.

    Returns:
        What the tokenizer gives, with `null_positions`, and in training `start_positions` and `end_positions`,
        otherwise `offsets` and `windows`; one entry a window.
    """
    encoded = tokenizer(
        _shortened(rows["question"], tokenizer, max_question),
        rows["context"],
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    sources = encoded.pop("overflow_to_sample_mapping")
    offsets = encoded.pop("offset_mapping")
    windows = dict(encoded)
    windows["null_positions"] = [_null_position(ids, tokenizer) for ids in encoded["input_ids"]]
    contexts = [np.array([part == 1 for part in encoded.sequence_ids(i)]) for i in range(len(sources))]
    if training:
        answers = [rows["answers"][source] for source in sources]
        null = windows["null_positions"]
        spans = [
            _span(np.array(o), c, a) or (n, n) for o, c, a, n in zip(offsets, contexts, answers, null, strict=True)
        ]
        windows["start_positions"], windows["end_positions"] = map(list, zip(*spans, strict=True))
        return windows
    windows["offsets"] = [np.where(c[:, None], o, -1) for o, c in zip(offsets, contexts, strict=True)]
    # Windows of one row are neighbours: a window's number is its distance to the row's first.
    numbers = np.arange(len(sources)) - np.searchsorted(sources, sources)
    windows["windows"] = [[indices[source], number] for source, number in zip(sources, numbers.tolist(), strict=True)]
    return windows


def _shortened(questions: list[str], tokenizer: PreTrainedTokenizerBase, tokens: int) -> list[str]:
    """Questions without the spaces before them, cut after some tokens."""
    questions = [question.lstrip() for question in questions]
    encoded = tokenizer(
        questions, add_special_tokens=False, truncation=True, max_length=tokens, return_offsets_mapping=True
    )
    return [
        question[: offsets[-1][1]] if len(offsets) == tokens else question
        for question, offsets in zip(questions, encoded["offset_mapping"], strict=True)
    ]


def _null_position(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> int:
    """Finds the class token, or else the last."""
    return ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else len(ids) - 1


def _span(offsets: np.ndarray, context: np.ndarray, answers: dict[str, list[Any]]) -> tuple[int, int] | None:
    """Finds the first and last token of the first answer; None where there is none, or not all of it is in the window.

    Args:
        offsets: characters of each token, (L, 2).
        context: whether a token is of the context, (L,).
        answers: SQuAD's lists "text" and "answer_start".
    """
    if not answers["text"] or not context.any():
        return None
    start = answers["answer_start"][0]
    end = start + len(answers["text"][0])
    first, covered = int(context.argmax()), offsets[context]
    if start < covered[0, 0] or end > covered[-1, 1]:
        return None
    # Starts and ends are each in order; a character may have several tokens, and a token several characters.
    start_token = int(np.searchsorted(covered[:, 1], start, side="right"))
    end_token = int(np.searchsorted(covered[:, 0], end, side="left")) - 1
    return first + start_token, first + end_token
