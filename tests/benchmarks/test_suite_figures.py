"""The arithmetic of the suites' figures, by hand."""

import math

import pytest
from scipy import stats

from benchmarks.suites import estimates, figures
from benchmarks.suites.estimates import Estimate
from benchmarks.suites.figures import BEST_METRIC, METRICS, cell_rows, parts_of, share_to_reach
from benchmarks.suites.runs import Cell, Run
from benchmarks.suites.schedules import TUNED
from benchmarks.suites.table import Result, Scores, capped, complete, read_rows, tabulate, write_rows
from tests.benchmarks.toy import SUITE

CELL = Cell("noise", "sgd", 4)
OTHER = Cell("noise", "adamw", 4)
THIRD = Cell("line", "adamw", 12)


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


def test_only_what_is_complete_is_tabulated():
    result = Result((2.0, 1.0), 0.5, 0.1)
    cosine = [Run(*cell, "cosine", 0.1, seed) for cell in (CELL, OTHER) for seed in range(2)]
    prodigy = Run(*OTHER, "prodigy_cosine", 1.0, 0)
    results = dict.fromkeys([*cosine[:3], prodigy], result)  # the second cell lacks a seed
    table = tabulate(complete(results, [*cosine, prodigy]))
    assert {cell: set(row) for cell, row in table.items()} == {CELL: {"cosine"}, OTHER: {"prodigy_cosine"}}


@pytest.mark.parametrize(
    ("target", "share"), [(3.0, 0.0), (2.0, 0.0), (1.5, 0.25), (1.0, 0.5), (0.9, math.inf), (-1.0, math.inf)]
)
def test_share_to_reach_is_linear_between_evaluations(target: float, share: float):
    assert share_to_reach([2.0, 1.0, 1.2], target) == pytest.approx(share)


def test_share_to_reach_is_that_of_the_first_time():
    assert share_to_reach([2.0, 1.0, 3.0, 0.0, 0.5], 1.0) == pytest.approx(0.25)
    assert share_to_reach([2.0, 1.0, 3.0, 0.0, 0.5], 0.6) == pytest.approx((2 + 2.4 / 3.0) / 4)


def test_a_ratio_has_students_interval_of_the_log_ratios_paired_by_cell():
    """Log ratios of log 1, log 2 and log 4: mean log 2, deviation log 2, and t of two degrees of freedom."""
    found = estimates.ratio([(3.0, 3.0), (4.0, 2.0), (2.0, 0.5)])
    half = stats.t.ppf(0.975, 2) * math.log(2) / math.sqrt(3)
    assert found == Estimate(
        pytest.approx(2.0), pytest.approx(2 * math.exp(-half)), pytest.approx(2 * math.exp(half)), 3
    )
    assert estimates.ratio([(3.0, 2.0)]) == Estimate(pytest.approx(1.5), None, None, 1)
    assert estimates.ratio([]) is None


def test_a_difference_has_students_interval_and_a_share_that_of_clopper_and_pearson():
    assert estimates.difference([(1.0, 0.0), (3.0, 0.0)]) == Estimate(
        2.0, pytest.approx(2 - 12.706, abs=1e-3), pytest.approx(2 + 12.706, abs=1e-3), 2
    )
    assert estimates.share([True] * 3) == Estimate(1.0, pytest.approx(0.025 ** (1 / 3)), 1.0, 3)
    assert estimates.share([]) is None


def test_losses_are_compared_with_the_best_rate_of_the_baseline():
    table = {
        CELL: {
            "default": scores(1.0, 2.0, 4.0, 8.0),  # the median of four is the mean of two: 3
            "linear_warmup": scores(9.0, 2.0, 5.0, 7.0),
            "cosine": scores(4.0, 1.0, 1.0, 1.0),
        },
        OTHER: {"default": scores(1.0, 1.0, 1.0, 2.0), "linear_warmup": scores(6.0, 6.0, 6.0, 6.0)},
        THIRD: {"default": scores(1.0)},
    }
    found = figures.headlines(table, ["default", "anytime"])
    assert {name: (each.value, each.cells) for name, each in found.items()} == {
        "default_median_over_best_linear_warmup": (pytest.approx(math.sqrt(3 / 2 * 1 / 6)), 2),
        "default_worst_over_best_linear_warmup": (pytest.approx(math.sqrt(8 / 2 * 2 / 6)), 2),
        "default_median_over_best_cosine": (pytest.approx(3.0), 1),
        "default_worst_over_best_cosine": (pytest.approx(8.0), 1),
    }
    over = figures.over(table, "default")
    assert [over[which].value for which in ("best", "median", "worst")] == pytest.approx(
        [math.sqrt(1 / 2 * 1 / 6), math.sqrt(3 / 2 * 1 / 6), math.sqrt(8 / 2 * 2 / 6)]
    )
    assert figures.ratios_by_rate(table, "linear_warmup") == pytest.approx(
        [math.sqrt(9 / 2), 1.0, math.sqrt(5 / 2), math.sqrt(7 / 2)]
    )


