"""The arithmetic of the held-out suite's figures, by hand."""

import math

import pytest

from benchmarks.heldout import figures
from benchmarks.heldout.figures import BEST_METRIC, METRICS, cell_rows, ratios_of, share_to_reach
from benchmarks.heldout.schedules import TUNED
from benchmarks.suites.runs import Cell, Run
from benchmarks.suites.table import Result, Scores, capped, read_rows, tabulate, write_rows

CELL = Cell("digits", "sgd", 100)
OTHER = Cell("digits", "adamw", 100)


def scores(*finals: float, metric: float = 0.5) -> Scores:
    return Scores([[2.0, 1.5, final] for final in finals], [metric] * len(finals))


def test_a_loss_that_diverged_counts_as_ten_times_the_initial_one():
    assert capped([2.0, 3.0, math.nan, math.inf, 1e9, 0.5]) == [2.0, 3.0, 20.0, 20.0, 20.0, 0.5]


def test_scores_are_means_over_seeds_in_the_order_of_the_rates():
    runs = {
        Run(*CELL, "cosine", lr, seed): Result((2.0, final), metric, 0.1)
        for lr, seed, final, metric in [
            (1.0, 0, math.nan, 0.1),
            (1.0, 1, 1.0, 0.3),
            (0.1, 0, 0.5, 0.8),
            (0.1, 1, 0.7, 0.9),
        ]
    }
    found = Scores.of(runs)
    assert found.curves == [[2.0, pytest.approx(0.6)], [2.0, pytest.approx(10.5)]]
    assert found.metrics == pytest.approx([0.85, 0.2])
    assert found.finals == [curve[-1] for curve in found.curves]


def test_only_what_is_complete_is_tabulated_and_an_untuned_schedule_stands_in_every_cell_of_its_task_and_horizon():
    result = Result((2.0, 1.0), 0.5, 0.1)
    cosine = [Run(*cell, "cosine", 0.1, seed) for cell in (CELL, OTHER) for seed in range(2)]
    prodigy = [Run("digits", "own", steps, "prodigy_cosine", 1.0, 0) for steps in (100, 500)]
    results = dict.fromkeys([*cosine[:3], *prodigy], result)  # the second cell lacks a seed
    table = tabulate(results, [*cosine, *prodigy])
    assert {cell: set(row) for cell, row in table.items()} == {
        CELL: {"cosine", "prodigy_cosine"},
        OTHER: {"prodigy_cosine"},
    }


@pytest.mark.parametrize(
    ("target", "share"), [(3.0, 0.0), (2.0, 0.0), (1.5, 0.25), (1.0, 0.5), (0.9, math.inf), (-1.0, math.inf)]
)
def test_share_to_reach_is_linear_between_evaluations(target: float, share: float):
    assert share_to_reach([2.0, 1.0, 1.2], target) == pytest.approx(share)


def test_share_to_reach_is_that_of_the_first_time():
    assert share_to_reach([2.0, 1.0, 3.0, 0.0, 0.5], 1.0) == pytest.approx(0.25)
    assert share_to_reach([2.0, 1.0, 3.0, 0.0, 0.5], 0.6) == pytest.approx((2 + 2.4 / 3.0) / 4)


def test_losses_are_compared_with_the_best_rate_by_geometric_means():
    table = {
        CELL: {"default": scores(1.0, 2.0, 4.0, 8.0), "cosine": scores(9.0, 2.0, 5.0, 7.0)},  # 3 / 2, 8 / 2
        OTHER: {"default": scores(1.0, 1.0, 1.0, 2.0), "cosine": scores(6.0, 6.0, 6.0, 6.0)},  # 1 / 6, 2 / 6
        Cell("adult", "sgd", 100): {"default": scores(1.0)},
    }
    ratios = ratios_of(cell_rows(table))
    assert ratios["default_median_over_best_cosine"] == pytest.approx([3 / 2, 1 / 6])
    assert ratios["default_worst_over_best_cosine"] == pytest.approx([8 / 2, 2 / 6])
    assert ratios["anytime_median_over_best_constant"] == []
    assert figures.summary(table)["default"] == pytest.approx(
        [math.sqrt(1 / 2 * 1 / 6), math.sqrt(3 / 2 * 1 / 6), math.sqrt(8 / 2 * 2 / 6)]
    )
    assert figures.ratios_by_rate(table, "cosine") == pytest.approx(
        [math.sqrt(9 / 2), 1.0, math.sqrt(5 / 2), math.sqrt(7 / 2)]
    )


