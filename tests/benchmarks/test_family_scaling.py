"""Policies of equal budgets from more and more kinds of tasks, made once and scored on the same instances."""

import pytest
import yaml

from benchmarks import family_scaling
from benchmarks.family_scaling import CONFIGS, KINDS, Budget, compared, main, table
from benchmarks.meta_configs import FOLDER
from benchmarks.rows import read
from metalr.meta import Component, HeldOutTask, MetaTasksDataModule
from metalr.meta.families import QuadraticTasks


def row(kinds: int, seed: int, task: str, median: float, worst: float, steps: int = 1_000_000) -> dict[str, str]:
    place = {"kinds": str(kinds), "seed": str(seed), "inner_steps": str(steps), "fingerprint": f"{kinds}-{seed}"}
    return place | {"task": task, "median": str(median), "worst": str(worst)}


def test_the_change_is_of_the_same_tasks_and_the_mean_of_the_meta_seeds():
    rows = [row(1, seed, task, 0.5, 0.5) for seed in (0, 1) for task in ("a", "b")]
    rows += [row(3, seed, "a", 0.4, 0.4, steps) for seed, steps in ((0, 2_000_000), (1, 3_000_000))]
    rows += [row(3, 0, "b", 0.2, 0.3), row(3, 1, "b", 0.0, 0.1)]
    first, second = compared(rows)
    assert (first.kinds, first.score, first.change, first.width) == (1, 0.5, 0.0, 0.0)
    # totals are 0.7 median + 0.3 worst: 0.4 and 0.4, 0.23 and 0.03
    assert second.seeds == pytest.approx((0.315, 0.215))
    assert second.score == pytest.approx(0.265)
    assert second.change == pytest.approx((-0.1 - 0.37) / 2)
    assert second.width == pytest.approx(1.96 * (0.27 / 2**0.5) / 2**0.5)
    assert second.inner_steps == pytest.approx((2 + 3 + 1 + 1) / 4)
    assert table(rows)[-1] == "| 3 | 1.8 | 0.265 | 0.315, 0.215 | -0.235 ± 0.265 |"


def test_the_kinds_are_the_wide_mixtures():
    assert "tasks/wide" in CONFIGS
    wide = yaml.safe_load((FOLDER / "tasks" / "wide.yaml").read_text())
    assert set(KINDS) <= set(wide["data"]["init_args"]["components"])
    assert len(set(KINDS)) == len(KINDS) == max(family_scaling.COUNTS)


def test_what_is_there_is_neither_made_nor_scored_again(tmp_path, monkeypatch):
    kinds = {kind: Component(QuadraticTasks(), weight=index + 1.0) for index, kind in enumerate(KINDS)}
    tasks = [HeldOutTask(name, QuadraticTasks(), "sgd", 10, instances=2, rates=3) for name in ("q", "r")]
    data = MetaTasksDataModule(kinds, tasks)
    monkeypatch.setattr(family_scaling, "configured", lambda configs: (None, data))
    made, scored, train, score = [], [], family_scaling.meta_train, HeldOutTask.score

    def watched(data, meta_steps, compiled, **options):
        made.append((len(data.distribution.components), meta_steps))
        return train(data, meta_steps, **options)

    def plain(self, policy, anytime, device, compiled=False):
        scored.append(policy.fingerprint())
        return score(self, policy, anytime, device)

    monkeypatch.setattr(family_scaling, "meta_train", watched)
    monkeypatch.setattr(HeldOutTask, "score", plain)
    budget = Budget(meta_steps=2, task_batches=2, pairs=2, horizons=(4, 8), seeds=2)
    for _ in range(2):
        main(out=tmp_path / "policies", docs=tmp_path, counts=(1, 3), budget=budget)
        assert made == [(1, 2), (3, 2)] * 2
        assert len(scored) == 2 * 4
    rows = read(tmp_path / "family-scaling.csv")
    assert [(row["kinds"], row["seed"]) for row in rows[::2]] == [("1", "0"), ("3", "0"), ("1", "1"), ("3", "1")]
    assert (tmp_path / "family-scaling.png").is_file()


def test_other_numbers_of_kinds_are_refused():
    with pytest.raises(ValueError, match=r"counts=\(0, 13\): give numbers from 1 to 12"):
        main(counts=(0, 13))
