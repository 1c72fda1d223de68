"""Every figure of the README and of the cards is worked out again from the file that it came from."""

import csv
import json
import math
import re
import statistics
import subprocess
from statistics import fmean, geometric_mean

import matplotlib
import pytest

from benchmarks import aggregation, epochs, first_screen, meta_scaling, selection, shown, validation_loss
from benchmarks.cards import SUITES, card_figures, check_measured, command_of
from benchmarks.rows import read
from benchmarks.suites.estimates import Estimate, ratio
from benchmarks.suites.page import ranged
from benchmarks.suites.schedules import LEARNED as LEARNED_NAMES
from benchmarks.suites.schedules import TITLES
from metalr import LRPolicy, shipped_policies
from tests.pages import ROOT, expanded

README = (ROOT / "README.md").read_text()
WEIGHTS = ROOT / "metalr" / "weights"
FOUND = json.loads((ROOT / "docs" / "heldout.json").read_text())
FINAL, TUNED, TREES = (
    json.loads((ROOT / "docs" / f"{name}.json").read_text()) for name in ("final", "finetuning", "trees")
)


def rows(text: str, columns: int) -> list[list[str]]:
    """Rows of a page's tables of so many columns, without heads and rules."""
    found = [[cell.strip(" *`") for cell in line[1:-1].split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [row for row in found if len(row) == columns and any(row) and set(row[-1]) - {"-"}]


def part(name: str, figure: str, found: dict = FOUND) -> str:
    """A learned schedule's figure over a part of the cells, as the pages write it."""
    return ranged(Estimate(**found["splits"][name][figure]))


def percent(name: str, found: dict = FOUND) -> str:
    return f"{100 * found['figures'][name]['value']:.0f}"


def gap(found: dict) -> str:
    """How far the learned schedule's metric is behind, in points, with its interval."""
    each = found["figures"]["default_metric_gap_points"]
    return f"{-each['value']:.1f} ({-each['high']:.1f} to {-each['low']:.1f})"


def worst_gap(found: dict) -> str:
    return f"{-found['figures']['default_metric_gap_points_worst']['value']:.1f}"


def above_initial(found: dict) -> str:
    return f"{len(found['above_initial'])} of {sum(found['at_chance'][name][1] for name in LEARNED_NAMES)}"


def at(schedule: str, which: str) -> str:
    """A schedule's loss over the yardstick's at its best rate."""
    return f"{FOUND['summary'][schedule][which]['value']:.3f}"


def section(start: str, end: str) -> str:
    """The text between two lines, its lines joined."""
    return " ".join(README.partition(start)[2].partition(end)[0].split())


MEDIAN, WORST = (part("networks", f"default_{which}_over_best_linear_warmup") for which in ("median", "worst"))
FINAL_MEDIAN, FINAL_WORST = (
    part("networks", f"default_{which}_over_best_linear_warmup", FINAL) for which in ("median", "worst")
)


def in_both(name: str) -> str:
    """A share of the cells of both suites."""
    return f"{percent(name)} and {percent(name, FINAL)} %"


CLAIMS = {
    "# metalr": [
        f"Left, the final suite, by which nothing was chosen: {FINAL['summary']['default']['median']['cells']} cells, "
        "two seeds; right, the development suite: "
        f"{FOUND['summary']['default']['median']['cells']} cells, three seeds.",
        f"it ends at **{FINAL_MEDIAN}** times the loss",
        f"at {FINAL_WORST} from the worst; on the [development suite](docs/heldout.md) at {MEDIAN} and {WORST}.",
    ],
    "## What was measured": [
        f"**From the median rate** it is at {MEDIAN}",
        f"over short horizons {part('networks, short', 'default_median_over_best_linear_warmup')}",
        f"over long ones {part('networks, long', 'default_median_over_best_linear_warmup')}",
        f"without digits {part('networks without digits', 'default_median_over_best_linear_warmup')}",
        f"with a task's cells as one {part('networks, a mean a task', 'default_median_over_best_linear_warmup')}",
        f"beside cosine, {part('networks', 'default_median_over_best_cosine')}",
        f"**From the worst rate** it is at {WORST}, where linear with warm-up is at {at('linear_warmup', 'worst')}",
        f"at {part('networks', 'anytime_median_over_best_constant')} times a constant rate at its best",
        f"from the worst rate {part('networks', 'anytime_worst_over_best_constant')}",
        f"it is at {FINAL_MEDIAN}, with a task's cells as one "
        f"{part('networks, a mean a task', 'default_median_over_best_linear_warmup', FINAL)}: over short horizons "
        f"{part('networks, short', 'default_median_over_best_linear_warmup', FINAL)}, over long ones "
        f"{part('networks, long', 'default_median_over_best_linear_warmup', FINAL)}, where data and network are both "
        f"new {part('networks, all new', 'default_median_over_best_linear_warmup', FINAL)}; from the worst rate "
        f"{FINAL_WORST}",
        f"Without a horizon it is at {part('networks', 'anytime_median_over_best_constant', FINAL)} times",
        f"Prodigy at its defaults {in_both('default_wins_over_prodigy_plain_cosine')}",
        f"with its safeguards {in_both('default_wins_over_prodigy_cosine')}",
        f"schedule-free AdamW {in_both('default_wins_over_schedule_free_adamw')}",
        f"schedule-free SGD {in_both('default_wins_over_schedule_free_sgd')}",
        f"DoG {in_both('default_wins_over_dog')}",
        f"it is at {part('networks', 'default_median_over_best_linear_warmup', TUNED)} from the median of five",
        f"at {part('networks', 'default_worst_over_best_linear_warmup', TUNED)} from the worst (one seed each)",
        f"In {percent('default_never_at_best_linear_warmup')} % of the development suite's cells and "
        f"{percent('default_never_at_best_linear_warmup', FINAL)} % of the final suite's it never reaches",
        f"is {gap(FOUND)} and {gap(FINAL)} points behind",
        f"and {worst_gap(FOUND)} and {worst_gap(FINAL)} in the worst cell",
        f"{above_initial(FOUND)} runs, 13 of that BERT and two of a ResNet, and {above_initial(FINAL)}, all pairs of "
        "questions at 500 steps and all without a horizon",
    ],
}


def table_of(name: str) -> list[dict[str, str]]:
    """Rows of a file of docs/."""
    with (ROOT / "docs" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def before_and_after() -> tuple[float, float]:
    """Geometric means over cells of the present policy's loss over that of before, from the median and worst rate."""
    losses: dict[tuple[str, ...], dict[str, dict[str, list[float]]]] = {}
    for row in table_of("default-suite"):
        cell = losses.setdefault((row["task"], row["optimizer"], row["steps"]), {})
        cell.setdefault(row["policy"], {}).setdefault(row["rate"], []).append(float(row["final"]))
    before, after = next(iter(losses.values()))
    assert len(losses) == 18
    assert after.startswith(LRPolicy.load("default").fingerprint())
    means = [{name: [fmean(runs) for runs in own.values()] for name, own in cell.items()} for cell in losses.values()]
    return tuple(
        geometric_mean(choose(cell[after]) / choose(cell[before]) for cell in means)
        for choose in (statistics.median, max)
    )


def test_the_figures_of_fine_tuning_are_those_of_its_suite():
    page = " ".join((ROOT / "docs" / "fine-tuning.md").read_text().split())
    assert len(TUNED["cells"]) == 5
    for cell in TUNED["cells"]:
        columns = ("default median", "default worst", "linear_warmup best", "cosine best")
        assert f"| {' | '.join(f'{cell[column]:.3f}' for column in columns)} |" in page
    for baseline in ("linear_warmup", "cosine"):
        median, worst = (
            part("networks", f"default_{which}_over_best_{baseline}", TUNED) for which in ("median", "worst")
        )
        assert re.search(rf"{re.escape(median)} (from the median rate )?and (at )?{re.escape(worst)}", page)
    behind = [cell for cell in TUNED["cells"] if cell["default median"] > cell["linear_warmup best"]]
    assert [cell["task"] for cell in behind] == ["minilm-sst2", "minilm-mrpc"]
    for cell in behind:
        ratios = [cell[f"default {which}"] / cell["linear_warmup best"] for which in ("median", "worst")]
        assert "at {:.3f} from the median rate and {:.3f} from the worst".format(*ratios) in page
    for name in ("linear_warmup", "cosine", "default"):
        count, runs = TUNED["at_chance"][name]
        assert f"{count} of {runs}" in page


def test_what_the_last_run_of_default_changed_is_in_its_file():
    ratios = before_and_after()
    page = " ".join((ROOT / "docs" / "meta-training.md").read_text().split())
    assert "ends at {:.3f} times the loss of the fourth's from the median rate, and at {:.3f}".format(*ratios) in page


@pytest.mark.parametrize("head", CLAIMS)
def test_the_readmes_figures_are_those_of_the_suite(head):
    text = section(f"{head}\n", "\n## ")
    for claim in CLAIMS[head]:
        assert claim in text, claim


def test_the_readme_has_no_other_figure():
    """Every decimal of the first screen and of what was measured is one of the claims, of the table or of a target."""
    known = {number for claims in CLAIMS.values() for claim in claims for number in re.findall(r"\d+\.\d+", claim)}
    known |= {at(name, which) for name, values in FOUND["summary"].items() for which in values}
    known |= set(re.findall(r"\d+\.\d+", (ROOT / "docs" / "targets.md").read_text().partition("## adult_mlp")[0]))
    shown = README.partition("## How it works")[0]
    prose = re.sub(r"```.*?```|Python 3\.10", "", shown, flags=re.DOTALL)
    assert set(re.findall(r"\d+\.\d+", prose)) - known == set()


@pytest.mark.parametrize(
    ("found", "worst_cell", "above"),
    [
        (FOUND, ("sst2", 80, "adamw"), {("sst2", 80), ("cifar10", 60)}),
        (FINAL, ("diabetes", 300, "sgd"), {("questions", 500)}),
    ],
)
def test_the_worst_cell_is_the_one_that_the_readme_names(found, worst_cell, above):
    gaps = {
        (c["task"], c["steps"], c["optimizer"]): c["metric learned"] - c["metric best tuned"]
        for c in found["cells"]
        if c["metric learned"] is not None and c["metric best tuned"] is not None
    }
    worst = min(gaps, key=gaps.__getitem__)
    assert worst == worst_cell
    assert 100 * gaps[worst] == pytest.approx(found["figures"]["default_metric_gap_points_worst"]["value"], abs=0.01)
    assert {(run["task"], run["steps"]) for run in found["above_initial"]} == above


def test_the_readmes_table_is_the_suites():
    table = {row[0]: row[1:] for row in rows(section_lines("## What was measured"), 4)[1:]}
    assert list(table) == [TITLES[name].partition(":")[0] for name in FOUND["summary"]]
    for (name, values), row in zip(FOUND["summary"].items(), table.values(), strict=True):
        assert row == [at(name, which) for which in values], name


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


def shown_figures(name: str, suite: str) -> dict[str, str]:
    """Figures of a suite on a card."""
    page = (WEIGHTS / f"{name}.md").read_text()
    block = page.partition(f"## `{command_of(suite)}`")[2].partition("\n## ")[0]
    return {row[0]: row[1] for row in rows(block, 2)[1:]}


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("name", shipped_policies())
def test_a_cards_figures_are_the_suites(name, suite):
    shown = shown_figures(name, suite)
    assert shown == card_figures(name, suite)
    assert len(shown) >= 4
    assert shown.items() <= LRPolicy.load(name).card.items()


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
    assert facts["on fresh instances"] == policy.card["heldout_fresh"]
    assert facts["on fresh instances"] == selection.fresh(read(ROOT / "docs" / "selection.csv"), name)
    assert facts.get("structure prior", "nats").removesuffix(" nats") == policy.card.get("structure_prior", "nats")


@pytest.mark.parametrize("name", shipped_policies())
def test_the_commit_of_a_run_has_the_files_that_its_command_names(name):
    """Of each run of a card's command; the history is not there in a source distribution."""
    card = LRPolicy.load(name).card
    commands = [part for part in card["command"].split(" && ") if "train.py fit" in part]
    commits = card["commit"].split(", ")
    assert len(commits) in (1, len(commands))
    shallow = subprocess.run(["git", "rev-parse", "--is-shallow-repository"], cwd=ROOT, capture_output=True, text=True)
    if shallow.stdout.strip() != "false":
        pytest.skip("the whole history is not beside the files")
    for command, commit in zip(commands, commits * len(commands), strict=False):
        files = [file for argument in re.findall(r"--config[= ](\S+)", command) for file in expanded(argument)]
        assert files
        for file in files:
            found = subprocess.run(["git", "cat-file", "-e", f"{commit}:{file}"], cwd=ROOT, capture_output=True)
            assert found.returncode == 0, (commit, file)


def test_the_suites_runs_are_of_the_shipped_policies():
    check_measured()


def test_the_first_screens_picture_is_drawn_from_the_suites_figures(tmp_path):
    for suite in first_screen.SUITES.values():
        losses = first_screen.losses_by_rate(suite)
        # What its alternative text says: the learned loss hardly depends on the rate, a set schedule's does.
        assert max(losses["default"]) / min(losses["default"]) < 1.03
        assert max(losses["linear_warmup"]) / min(losses["linear_warmup"]) > 2
    first_screen.draw(tmp_path / "again.svg")
    drawn = first_screen.PICTURE.read_text()
    if f"Matplotlib v{matplotlib.__version__}" in drawn:
        assert (tmp_path / "again.svg").read_text() == drawn


@pytest.mark.parametrize("page", ["targets", "reduced"])
def test_a_page_of_runs_names_its_policies_and_says_where_one_is_not_shipped_any_more(page):
    text = (ROOT / "docs" / f"{page}.md").read_text()
    named = dict(re.findall(r"`(default|boosting)` `([0-9a-f]{16})`", text))
    assert named.keys() == {"default", "boosting"}
    old = [f"`{name}`" for name, fingerprint in named.items() if fingerprint != LRPolicy.load(name).fingerprint()]
    assert f"Not shipped any more: {', '.join(old)}." in text


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
    lines = validation_loss.COMPARISON.table(table_of("validation-loss"))
    assert len(lines) == 5
    assert "\n".join(lines) in (ROOT / "docs" / "meta-training.md").read_text()


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("epochs", epochs.COMPARISON.table),
        ("aggregation", aggregation.table),
        ("shown-default", shown.table),
        ("shown-boosting", shown.table),
        ("meta-scaling", meta_scaling.table),
    ],
)
def test_the_tables_of_meta_training_are_their_files(name, table):
    assert "\n".join(table(table_of(name))) in (ROOT / "docs" / "meta-training.md").read_text()


def test_what_a_validation_loss_is_worth_is_of_the_shipped_policies_and_told_alike():
    of_all = []
    for policy in ("default", "boosting"):
        rows = table_of(f"shown-{policy}")
        assert {row["fingerprint"] for row in rows} == {LRPolicy.load(policy).fingerprint()}
        of_all.append(ranged(shown.compared(rows)["all"]))
    assert " and ".join(of_all) in (ROOT / "docs" / "adding.md").read_text()


def test_the_limits_tell_the_long_runs_figures():
    found = json.loads((ROOT / "docs" / "long.json").read_text())["splits"]["networks, long"]
    told = " ".join((ROOT / "docs" / "limits.md").read_text().split())
    for over, words in (
        ("linear_warmup", "from the median rate, and at {} from the worst"),
        ("cosine", "and {}. The policy"),
    ):
        median, worst = (f"{found[f'default_{which}_over_best_{over}']['value']:.3f}" for which in ("median", "worst"))
        assert median in told
        assert words.format(worst) in told


def test_the_selection_scores_of_the_page_are_those_of_their_file():
    stored = read(ROOT / "docs" / "selection.csv")
    page = (ROOT / "docs" / "meta-training.md").read_text()
    for name in shipped_policies():
        of_seed = {int(row["seed"]): float(row["total"]) for row in stored if row["policy"] == name}
        looked_at = of_seed.pop(selection.LOOKED_AT)
        fresh = f"{statistics.fmean(of_seed.values()):.3f} ({min(of_seed.values()):.3f} to {max(of_seed.values()):.3f})"
        assert f"| `{name}` | {looked_at:.3f} | {fresh} |" in page
        assert looked_at == pytest.approx(
            float(LRPolicy.load(name).card["heldout"]), abs=0.05
        )  # rounded otherwise, as it was compiled, and some under the update rule of before


def layer_rates(part_name: str, arm: str, seed: str = "") -> dict[str, float]:
    """Mean log ratios by kind of work."""
    found: dict[str, list[float]] = {}
    for row in table_of("layer-rates"):
        if (row["part"], row["arm"], row["seed"]) == (part_name, arm, seed):
            found.setdefault(row["cell"], []).append(float(row["log_over_global"]))
    return {cell: statistics.fmean(values) for cell, values in found.items()}


def with_interval(logs: dict[str, float]) -> str:
    return ranged(ratio([(math.exp(value), 1.0) for value in logs.values()]))


def test_the_figures_of_a_rate_for_each_layer_are_those_of_their_file():
    page = (ROOT / "docs" / "meta-training.md").read_text()
    pretrained = {"pretrained_adam", "scenes_sgd", "scenes_adam"}
    learned = [layer_rates("learned", "groups_kind", seed) for seed in "01"]
    by_tensor = [layer_rates("learned", "groups_kind_by_tensor", seed) for seed in "01"]
    scratch = [{cell: each[cell] for cell in each.keys() - pretrained} for each in learned]
    trained = [{cell: each[cell] for cell in pretrained} for each in learned]
    for row in (learned, by_tensor, scratch, trained):
        assert f"| {' | '.join(map(with_interval, row))} |\n" in page
    for cell in ("transformer_adam", "sentence_adam"):
        assert f"{math.exp(learned[0][cell]):.3f} and {math.exp(learned[1][cell]):.3f}" in page
    arms = dict.fromkeys(row["arm"] for row in table_of("layer-rates") if row["part"] == "constant")
    assert len(arms) == 9
    for arm in arms:
        assert f" | {with_interval(layer_rates('constant', arm))} | " in page


def test_the_cells_that_the_cards_name_are_those_of_the_suites():
    cells = {(c["task"], c["optimizer"], c["steps"]): c for found in (FOUND, FINAL, TREES) for c in found["cells"]}
    limits = {
        name: (WEIGHTS / f"{name}.md").read_text().partition("## Where it fails")[2] for name in shipped_policies()
    }
    for name, own, other, tasks in (
        ("default", "default median", "linear_warmup best", [("diabetes", "sgd", 300), ("photograph", "adamw", 80)]),
        ("default", "default median", "linear_warmup best", [("series", "sgd", 60)]),
        ("anytime", "anytime median", "constant best", [("questions", "adamw", 500), ("diabetes", "sgd", 300)]),
        ("anytime", "anytime median", "constant best", [("digits", "adamw", 500)]),
        ("boosting", "default median", "linear_warmup best", [("vehicles", "boosting", 40)]),
        ("boosting", "default worst", "linear_warmup best", [("vehicles", "boosting", 40)]),
        (
            "boosting",
            "default median",
            "linear_warmup best",
            [("digits", "boosting", 50), ("digits", "boosting", 300), ("diabetes", "boosting", 300)],
        ),
        ("boosting_anytime", "anytime worst", "constant best", [("vehicles", "boosting", n) for n in (40, 200)]),
        ("boosting_anytime", "anytime median", "constant best", [("digits", "boosting", n) for n in (50, 300)]),
    ):
        for task in tasks:
            assert f"{cells[task][own] / cells[task][other]:.3f}" in limits[name]
    for name, text in limits.items():
        assert len(re.findall(r"\d\.\d{3}", text)) >= 1, name