def test_intervals_are_of_the_geometric_mean_over_cells():
    """Bootstrap means of log 1 and log 4 are those of both, one of each or the other: the ends are 1 and 4."""
    found = figures.intervals({"two": [1.0, 4.0], "one": [2.0], "none": []})
    assert found == {"two": pytest.approx([1.0, 4.0])}


def test_a_cell_that_never_gets_there_counts_as_the_whole_run_and_is_counted():
    fast = Scores([[2.0, 0.5, 0.4, 0.4, 0.4]] * 3, [0.5] * 3)
    half = Scores([[2.0, 2.0, 0.5, 0.5, 0.5], [2.0] * 5, [2.0, 2.0, 0.5, 0.4, 0.4]], [0.5] * 3)
    never = Scores([[2.0, 0.4, 0.4, 0.4, 0.4], [2.0] * 5, [2.0] * 5], [0.5] * 3)
    table = {
        CELL: {"default": fast, "cosine": scores(0.5)},
        OTHER: {"default": half, "cosine": scores(0.5, 9.0)},
        Cell("adult", "sgd", 1): {"default": never, "cosine": scores(0.5)},
    }
    found = figures.step_figures(table, "default", "cosine")
    assert found["default_steps_to_best_cosine"] == pytest.approx((0.25 * 0.5 * 1.0) ** (1 / 3))
    assert found["default_cells_never_at_best_cosine"] == 1
    assert found["default_cells_measured"] == 3


def test_metric_gaps_are_points_below_the_best_of_all_tuned_schedules():
    tuned = {name: scores(1.0, metric=0.5) for name in TUNED}
    best = Scores([[1.0], [1.0]], [0.2, 0.9])
    table = {
        CELL: {**tuned, "step": best, "default": Scores([[1.0]] * 3, [0.1, 0.88, 0.95])},
        OTHER: {**tuned, "default": Scores([[1.0]] * 3, [0.51, 0.51, 0.0])},
        Cell("adult", "sgd", 100): {"default": scores(1.0), "cosine": scores(1.0)},  # the others are not there yet
    }
    rows = cell_rows(table)
    assert rows[0][METRICS["default"]] == pytest.approx(0.88)
    assert rows[0][BEST_METRIC] == pytest.approx(0.9)
    found = figures.metric_figures(rows, "default")
    assert found == pytest.approx({"default_metric_gap_points_mean": -0.5, "default_metric_gap_points_worst": -2.0})


def test_a_win_is_a_lower_loss_at_the_median_rate():
    table = {
        CELL: {"default": scores(0.1, 0.2, 5.0), "prodigy_cosine": scores(0.3)},
        OTHER: {"default": scores(0.1, 0.4, 0.5), "prodigy_cosine": scores(0.3)},
    }
    assert figures.win_figures(cell_rows(table), "default") == {"default_wins_over_prodigy_cosine": 0.5}


def test_learned_runs_that_end_above_their_initial_loss_are_named():
    ends = {"falls": 1.0, "rises": 2.1, "nan": math.nan, "inf": math.inf}
    runs = {name: Run(*CELL, "default", 0.1, seed, "policy") for seed, name in enumerate(ends)}
    results = {runs[name]: Result((2.0, end), 0.5, 0.1) for name, end in ends.items()}
    tuned = Run(*CELL, "cosine", 0.1, 0)
    missing = Run(*CELL, "default", 0.1, 9, "policy")
    results[tuned] = Result((2.0, 9.0), 0.5, 0.1)
    found = figures.above_initial(results, [*runs.values(), tuned, missing])
    assert found == [runs["rises"], runs["nan"], runs["inf"]]


def test_rows_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "heldout.csv"
    runs = {
        Run(*CELL, "cosine", 0.1, 0): Result((2.0, *[0.5] * 11, 1 / 3), 0.5, 0.25),
        Run("digits", "own", 10, "prodigy_cosine", 1.0, 1, "x"): Result((2.0, *[math.inf] * 12), 0.5, 0.25),
    }
    write_rows(runs, path)
    found = read_rows(path)
    assert list(found) == list(runs)
    for run, result in runs.items():
        assert found[run].curve == pytest.approx(result.curve, rel=1e-5)
        assert (found[run].metric, found[run].seconds) == (0.5, 0.25)


def test_a_row_that_is_no_run_is_refused(tmp_path):
    path = tmp_path / "heldout.csv"
    write_rows({Run(*CELL, "cosine", 0.1, 0): Result((1.0,) * 13, 0.5, 0.25)}, path)
    path.write_text(path.read_text().replace(",0.1,0,", ",best,mean,"))
    with pytest.raises(ValueError, match="line 2: not a run of the suite.*\\.json file: give that as --source"):
        read_rows(path)
