"""Two policies with the same budget, of which one reads the number of epochs, on the same instances."""

import math

import pytest

from benchmarks import epochs
from benchmarks.rows import read


def row(arm: str, instance: int, log_final: float, told: str = "told") -> dict[str, str]:
    place = {"samples": "few", "epochs": told, "task": "t", "instance": str(instance)}
    return {"arm": arm, "seed": "0", **place, "log_final": str(log_final)}


def test_the_ratio_is_of_the_same_instances():
    finals = {("without", 0): 0.0, ("without", 1): 1.0, ("with", 0): -0.1, ("with", 1): 0.7}
    rows = [row(arm, instance, final) for (arm, instance), final in finals.items()]
    ((place, (ratio, width)),) = epochs.COMPARISON.compared(rows).items()
    assert place == ("0", "few", "told")
    assert ratio == pytest.approx(math.exp(-0.2))
    assert width == pytest.approx(1.96 * 0.2 / 2**0.5 / 2**0.5)  # of -0.1 and -0.3


@pytest.mark.slow
def test_a_small_comparison_is_made_once(tmp_path, capsys):
    budget = epochs.Budget(meta_steps=1, task_batches=2, pairs=2, horizons=(5, 8), seeds=1, tested=(6,), instances=2)
    epochs.main(tmp_path, budget=budget)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert {path.name for path in made} == {"with-0.safetensors", "without-0.safetensors"}
    rows = read(tmp_path / "epochs.csv")
    assert len(rows) == 2 * 2 * 2 * 2 * 2  # arms, samples, told or not, optimizers, instances
    untold, told = (
        [r["log_final"] for r in rows if r["arm"] == "without" and r["epochs"] == kind] for kind in ("not told", "told")
    )
    assert untold == told  # a policy that does not read it has the same runs
    assert len(capsys.readouterr().out.splitlines()) == 2 + 4
    assert (tmp_path / "epochs.png").is_file()
    epochs.main(tmp_path, budget=budget)
    assert made == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
