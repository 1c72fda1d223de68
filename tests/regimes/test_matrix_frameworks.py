"""Every optimizer that learns in a plain loop, in a Trainer of Lightning, Fabric and Hugging Face: the same rates.

Where the rates are those of `MetaLR.step` in a plain loop, which `test_matrix` holds to learn, so is the run.
"""

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import TrainingArguments

from metalr import MetaLR, MetaLRCallback
from metalr.integrations.fabric import FabricMetaLR
from metalr.integrations.huggingface import MetaLRTrainerCallback
from tests.integrations.hugging_face import InOrder
from tests.regimes.learning import make_network, sample
from tests.regimes.optimizers import MAKERS, REFUSED

STEPS, ROWS = 8, 32
DATA = sample(STEPS * ROWS, torch.Generator().manual_seed(1))

RANDOM = ("gravity", "kron", "magma")
"""Optimizers that draw random numbers, of which a framework draws some, too."""

# Those that need a closure, or a graph of the gradient, are a matter between the framework and the optimizer.
NAMES = [
    name
    for name, make in MAKERS.items()
    if name not in (*REFUSED, *RANDOM) and not getattr(make, "curved", False) and not getattr(make, "closed", False)
]

pytestmark = pytest.mark.slow


def batches():
    return zip(DATA[0].split(ROWS), DATA[1].split(ROWS), strict=True)


def plain(name: str) -> list[float]:
    network = make_network()
    optimizer = MAKERS[name](network, MAKERS[name].lr)
    meta_lr, rates = MetaLR(optimizer, STEPS, steps_per_epoch=STEPS), []
    for x, y in batches():
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        meta_lr.step(loss)
        optimizer.step()
        rates.append(meta_lr.last_lr[0])
    return rates


class Module(L.LightningModule):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.network, self.name, self.driver, self.rates = make_network(), name, MetaLRCallback(), []

    def training_step(self, batch):
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self):
        return MAKERS[self.name](self.network, MAKERS[self.name].lr)

    def on_train_batch_end(self, *_):
        self.rates.append(self.driver.controllers[0].last_lr[0])


def in_lightning(name: str, folder) -> list[float]:
    module, quiet = Module(name), {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, callbacks=[module.driver], enable_model_summary=False, **quiet)
    trainer.fit(module, DataLoader(TensorDataset(*DATA), batch_size=ROWS))
    return module.rates


def in_fabric(name: str, folder) -> list[float]:
    fabric, network = L.Fabric(accelerator="cpu", devices=1), make_network()
    network, optimizer = fabric.setup(network, MAKERS[name](network, MAKERS[name].lr))
    meta_lr, rates = FabricMetaLR(fabric, optimizer, STEPS, steps_per_epoch=STEPS), []
    for x, y in batches():
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        fabric.backward(loss)
        meta_lr.step(loss)
        optimizer.step()
        rates.append(meta_lr.last_lr[0])
    return rates


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = make_network()

    def forward(self, x, labels):
        return {"loss": F.cross_entropy(self.network(x), labels)}


class Driver(MetaLRTrainerCallback):
    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def on_optimizer_step(self, *arguments, **kwargs):
        self.rates.append(self.meta_lr.last_lr[0])


def in_huggingface(name: str, folder) -> list[float]:
    model, driver = Classifier(), Driver()
    optimizer = MAKERS[name](model.network, MAKERS[name].lr)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    arguments = TrainingArguments(
        folder, num_train_epochs=1, per_device_train_batch_size=ROWS, max_grad_norm=0.0, use_cpu=True, report_to=[],
        save_strategy="no", disable_tqdm=True, lr_scheduler_type="constant", dataloader_pin_memory=False,
    )  # fmt: skip
    rows = [{"x": x, "labels": y} for x, y in zip(*DATA, strict=True)]
    InOrder(
        model,
        arguments,
        train_dataset=rows,
        optimizers=(optimizer, constant),
        callbacks=[driver],
    ).train()
    return driver.rates


@pytest.mark.parametrize("framework", [in_lightning, in_fabric, in_huggingface])
def test_every_optimizer_has_the_rates_of_a_plain_loop(framework, tmp_path):
    different = {}
    for name in NAMES:
        expected, found = plain(name), framework(name, tmp_path)
        if found != pytest.approx(expected, rel=1e-4):
            different[name] = found, expected
    assert not different
    assert len(NAMES) > 60