def test_trees_are_apart_and_networks_are_split_by_horizon_optimizer_and_what_is_drawn():
    noise = [Cell("noise", optimizer, steps) for optimizer in ("sgd", "adamw") for steps in (4, 12)]
    line, trees = Cell("line", "adamw", 12), Cell("trees", "boosting", 2)
    found = parts_of([*noise, line, trees], SUITE)
    assert (
        found
        == {
            "networks": [*noise, line],
            "networks, short": [noise[0], noise[2]],
            "networks, long": [noise[1], noise[3]],  # a task of one horizon is neither
            "networks, SGD": noise[:2],
            "networks, AdamW": [*noise[2:], line],
            "networks without noise": [line],
            "noise alone": noise,
            "networks, all new": [line],
            "boosted trees": [trees],
            "all": [*noise, line, trees],
        }
    )


def test_a_tasks_cells_count_as_one_where_that_is_asked_for():
    """Ratios of 2 and 8 in one task make 4, and the other task has 1: the mean is 2."""
    cells = [Cell("noise", "sgd", 4), Cell("noise", "sgd", 12), Cell("line", "adamw", 4)]
    table = {
        cell: {"default": scores(end), "linear_warmup": scores(1.0)} for cell, end in zip(cells, (2, 8, 1), strict=True)
    }
    found = figures.headlines(table, ["default"], by_task=True)["default_median_over_best_linear_warmup"]
    assert (found.value, found.cells) == (pytest.approx(2.0), 2)


def test_what_the_rate_finder_chose_is_collected():
    def run(schedule, rate):
        return Run(*CELL, schedule, rate, 0)

    results = {
        run("finder_cosine", 0.1): Result((2.0, 1.0), 0.5, 0.1, peak_rate=1e-4),
        run("finder_one_cycle", 0.1): Result((2.0, 1.0), 0.5, 0.1, peak_rate=0.05),
        run("cosine", 0.1): Result((2.0, 1.0), 0.5, 0.1, peak_rate=0.1),
    }
    assert figures.found_rates(results) == (1e-4, 0.05, 0.5)
    assert figures.found_rates({run("cosine", 0.1): results[run("cosine", 0.1)]}) is None


def test_a_cell_that_never_gets_there_counts_as_the_whole_run_and_is_counted():
    fast = Scores([[2.0, 0.5, 0.4, 0.4, 0.4]] * 3, [0.5] * 3)
    half = Scores([[2.0, 2.0, 0.5, 0.5, 0.5], [2.0] * 5, [2.0, 2.0, 0.5, 0.4, 0.4]], [0.5] * 3)
    never = Scores([[2.0, 0.4, 0.4, 0.4, 0.4], [2.0] * 5, [2.0] * 5], [0.5] * 3)
    table = {
        CELL: {"default": fast, "cosine": scores(0.5)},
        OTHER: {"default": half, "cosine": scores(0.5, 9.0)},
        THIRD: {"default": never, "cosine": scores(0.5)},
    }
    found = figures.step_figures(table, "default", "cosine")
    assert found["default_steps_to_best_cosine"].value == pytest.approx((0.25 * 0.5 * 1.0) ** (1 / 3))
    assert found["default_never_at_best_cosine"].value == pytest.approx(1 / 3)
    assert found["default_never_at_best_cosine"].cells == 3


