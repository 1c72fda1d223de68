"""Every model's figures on two ranks are those of one process, where the rows cannot be shared out evenly."""

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from datamodules import AdultDataModule, DigitsDataModule, GLUEDataModule, LanguageModelingDataModule
from datamodules.adult import Arrays
from datamodules.loaders import make_loader
from metalr import MetaLRCallback
from models import ImageClassifier, LanguageModel, TabularMLP, TextClassifier
from tests.conftest import random_policy
from tests.models.trees import Trees
from tests.real import DATA
from tests.text import BERT, GPT2, TINY_BERT, TINY_GPT2, datasets_cache, needs_data, small_glue, small_squad  # noqa: F401


def make_trainer(ranks: int, **arguments) -> L.Trainer:
    several = {"strategy": "ddp_fork", "devices": ranks} if ranks > 1 else {"devices": 1}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(accelerator="cpu", enable_checkpointing=False, **several, **quiet, **arguments)


def figures(folder, model, data, ranks: int):
    trainer = make_trainer(ranks, default_root_dir=folder)
    trainer.test(model, data, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


class UnevenDigits(DigitsDataModule):
    """257 test images in batches of 64: two ranks would have 3 and 2 of them, and batch norm's buffers wait for all."""

    def test_dataloader(self):
        rows = TensorDataset(*(tensor[:257] for tensor in self.splits["test"].tensors))
        return make_loader(rows, 64, self.trainer)


def digits(folder):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10))
    return ImageClassifier(network), UnevenDigits()


def adult(folder):
    data = AdultDataModule(str(DATA / "adult"), batch_size=1000)
    data.setup("test")
    return TabularMLP(6, data.category_sizes, hidden=(8,)), data


def glue(folder):
    data = GLUEDataModule(
        "mrpc", small_glue(folder, "cola", "mrpc", "mnli", rows=33), BERT, batch_size=4, num_workers=0
    )
    return TextClassifier(BERT, False, TINY_BERT), data


def text(folder):
    short = {"tokenizer": GPT2, "batch_size": 2, "max_length": 24, "num_workers": 0}
    data = LanguageModelingDataModule(
        small_squad(folder, 4, 9), None, "context", validation_split="validation", **short
    )
    return LanguageModel(GPT2, False, TINY_GPT2), data


@pytest.mark.slow
@pytest.mark.parametrize("make", [digits, *(pytest.param(make, marks=needs_data) for make in (adult, glue, text))])
def test_metrics_are_exact(tmp_path, make):
    def run(ranks):
        torch.manual_seed(0)
        return figures(tmp_path, *make(tmp_path / str(ranks)), ranks)

    alone = run(1)
    assert len(alone) > 1
    for ranks in (2, 3):
        assert run(ranks) == pytest.approx(alone, rel=1e-5, abs=1e-5)


class Tables(L.LightningDataModule):
    """403 rows of numbers with few values, so that the cut points are the same however the rows are shared out."""

    def arrays(self, split):
        random = np.random.default_rng(len(split))
        features = random.integers(0, 12, (403, 4)).astype(np.float32)
        logits = features[:, 0] - features[:, 1] * (features[:, 2] > 5) + random.normal(size=403)
        return Arrays(features, (logits > 0).astype(np.float32), list("abcd"), ["q"] * 4)

    def train_dataloader(self):
        return make_loader(TensorDataset(torch.zeros(8)), 8, self.trainer)

    def test_dataloader(self):
        features, labels, *_ = self.arrays("test")
        rows = TensorDataset(
            torch.from_numpy(features), torch.zeros(403, 0, dtype=torch.int64), torch.from_numpy(labels)
        )
        return make_loader(rows, 100, self.trainer)


def boosted(folder, ranks: int):
    """Rates, margins and figures of a short boosting under MetaLR."""
    callback, model = MetaLRCallback(random_policy(strength=0.05)), Trees(n_estimators=12)
    trainer = make_trainer(ranks, max_epochs=-1, callbacks=[callback, Noted(folder / f"{ranks}")])
    trainer.fit(model, datamodule=Tables())
    return [torch.load(folder / f"{ranks}-{rank}.pt") for rank in range(ranks)]


class Noted(L.Callback):
    """Writes what a rank ends with."""

    def __init__(self, path) -> None:
        self.path, self.rates = path, []

    def on_train_batch_end(self, trainer, module, *_):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_end(self, trainer, module):
        kept = {"rates": self.rates, "margins": module.margins.detach(), "trees": module.booster.save_raw("json")}
        kept["loss"] = float(trainer.callback_metrics["train/loss"])
        torch.save(kept, f"{self.path}-{trainer.global_rank}.pt")


def test_boosted_trees_on_shared_rows_are_those_of_one_process(tmp_path):
    (alone,) = boosted(tmp_path, 1)
    first, second = boosted(tmp_path, 2)
    assert first["rates"] == second["rates"]
    assert first["trees"] == second["trees"]
    assert torch.equal(first["margins"], second["margins"])
    assert len(set(alone["rates"])) == 12
    assert first["rates"] == pytest.approx(alone["rates"], rel=1e-3)
    assert torch.allclose(first["margins"], alone["margins"], atol=1e-3)
    assert first["loss"] == pytest.approx(alone["loss"], rel=1e-4)
