"""A collapsed run goes back to a copy of its weights, in a Trainer of each kind, under a GradScaler and on ranks."""

import csv
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from metalr import Guards, LRPolicy, MetaLR, MetaLRCallback
from metalr.integrations.huggingface import MetaLRTrainerCallback
from tests.collapse import FALL, STEPS, collapsing
from tests.fit import Module, make_trainer, scaled
from tests.problem import batches
from tests.regimes.ranks import run_ranks

GUARDS = Guards(restore=10)


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def copied(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def check_went_back(controller: MetaLR, seen: list[dict], final: dict) -> None:
    """One collapse, after which the weights are those of the copy, buffers and all.

    Args:
        controller: of the run.
        seen: weights at the start of each step's update.
        final: weights after the update of the step that went back; no more than its momentum is added.
    """
    (event,) = controller.events
    assert event.guard == "collapse"
    assert 10 <= event.restored < FALL
    there, lost = seen[event.restored], seen[event.step]
    assert not torch.equal(there["1.running_mean"], lost["1.running_mean"])
    for name, value in there.items():
        torch.testing.assert_close(final[name], value, rtol=0.0, atol=2e-4)
        if "running" in name or "tracked" in name:
            assert torch.equal(final[name], value)


class Fit(Module):
    """Notes the weights before and after each update."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.seen, self.after = make_net(), [], []

    def training_step(self, batch, batch_idx):
        x, y = batch
        return collapsing(F.cross_entropy(self.model(x), y), batch_idx)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.0)

    def optimizer_step(self, *args, **kwargs) -> None:
        super().optimizer_step(*args, **kwargs)
        self.after.append(copied(self.model))

    def on_after_backward(self) -> None:
        self.seen.append(copied(self.model))


@pytest.mark.parametrize("scale", [None, 1024.0])
def test_a_fit_goes_back_to_the_copy(tmp_path, scale):
    module, callback = Fit(), MetaLRCallback(LRPolicy(), guards=GUARDS)
    options = {} if scale is None else {"plugins": scaled(scale)}
    logger = CSVLogger(tmp_path)
    make_trainer(tmp_path, callback, max_epochs=1, logger=logger, log_every_n_steps=1, **options).fit(
        module, DataLoader(batches(STEPS), batch_size=None)
    )
    controller = callback.controllers[0]
    check_went_back(controller, module.seen, module.after[controller.events[0].step])
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        logged = [float(row["metalr/guard_collapse"]) for row in csv.DictReader(file)]
    assert logged == [float(t >= controller.events[0].step) for t in range(STEPS)]


class Collapsing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.step, self.seen = make_net(), 0, []

    def forward(self, x, labels=None):
        logits = self.net(x)
        loss = collapsing(F.cross_entropy(logits, labels), self.step)
        self.seen.append(copied(self.net))
        self.step += 1
        return {"loss": loss, "logits": logits}


class After(TrainerCallback):
    def __init__(self) -> None:
        self.weights: list[dict] = []

    def on_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
        self.weights.append(copied(model.net))


def test_a_hugging_face_trainer_goes_back_to_the_copy(tmp_path):
    data = [{"x": x, "labels": y} for xs, ys in batches(STEPS) for x, y in zip(xs, ys, strict=True)]
    callback, after = MetaLRTrainerCallback(LRPolicy(), guards={"restore": 10}), After()
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=STEPS,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        per_device_train_batch_size=16,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(Collapsing(), arguments, train_dataset=data, callbacks=[callback, after])
    trainer.train()
    check_went_back(callback.meta_lr, trainer.model.seen, after.weights[callback.meta_lr.events[0].step])


def train(net: nn.Module, rank: int, ranks: int) -> tuple[list, list[torch.Tensor]]:
    """Events, and weights after the step that went back, whole."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    meta_lr = MetaLR(optimizer, STEPS, LRPolicy(), guards=GUARDS, module=net)
    found: list[torch.Tensor] = []
    for step, (x, y) in enumerate(batches(STEPS)):
        loss = collapsing(F.cross_entropy(net(x[rank::ranks]), y[rank::ranks]), step)
        optimizer.zero_grad()
        loss.backward()
        mean = loss.detach().clone()
        if ranks > 1:
            dist.all_reduce(mean)
            mean /= ranks
        meta_lr.step(mean)
        optimizer.step()
        if meta_lr.events and meta_lr.events[-1].last == step:
            whole = (p.full_tensor() if hasattr(p, "full_tensor") else p for p in net.parameters())
            found = [part.detach().clone() for part in whole]
    return [(event.guard, event.step, event.restored) for event in meta_lr.events], found


def plain_net() -> nn.Sequential:
    """Without a batch norm, whose statistics differ by rank."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 13), nn.ReLU(), nn.Linear(13, 4))


def train_a_rank(rank: int) -> dict:
    return {
        "ddp": train(nn.parallel.DistributedDataParallel(plain_net()), rank, 2),
        "fsdp2": train(fully_shard(plain_net()), rank, 2),
    }


@pytest.mark.slow
def test_ranks_and_shards_go_back_alike(tmp_path):
    events, weights = train(plain_net(), 0, 1)
    assert [guard for guard, _, _ in events] == ["collapse"]
    assert events[0][2] is not None
    for found in run_ranks(train_a_rank, 2, tmp_path):
        for seen, whole in found.values():
            assert seen == events
            for one, other in zip(whole, weights, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
