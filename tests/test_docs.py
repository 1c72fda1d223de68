"""The pages' code runs."""

import re
from pathlib import Path

import torch

from metalr.meta import Component, Episode, FullES, MetaLearner, TaskDistribution

DOCS = Path(__file__).parents[1] / "docs"


def code(page: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL))


def test_a_task_family_of_ones_own():
    names: dict = {}
    exec(compile(code("meta-training.md"), "meta-training.md", "exec"), names)
    distribution = TaskDistribution({"line": Component(names["LineTasks"](), horizons=(10, 20))})
    draw = distribution.draw(0, 4)
    estimate = FullES(pairs=4).estimate(MetaLearner().policy, Episode(draw.task, draw.inner, range(4)))
    assert bool(torch.isfinite(estimate.losses).all())
    assert float(estimate.gradient.norm()) > 0


def test_a_trainer_with_every_inspecting_callback():
    names: dict = {}
    exec(compile(code("inspection.md"), "inspection.md", "exec"), names)
    shown = {type(callback).__name__ for callback in names["trainer"].callbacks}
    assert {"MetaLRCallback", "Inspector", "ConvergenceSpeed", "RunTable"} <= shown


def test_the_pictures_and_configs_of_the_inspections_page_are_there():
    page = (DOCS / "inspection.md").read_text()
    named = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page)
    assert len(named) == 2
    assert all((DOCS / name).is_file() for name in named)
    assert all((DOCS.parent / name).is_file() for name in re.findall(r"configs/\S+\.yaml", page))