def test_metric_gaps_are_points_below_the_best_of_all_tuned_schedules():
    tuned = {name: scores(1.0, metric=0.5) for name in TUNED}
    best = Scores([[1.0], [1.0]], [0.2, 0.9])
    table = {
        CELL: {**tuned, "step": best, "default": Scores([[1.0]] * 3, [0.1, 0.88, 0.95])},
        OTHER: {**tuned, "default": Scores([[1.0]] * 3, [0.51, 0.51, 0.0])},
        THIRD: {"default": scores(1.0), "cosine": scores(1.0)},  # the others are not there yet
    }
    rows = cell_rows(table)
    assert rows[0][METRICS["default"]] == pytest.approx(0.88)
    assert rows[0][BEST_METRIC] == pytest.approx(0.9)
    found = figures.metric_figures(rows, "default")
    assert found["default_metric_gap_points"].value == pytest.approx(-0.5)
    assert found["default_metric_gap_points_worst"].value == pytest.approx(-2.0)


def test_a_win_is_a_lower_loss_at_the_median_rate_than_the_others_at_its_best_counted_once_a_cell():
    table = {
        CELL: {"default": scores(0.1, 0.2, 5.0), "schedule_free_sgd": scores(0.3, 0.25, 9.0)},
        OTHER: {"default": scores(0.1, 0.4, 0.5), "prodigy_cosine": scores(0.3)},
    }
    found = figures.win_figures(table, "default")
    assert (found["default_wins_over_schedule_free_sgd"].value, found["default_wins_over_prodigy_cosine"].value) == (
        1,
        0,
    )
    assert found["default_wins_over_schedule_free_sgd"].cells == 1
    assert found["default_wins_over_dog"] is None


def test_learned_runs_that_end_above_their_initial_loss_are_named():
    ends = {"falls": 1.0, "rises": 2.1, "nan": math.nan, "inf": math.inf}
    runs = {name: Run(*CELL, "default", 0.1, seed, "policy") for seed, name in enumerate(ends)}
    results = {runs[name]: Result((2.0, end), 0.5, 0.1) for name, end in ends.items()}
    results[Run(*CELL, "cosine", 0.1, 0)] = Result((2.0, 9.0), 0.5, 0.1)
    assert figures.above_initial(results) == [runs["rises"], runs["nan"], runs["inf"]]


def test_a_run_is_at_chance_where_one_answer_for_all_rows_is_as_good():
    assert figures.is_at_chance(Result((0.7, 0.69), 0.52, 1.0, chance=0.505))
    assert not figures.is_at_chance(Result((0.7, 0.6), 0.54, 1.0, chance=0.505))
    assert figures.is_at_chance(Result((0.7, math.nan), 0.9, 1.0, chance=0.505))
    results = {
        Run(*CELL, "default", 1e-4, seed, "p"): Result((0.7, 0.6), metric, 1.0, 0.5)
        for seed, metric in enumerate((0.5, 0.8, 0.51))
    }
    assert figures.at_chance(results) == {"default": (2, 3)}


def test_rows_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "rows.csv"
    runs = {
        Run(*CELL, "cosine", 0.1, 0): Result((2.0, *[0.5] * 11, 1 / 3), 0.5, 0.25, 0.1, "mark"),
        Run(*OTHER, "prodigy_cosine", 1.0, 1, "x"): Result((2.0, *[math.inf] * 12), 0.5, 0.25, 0.2),
    }
    write_rows(runs, path)
    found = read_rows(path)
    assert list(found) == list(runs)
    for run, result in runs.items():
        assert found[run].curve == pytest.approx(result.curve, rel=1e-5)
        assert found[run].final == found[run].curve[-1]
        assert (found[run].metric, found[run].seconds, found[run].chance) == (0.5, 0.25, result.chance)
        assert found[run].fingerprint == result.fingerprint


def test_a_row_that_is_no_run_is_refused(tmp_path):
    path = tmp_path / "rows.csv"
    write_rows({Run(*CELL, "cosine", 0.1, 0): Result((1.0,) * 13, 0.5, 0.25)}, path)
    path.write_text(path.read_text().replace(",0.1,0,", ",best,mean,"))
    with pytest.raises(ValueError, match="line 2: not a run of a suite .*; give a file with a row a run"):
        read_rows(path)
