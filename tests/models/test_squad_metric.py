"""SQuAD 2.0's figures against values of the official script, worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.squad_metric import Answer, Candidates, SQuADMetric, best_spans, evaluate, merge_windows, score

CASES = [
    ("Eiffel tower!", ["the Eiffel Tower", "Eiffel Tower in Paris"], 1, 1),  # case, punctuation, article
    ("the Broncos", ["Denver Broncos"], 0, 2 / 3),  # [broncos] of [denver broncos]: P = 1, R = 1/2
    ("1000", ["1,000"], 1, 1),  # punctuation goes, and leaves no space
    ("co operate", ["co-operate"], 0, 0),  # [co operate], [cooperate]
    ("vitamin", ["Vitamin A"], 1, 1),  # this A is an article too
    ("year of 1999", ["in 1999", "1999", "the year 1999"], 0, 0.8),  # the best of several: P = 2/3, R = 1
    ("to be or to be", ["to be"], 0, 4 / 7),  # repeated words count as often as both have them: P = 2/5, R = 1
    ("", ["Denver Broncos"], 0, 0),  # an answer is missed
    ("", [], 1, 1),  # no answer, rightly
    ("Paris", [], 0, 0),  # an answer that is not there
    ("the", [], 1, 1),  # nothing but an article is no answer
    ("", ["The"], 1, 1),  # nor is it one to find
    ("café", ["cafe"], 0, 0),  # accents count
    ("New\tYork  city", ["New York City"], 1, 1),  # spaces do not
]


@pytest.mark.parametrize(("prediction", "gold", "exact", "f1"), CASES)
def test_score_is_the_official_one(prediction, gold, exact, f1):
    assert score(prediction, gold) == pytest.approx((exact, f1))


GOLD = [["Denver Broncos"], ["1999"], [], []]
ANSWERS = [
    Answer(0, ["the Broncos"], [5.0], -3.0),
    Answer(1, ["1999"], [1.0], 0.5),
    Answer(2, ["Paris"], [2.0], -1.0),
    Answer(3, ["Rome"], [2.0], 2.0),
]


def test_figures_at_a_threshold():
    figures = evaluate(ANSWERS, GOLD)  # said: the Broncos, nothing, Paris, nothing
    expected = {"exact": 1 / 4, "f1": (2 / 3 + 1) / 4, "has_answer_exact": 0, "has_answer_f1": 1 / 3, "no_answer": 0.5}
    assert {name: figures[name] for name in expected} == pytest.approx(expected)


def test_a_threshold_moves_what_is_answered():
    """Odds of -3, 0.5, -1 and 2: below 1 three are answered, below -2 the first alone."""
    higher, lower = (evaluate(ANSWERS, GOLD, threshold=threshold) for threshold in (1.0, -2.0))
    expected = {"exact": 1 / 4, "f1": (2 / 3 + 1) / 4, "has_answer_f1": (2 / 3 + 1) / 2, "no_answer": 0.5}
    assert {name: higher[name] for name in expected} == pytest.approx(expected | {"exact": 2 / 4, "f1": (8 / 3) / 4})
    expected = {"exact": 2 / 4, "f1": (2 / 3 + 2) / 4, "has_answer_f1": 1 / 3, "no_answer": 1.0}
    assert {name: lower[name] for name in expected} == pytest.approx(expected)


def test_best_thresholds():
    figures = evaluate(ANSWERS, GOLD)
    # By rising odds: none answered 2 of 4; then + (0, 2/3), - 1, + 1, - 1.
    assert (figures["best_f1"], figures["best_f1_threshold"]) == (pytest.approx((2 + 2 / 3) / 4), -3.0)
    assert figures["best_exact"] == pytest.approx(0.5)
    assert figures["best_exact_threshold"] < -3.0  # answering none is as good as any


def test_equal_odds_are_on_one_side():
    answers = [Answer(row, ["x"], [0.0], 1.0) for row in range(3)]
    figures = evaluate(answers, [["x"], [], []])
    assert figures["best_exact"] == pytest.approx(2 / 3)  # not 1, which would tell equal odds apart


def test_version_1_has_no_null_answers():
    figures = evaluate([Answer(0, ["1999"], [1.0], 9.0)], [["1999"]], threshold=math.inf)
    assert figures == {"exact": 1.0, "f1": 1.0, "has_answer_exact": 1.0, "has_answer_f1": 1.0}


CONTEXT = "Paris is in France"
OFFSETS = torch.tensor([[[-1, -1], [-1, -1], [0, 5], [6, 8], [9, 11], [12, 18], [-1, -1]]])


def _batch():
    return {"offsets": OFFSETS, "null_positions": torch.tensor([0]), "windows": torch.tensor([[0, 0]])}


def test_best_spans_stay_in_the_context_in_order_and_short():
    start = torch.tensor([[1.0, 9.0, 2.0, 0.0, 0.0, 3.0, 9.0]])
    end = torch.tensor([[2.0, 9.0, 1.5, 0.0, 0.0, 4.0, 9.0]])
    found = best_spans(start, end, _batch(), n_best=4, max_answer=2)
    assert found.null.tolist() == [3.0]
    (answer,) = merge_windows(found, [CONTEXT])
    assert answer.texts[:3] == ["France", "in France", "Paris"]  # not "Paris is in France", of 6.0: four tokens
    assert answer.scores[:3] == [7.0, 4.0, 3.5]
    assert answer.null_odds == -4.0
    assert (answer.text(), answer.text(threshold=-5.0)) == ("France", "")


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 1000))
def test_best_span_is_that_of_an_exhaustive_search(n_best, max_answer, seed):
    generator = torch.Generator().manual_seed(seed)
    start, end = torch.randn(2, 1, 7, generator=generator)
    (answer,) = merge_windows(best_spans(start, end, _batch(), max(n_best, 4), max_answer), [CONTEXT])
    pairs = {
        float(start[0, i] + end[0, j]): CONTEXT[OFFSETS[0, i, 0] : OFFSETS[0, j, 1]]
        for i in range(2, 6)
        for j in range(i, min(6, i + max_answer))
    }
    assert answer.texts[0] == pairs[max(pairs)]


def _candidates(windows, null, scores, spans):
    return Candidates(torch.tensor(windows), torch.tensor(null), torch.tensor(scores), torch.tensor(spans))


def test_windows_of_a_question_are_merged():
    found = _candidates(
        [[1, 1], [0, 0], [1, 0], [1, 0]],  # in any order, one of them twice
        [1.0, 0.0, 4.0, 4.0],
        [[3.0, 1.0], [2.0, -math.inf], [5.0, 4.0], [5.0, 4.0]],
        [[[0, 5], [6, 8]], [[0, 2], [0, 0]], [[0, 5], [9, 11]], [[0, 5], [9, 11]]],
    )
    first, second = merge_windows(found, ["no matter", CONTEXT])
    assert (first.row, first.texts, first.null_odds) == (0, ["no"], -2.0)
    assert (second.row, second.texts, second.scores) == (1, ["Paris", "in", "is"], [5.0, 4.0, 1.0])
    assert second.null_odds == 1.0 - 5.0  # the lowest null score of its windows


def test_a_window_without_a_span_answers_nothing():
    found = _candidates([[0, 0]], [0.0], [[-math.inf]], [[[0, 0]]])
    (answer,) = merge_windows(found, [CONTEXT])
    assert (answer.text(), answer.text(math.inf)) == ("", "")


def test_metric_over_batches_is_that_of_all_at_once():
    metric = SQuADMetric()
    metric.read({"context": ["Paris is in France", "Rome"], "answers": [{"text": ["Paris"]}, {"text": []}]})
    metric.update(_candidates([[0, 0]], [0.0], [[2.0]], [[[0, 5]]]))
    metric.update(_candidates([[1, 0]], [0.0], [[2.0]], [[[0, 4]]]))
    assert metric.compute()["exact"] == 0.5
    metric.threshold = -3.0
    metric._computed = None
    assert metric.compute()["no_answer"] == 1.0
