"""The pages' code runs, and the site holds together."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
import xgboost
import yaml
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from metalr.meta import Component, Episode, FullES, MetaLearner, TaskDistribution
from tests.pages import ROOT, Small, blocks

DOCS = ROOT / "docs"


def test_a_task_family_of_ones_own():
    names: dict = {}
    exec(compile("\n".join(blocks(DOCS / "meta-training.md")), "meta-training.md", "exec"), names)
    distribution = TaskDistribution({"line": Component(names["LineTasks"](), horizons=(10, 20))})
    batch = distribution.sample(0, 4)
    estimate = FullES(pairs=4).estimate(MetaLearner().policy, Episode(batch.task, batch.inner))
    assert bool(torch.isfinite(estimate.losses).all())
    assert float(estimate.gradient.norm()) > 0


def test_a_trainer_with_every_inspecting_callback():
    names: dict = {}
    exec(compile(blocks(DOCS / "inspection.md")[0], "inspection.md", "exec"), names)
    shown = {type(callback).__name__ for callback in names["trainer"].callbacks}
    assert {"MetaLRCallback", "Inspector", "ConvergenceSpeed", "RunTable"} <= shown


def test_the_pictures_and_configs_of_the_inspections_page_are_there():
    page = (DOCS / "inspection.md").read_text()
    named = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page)
    assert len(named) == 2
    assert all((DOCS / name).is_file() for name in named)
    configs = re.findall(r"configs/\S+\.yaml", page)
    assert len(configs) > 3
    assert all((DOCS.parent / name).is_file() for name in configs)


class Labelled(nn.Module):
    """In the shape of a Hugging Face model."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 3)

    def forward(self, x, labels=None):
        return {"loss": F.cross_entropy(self.net(x), labels)}


def given() -> dict:
    """What the pages take as given: a model, an optimizer, data."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    x, y = torch.randn(40, 4), torch.randint(3, (40,))
    random = np.random.default_rng(0)
    tables = [xgboost.DMatrix(random.normal(size=(60, 3)), random.integers(2, size=60)) for _ in range(2)]
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        "criterion": F.cross_entropy,
        "loader": DataLoader(TensorDataset(x, y), batch_size=8),
        "valid_loader": DataLoader(TensorDataset(x, y), batch_size=20),
        "lightning_module": Small(),
        "hf_model": Labelled(),
        "dataset": [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)],
        "short": {"use_cpu": True, "report_to": [], "save_strategy": "no", "disable_tqdm": True},
        "dtrain": tables[0],
        "dvalid": tables[1],
        "__name__": "page",
    }


def pretrained(folder: Path) -> dict:
    """What the page about fine-tuning takes as given beside: an encoder, and rows as a tokenizer makes them."""
    from transformers import BertConfig, BertForSequenceClassification

    size = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    BertForSequenceClassification(BertConfig(vocab_size=50, **size)).save_pretrained(folder)
    ids = torch.randint(1, 50, (40, 6))
    rows = [
        {"input_ids": row, "attention_mask": torch.ones_like(row), "labels": torch.tensor(i % 2)}
        for i, row in enumerate(ids)
    ]
    return {"path": str(folder), "rows": rows, "loader": DataLoader(rows, batch_size=8)}


@pytest.mark.parametrize("page", sorted(p.name for p in DOCS.glob("*.md")))
def test_the_python_blocks_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch, capsys):
    """Those of own-policy.md are the files of an example, which have a test of their own."""
    monkeypatch.chdir(tmp_path)
    names = given()
    if page == "how-it-works.md":
        exec("\n".join(blocks(DOCS / "index.md")), names)
    if page == "fine-tuning.md":
        names |= pretrained(tmp_path / "encoder")
    for block in blocks(DOCS / page):
        if "--8<--" not in block:
            exec(compile(block, page, "exec"), names)
    if page == "index.md":
        printed = re.findall(r"rate (\S+)   loss (\S+)", capsys.readouterr().out)
        assert float(printed[-1][1]) < 0.5 * float(printed[0][1])
    if page == "fine-tuning.md":
        assert names["callback"].meta_lr.last_step == names["meta_lr"].last_step == 15
        for group, limit in zip(names["optimizer"].param_groups, (2e-4, 2e-3), strict=True):
            assert group["lr"] <= limit * (1 + 1e-6)
        assert any(parameter.requires_grad for parameter in names["adapted"].parameters())
    if page == "adding.md":
        assert names["booster"].num_boosted_rounds() >= 1
        assert names["Scheduled"]().configure_optimizers is not None
        dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
        assert names["averaged"](torch.tensor(3.0)).item() == 3.0
        dist.destroy_process_group()


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    """And fetches nothing from anywhere: no page loads a script, a style or a font from another host."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = list((tmp_path / "site").glob("*.html"))
    assert len(pages) > 12
    for page in pages:
        assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?https?://[^>]+", page.read_text()), page.name


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text().split("nav:\n")[1]
    pages = list(DOCS.glob("*.md"))
    assert len(pages) > 12
    for page in pages:
        assert f": {page.name}\n" in navigation, page.name


def test_the_examples_configs_are_yaml():
    paths = list((ROOT / "examples").rglob("*.yaml"))
    assert len(paths) >= 2
    for path in paths:
        assert yaml.safe_load(path.read_text())["data"]["init_args"]["components"]
