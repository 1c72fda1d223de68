"""The checkpoints of a meta-training, scored on the same fresh instances, and compared with where it began."""

from types import SimpleNamespace

import pytest
import torch

from benchmarks import meta_scaling
from benchmarks.rows import read
from metalr import LRPolicy
from metalr.core.features import FEATURES
from metalr.meta import HeldOutTask
from metalr.meta.families import QuadraticTasks


def rows_of(at: int, steps: int, scores: dict[str, tuple[float, float]]) -> list[dict[str, str]]:
    place = {"policy": f"step {at}", "inner_steps": str(steps), "fingerprint": f"p{at}", "seed": "2"}
    return [place | {"task": task, "median": str(m), "worst": str(w)} for task, (m, w) in scores.items()]


def test_the_change_is_of_the_same_cells():
    rows = rows_of(0, 1_000_000, {"a": (0.1, 0.2), "b": (0.4, 0.4)}) + rows_of(
        50, 3_000_000, {"b": (0.3, 0.4), "a": (0.0, 0.1)}
    )
    (_, _, before, none, _), (name, inner, score, change, width) = meta_scaling.compared(rows)
    assert (name, inner, none) == ("step 50", 3_000_000, 0.0)
    assert before == pytest.approx((0.13 + 0.4) / 2)
    assert score == pytest.approx((0.03 + 0.33) / 2)
    assert change == pytest.approx(-0.085)  # -0.1 and -0.07
    assert width == pytest.approx(1.96 * 0.03 / 2**0.5 / 2**0.5)
    assert meta_scaling.table(rows)[-1] == "| step 50 | 3.0 | 0.180 | -0.085 ± 0.029 |"


def test_a_folder_without_checkpoints_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no version_"):
        meta_scaling.checkpoints(tmp_path)


def test_checkpoints_are_scored_once_each(tmp_path, monkeypatch):
    first = LRPolicy(FEATURES, (8,))
    first.card = {"inner_steps": "100"}
    first.save(tmp_path / "first.safetensors")
    task = HeldOutTask("quadratic", QuadraticTasks(), "sgd", total_steps=10, instances=2, rates=3)
    made = SimpleNamespace(policy=first), SimpleNamespace(heldout=[task])
    monkeypatch.setattr(meta_scaling, "configured", lambda configs, *options: made)
    score, scored = HeldOutTask.score, []

    def plain(self, policy, anytime, device, compiled=False):
        scored.append(policy.fingerprint())
        return score(self, policy, anytime, device)

    monkeypatch.setattr(HeldOutTask, "score", plain)
    folder = tmp_path / "run" / "version_0" / "checkpoints"
    folder.mkdir(parents=True)
    for step in (10, 20, 30):
        policy = LRPolicy(FEATURES, (8,), seed=step)
        state = {f"policy.{name}": part for name, part in policy.state_dict().items()}
        content = {"global_step": step, "state_dict": state | {"inner_steps": torch.tensor(100 + step)}}
        torch.save(content, folder / f"epoch=0-step={step}.ckpt")
    sources = [str(tmp_path / "first.safetensors"), str(tmp_path / "run")]
    options = {"every": 20, "seeds": (2, 3), "docs": tmp_path}
    meta_scaling.main(sources, **options)
    assert len(scored) == 2 * 3  # the first, step 20 and the last
    rows = read(tmp_path / "meta-scaling.csv")
    assert [row["policy"] for row in rows if row["seed"] == "2"] == ["first", "run 20", "run 30"]
    assert [row["inner_steps"] for row in rows if row["seed"] == "3"] == ["100", "120", "130"]
    assert (tmp_path / "meta-scaling.png").is_file()
    meta_scaling.main(sources, **options)
    assert len(scored) == 6
