"""Every figure of the README and of the cards is worked out again from the file that it came from."""

import csv
import json
import math
import re
import statistics
from collections.abc import Callable
from statistics import fmean, geometric_mean

import matplotlib
import pytest

from benchmarks import first_screen, validation_loss
from metalr import LRPolicy, shipped_policies
from metalr.compare.metrics import bootstrap
from tests.pages import ROOT

README = (ROOT / "README.md").read_text()
WEIGHTS = ROOT / "metalr" / "weights"
FOUND = json.loads((ROOT / "docs" / "heldout.json").read_text())
CELLS = FOUND["cells"]
NAMES = {
    "learned": "default",
    "learned, horizon unknown": "anytime",
    "linear to zero": "linear",
    "warmup-stable-decay": "wsd",
    "one-cycle": "one_cycle",
    "Prodigy with cosine": "prodigy_cosine",
    "schedule-free AdamW": "schedule_free_adamw",
    "schedule-free SGD": "schedule_free_sgd",
    "D-Adaptation (Adam)": "d_adaptation",
}
"""Schedules as the README names them, where that is not their own name."""


def rows(text: str, columns: int) -> list[list[str]]:
    """Rows of a page's tables of so many columns, without heads and rules."""
    found = [[cell.strip(" *`") for cell in line[1:-1].split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [row for row in found if len(row) == columns and any(row) and set(row[-1]) - {"-"}]


def ratio(above: str, below: str, chosen: Callable[[dict], bool] = lambda cell: True) -> str:
    """Geometric mean over cells with its interval, as the pages write it."""
    logs = [math.log(cell[above] / cell[below]) for cell in CELLS if chosen(cell)]
    found = bootstrap(logs)
    return f"{math.exp(fmean(logs)):.3f} [{math.exp(found.low):.3f}, {math.exp(found.high):.3f}]"


def is_short(cell: dict) -> bool:
    return cell["steps"] == min(other["steps"] for other in CELLS if other["task"] == cell["task"])


def percent(name: str) -> str:
    return f"{100 * FOUND['figures'][name]:.0f} %"


def section(start: str, end: str) -> str:
    """The text between two lines, its lines joined."""
    return " ".join(README.partition(start)[2].partition(end)[0].split())


MEDIAN, WORST = (ratio(f"default {which}", "cosine best") for which in ("median", "worst"))
CLAIMS = {
    "# metalr": [f"**{MEDIAN}**", f"{WORST} (20 cells, 95 %)"],
    "## What was measured": [
        f"{MEDIAN} is what linear to zero reaches at its best rate ({FOUND['summary']['linear'][0]:.3f})",
        f"warmup-stable-decay is at {FOUND['summary']['wsd'][0]:.3f}",
        f"short horizons it is {ratio('default median', 'cosine best', is_short)}",
        f"long ones {ratio('default median', 'cosine best', lambda cell: not is_short(cell))}",
        f"without digits, {ratio('default median', 'cosine best', lambda cell: cell['task'] != 'digits')}",
        f"**From the worst rate** it is at {WORST}, where cosine is at {FOUND['summary']['cosine'][2]:.3f}",
        f"at {ratio('anytime median', 'constant best')} times a constant rate at its best",
        f"from the worst rate {ratio('anytime worst', 'constant best')}",
        f"below Prodigy with cosine in {percent('default_wins_over_prodigy_cosine')} of the cells",
        f"schedule-free AdamW in {percent('default_wins_over_schedule_free_adamw')}",
        f"schedule-free SGD in {percent('default_wins_over_schedule_free_sgd')}",
        f"in {FOUND['figures']['default_cells_never_at_best_cosine']} of the {len(CELLS)} cells it never reaches",
        f"{-FOUND['figures']['default_metric_gap_points_mean']:.1f} points behind",
        f"{-FOUND['figures']['default_metric_gap_points_worst']:.1f} in the worst cell, a BERT that has seen 80",
        f"{len(FOUND['above_initial'])} of {FOUND['learned_runs']} runs, all in that cell",
    ],
}


def table_of(name: str) -> list[dict[str, str]]:
    """Rows of a file of docs/."""
    with (ROOT / "docs" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def fine_tuned(task: str, optimizer: str, schedule: str) -> dict[float, dict[str, str]]:
    """Runs of the fine-tuning suite by their initial rate."""
    wanted = (task, optimizer, schedule)
    return {
        float(row["rate"]): row
        for row in table_of("finetuning-runs")
        if (row["task"], row["optimizer"], row["schedule"]) == wanted
    }


LEARNED, LINEAR = (fine_tuned("minilm-sst2", "adamw", schedule) for schedule in ("default", "linear_warmup"))
TUNED_LOSSES = sorted(float(row["final"]) for row in LEARNED.values())
LINEAR_BEST = min(float(row["final"]) for row in LINEAR.values())
BEFORE_AND_AFTER = "ends at {:.3f} times the loss of before from the median rate and at {:.3f} times from the worst"


def before_and_after() -> tuple[float, float]:
    """Geometric means over cells of the present policy's loss over that of before, from the median and worst rate."""
    losses: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in table_of("default-suite"):
        cell = losses.setdefault((row["task"], row["optimizer"], row["steps"]), {})
        cell.setdefault(row["policy"], []).append(float(row["final"]))
    before, after = next(iter(losses.values()))
    assert len(losses) == 18
    assert after.startswith(LRPolicy.load("default").fingerprint())
    return tuple(
        geometric_mean(choose(cell[after]) / choose(cell[before]) for cell in losses.values())
        for choose in (statistics.median, max)
    )


def test_the_figures_of_fine_tuning_are_those_of_its_runs():
    page = " ".join((ROOT / "docs" / "fine-tuning.md").read_text().split())
    for rate, row in LEARNED.items():
        cells = [f"{float(run['final']):.3f}, {float(run['metric']):.3f}" for run in (row, LINEAR[rate])]
        assert f"| {rate:g} | {cells[0]} | {cells[1]} |" in page
    assert f"ends at {TUNED_LOSSES[2] / LINEAR_BEST:.3f} times the loss of linear at the best of its five" in page
    assert f"and from the worst at {TUNED_LOSSES[-1] / LINEAR_BEST:.3f}" in page
    images = [
        f"{float(row['final']):.3f}" for _, row in sorted(fine_tuned("mobilenet-cifar10", "sgd", "default").items())
    ]
    assert f"ends at {', '.join(images[:-1])} and {images[-1]} from 1e-4" in page


def test_what_the_last_run_of_default_changed_is_in_its_file():
    ratios = before_and_after()
    readme, page = (" ".join(text.split()) for text in (README, (ROOT / "docs" / "meta-training.md").read_text()))
    assert BEFORE_AND_AFTER.format(*ratios) in readme
    assert (
        "ends at {:.3f} times the loss of the third's from the median rate, and at {:.3f} times".format(*ratios) in page
    )
    assert f"losses of {TUNED_LOSSES[0]:.3f} to {TUNED_LOSSES[-1]:.3f}, where linear" in readme
    assert f"linear with warm-up ends at {LINEAR_BEST:.3f} from the best" in readme


@pytest.mark.parametrize("head", CLAIMS)
def test_the_readmes_figures_are_those_of_the_suite(head):
    text = section(f"{head}\n", "\n## ")
    for claim in CLAIMS[head]:
        assert claim in text, claim


def test_the_readme_has_no_other_figure():
    """Every decimal of the first screen and of what was measured is one of the claims, of the table or of a target."""
    known = {number for claims in CLAIMS.values() for claim in claims for number in re.findall(r"\d+\.\d+", claim)}
    known |= {f"{value:.3f}" for values in FOUND["summary"].values() for value in values}
    known |= set(re.findall(r"\d+\.\d+", (ROOT / "docs" / "targets.md").read_text().partition("## adult_mlp")[0]))
    known |= {f"{loss:.3f}" for loss in (TUNED_LOSSES[0], TUNED_LOSSES[-1], LINEAR_BEST, *before_and_after())}
    shown = README.partition("## How it works")[0]
    prose = re.sub(r"```.*?```|Python 3\.10", "", shown, flags=re.DOTALL)
    assert set(re.findall(r"\d+\.\d+", prose)) - known == set()


def test_the_worst_cell_is_the_one_that_the_readme_names():
    gaps = {
        (c["task"], c["steps"], c["optimizer"]): c["metric learned"] - c["metric best tuned"]
        for c in CELLS
        if c["metric learned"] is not None
    }
    worst = min(gaps, key=gaps.__getitem__)
    assert worst == ("sst2", 80, "adamw")
    assert 100 * gaps[worst] == pytest.approx(FOUND["figures"]["default_metric_gap_points_worst"], abs=0.01)
    assert {(run["task"], run["steps"]) for run in FOUND["above_initial"]} == {("sst2", 80)}


def test_the_readmes_table_is_the_suites():
    table = {NAMES.get(row[0], row[0]): row[1:] for row in rows(section_lines("## What was measured"), 4)[1:]}
    assert table.keys() == FOUND["summary"].keys()
    for name, (best, median, worst) in FOUND["summary"].items():
        ratios = [best, median, worst] if name not in list(NAMES.values())[-4:] else [median] * 3
        assert table[name] == [f"{value:.3f}" for value in ratios], name


def section_lines(head: str) -> str:
    return README.partition(f"{head}\n")[2].partition("\n## ")[0]


def test_the_readmes_targets_are_those_of_their_page():
    page = (ROOT / "docs" / "targets.md").read_text()
    table = {row[0]: row[1:] for row in rows(page, 4)[1:]}
    learned = {name: cells[1] for name, cells in table.items()}
    lines = [line.split("|") for line in page.splitlines() if re.match(r"\| \w+ \| \w+/", line)]
    assert (len(lines), sum(cells[3].startswith(" **") for cells in lines)) == (7, 5)
    text = section("## What was measured", "\n## ")
    for name, title in (("adult_mlp", "AUC"), ("adult_xgboost", "XGBoost")):
        own = learned[name].partition(";")[0]
        target = table[name][0].rpartition(" ")[2]
        usual = table[name][2].partition(": ")[2].partition(";")[0]
        assert f"{own} of {target}" in text, title
        assert f"({usual})" in text


def of_xgboost(cells: list[dict]) -> list[dict]:
    return [cell for cell in cells if cell["task"] == "xgboost"]


def card_figures(name: str) -> dict[str, str]:
    """Figures of the suite on a card."""
    page = (WEIGHTS / f"{name}.md").read_text()
    return {row[0]: row[1] for row in rows(page.partition("| figure | value |")[2], 2)}


def test_a_cards_figures_are_the_suites():
    """Of `anytime`; the suite has not been run in full with the present `default`."""
    shown = card_figures("anytime")
    assert len(shown) == 12
    for figure, value in shown.items():
        if figure == "runs_above_initial_loss":
            expected = f"{len(FOUND['above_initial'])} of {FOUND['learned_runs']} learned runs"
        else:
            found = FOUND["figures"][figure]
            expected = f"{found:.3f}" if isinstance(found, float) else str(found)
            if interval := FOUND["intervals"].get(figure):
                expected += " [{:.3f}, {:.3f}]".format(*interval)
        assert value == expected, figure


@pytest.mark.parametrize(
    ("name", "learned", "baseline"), [("boosting", "default", "cosine"), ("boosting_anytime", "anytime", "constant")]
)
def test_the_cards_of_boosted_trees_have_the_suites_cells_of_xgboost(name, learned, baseline):
    shown, cells = card_figures(name), of_xgboost(CELLS)
    assert len(cells) == 2
    for which in ("median", "worst"):
        means = geometric_mean(cell[f"{learned} {which}"] / cell[f"{baseline} best"] for cell in cells)
        assert float(shown[f"{learned}_{which}_over_best_{baseline}"]) == pytest.approx(means, abs=6e-4)
    assert shown[f"{learned}_cells_measured"] == "2"
    if learned == "default":
        gaps = [100 * (cell["metric learned"] - cell["metric best tuned"]) for cell in cells]
        assert float(shown["default_metric_gap_points_mean"]) == pytest.approx(fmean(gaps), abs=0.012)
        assert float(shown["default_metric_gap_points_worst"]) == pytest.approx(min(gaps), abs=0.012)


@pytest.mark.parametrize("name", shipped_policies())
def test_a_card_is_the_one_inside_of_the_policy(name):
    """And counts the weights that there are. It names the commit that made each run, and not the first score alone."""
    policy, page = LRPolicy.load(name), (WEIGHTS / f"{name}.md").read_text()
    facts = {row[0]: row[1] for row in rows(page.partition("\n## ")[0], 2)}
    assert facts["made by"] == policy.card["command"]
    assert facts["at commit"].replace("`", "") == policy.card["commit"]
    assert len(facts["at commit"].split(", ")) in (1, facts["made by"].count("train.py fit"))
    assert (facts["seed"], facts["meta-steps"]) == (policy.card["seed"], policy.card["meta_steps"])
    assert facts["inner steps"] == f"{int(policy.card['inner_steps']):,}"
    assert facts["weights"].startswith(f"{policy.size:,}: {len(policy.features)} features")
    assert facts["selection score"].startswith(f"{policy.card['heldout']}: ")
    assert "that chose this state" in facts["selection score"]
    for figure, value in card_figures(name).items():
        assert policy.card[figure] == value


def test_the_first_screens_picture_is_drawn_from_its_file(tmp_path):
    losses = first_screen.losses_by_rate()
    with first_screen.ROWS.open(newline="") as file:
        keys = [tuple(row.values())[:6] for row in csv.DictReader(file)]
    seeds = {key[5] for key in keys}
    assert len(set(keys)) == len(keys) == len(seeds) * len(first_screen.CELLS) * 3 * first_screen.RATES
    # What its alternative text says: from every rate the learned loss is near the best, where a set schedule's is not.
    assert max(losses["default"]) < 1.2 < max(losses["cosine"])
    assert min(losses["cosine"]) >= 1.0 - 1e-9
    first_screen.draw(losses, tmp_path / "again.svg")
    drawn = first_screen.PICTURE.read_text()
    if f"Matplotlib v{matplotlib.__version__}" in drawn:
        assert (tmp_path / "again.svg").read_text() == drawn


def test_the_reduced_grids_at_a_glance_are_their_own_tables():
    """One untuned learned run beside the best baseline, and both from the worst rate, out of each grid's section."""
    page = (ROOT / "docs" / "reduced.md").read_text()
    glance, *sections = page.split("\n## ")[1:]
    of_grid = {text.partition("\n")[0]: text for text in sections}
    checked = 0
    for label, untuned, tuned, worst, _ in rows(glance, 5)[1:]:
        grid, _, metric = label.partition(": ")
        lines = {row[0]: row[1:] for row in table_rows(of_grid[grid])}
        medians, bests, worsts = (lines.get(f"{metric}, {which} rate") for which in ("median", "best", "worst"))
        if medians is None:
            continue
        checked += 1
        pick = min if "↓" in label else max
        assert untuned == medians[0], label
        assert worst == worsts[0], label
        assert float(tuned.split(" ")[0]) == pick(float(value) for value in bests[1:] if value not in ("–", "")), label
    assert checked > 15


def table_rows(text: str) -> list[list[str]]:
    return [[cell.strip(" *") for cell in line[1:-1].split("|")] for line in text.splitlines() if line[:2] == "| "]


def test_the_scaling_tables_model_is_the_one_that_its_page_describes():
    """fixed + per_batch * batches / ranks, through the two runs of one process, whose times are rounded to a ms."""
    pages = [path.read_text() for path in (ROOT / "docs").glob("*.md")]
    (page,) = [text for text in pages if "| scaling | ranks | task batches |" in text]
    table = [row for row in table_rows(page) if len(row) == 6 and row[1].isdigit()]
    assert len(table) == 10
    measured = {(int(row[1]), int(row[2])): float(row[3]) for row in table if row[3]}
    per_batch = (measured[1, 4] - measured[1, 2]) / 2
    fixed = measured[1, 2] - 2 * per_batch
    for kind, ranks, batches, own, modelled, efficiency in table:
        count, of_rank = int(ranks), int(batches) / int(ranks)
        assert float(modelled) == pytest.approx(fixed + per_batch * of_rank, abs=4 + of_rank / 2)
        if kind:
            alone = fixed + per_batch * (int(batches) if kind == "strong" else of_rank)
            taken = float(own or modelled)
            expected = alone / taken / (count if kind == "strong" else 1)
            assert float(efficiency) == pytest.approx(expected, abs=0.006), (kind, ranks)


def test_the_validation_losss_table_is_its_files():
    lines = validation_loss.table(table_of("validation-loss"))
    assert len(lines) == 5
    assert "\n".join(lines) in (ROOT / "docs" / "meta-training.md").read_text()
