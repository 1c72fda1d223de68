"""kill -9 at a step, and resume from the last checkpoint: the run that was not killed, to the last bit."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.parallel import DistributedDataParallel

from metalr import MetaLR
from tests.conftest import random_policy
from tests.fit import BATCHES, Module, Recorder, Resumable, make_trainer
from tests.problem import OPTIMIZERS, Run, batches, make_model, make_run
from tests.regimes.ranks import initialises, kill, run_ranks

STEPS = 2 * BATCHES


def store(path: Path, state: dict) -> None:
    """As a careful loop does: a kill while it writes leaves the last checkpoint whole."""
    torch.save(state, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def plain_loop(rank: int, ranks: int, name: str, path: Path, killed: int | None) -> dict:
    """A loop that stores all of its state every 2 steps; killed between the decision and the update."""
    model = make_model()
    optimizer = OPTIMIZERS[name](model.parameters())
    meta_lr = MetaLR(optimizer, STEPS, random_policy(strength=0.1))
    whole = DistributedDataParallel(model) if ranks > 1 else model
    start, rates, features = 0, [], []
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        meta_lr.load_state_dict(state["meta_lr"])
        start = state["step"]
    for t, (x, y) in list(enumerate(batches(STEPS)))[start:]:
        optimizer.zero_grad()
        loss = F.cross_entropy(whole(x[rank::ranks]), y[rank::ranks])
        loss.backward()
        mean = loss.detach().clone()
        if ranks > 1:
            dist.all_reduce(mean)
            mean /= ranks
        meta_lr.step(mean)
        if t == killed and rank == ranks - 1:
            kill()
        optimizer.step()
        rates.append(meta_lr.last_lr)
        features.append(torch.as_tensor(meta_lr._features).clone())
        if t % 2 == 1 and rank == 0:
            parts = {"model": model, "optimizer": optimizer, "meta_lr": meta_lr}
            store(path, {key: part.state_dict() for key, part in parts.items()} | {"step": t + 1})
    return {"start": start, "rates": rates, "features": features, "weights": list(model.parameters())}


class Killed(Recorder):
    """Kills the last rank in the middle of a step."""

    def __init__(self, policy, step: int | None) -> None:
        super().__init__(policy)
        self.step = step

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        if trainer.global_step == self.step and trainer.global_rank == trainer.world_size - 1:
            kill()


class Made(Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.make = OPTIMIZERS[name]

    def configure_optimizers(self):
        return self.make(self.parameters())


@initialises
def lightning_fit(rank: int, ranks: int, name: str, path: Path, killed: int | None) -> dict:
    """A fit with a checkpoint every 2 steps."""
    last = path / "last.ckpt"
    start = torch.load(last, weights_only=True)["global_step"] if last.exists() else 0
    module, seen = Made(name), Killed(random_policy(strength=0.1), killed)
    checkpoint = ModelCheckpoint(path, every_n_train_steps=2, save_last=True, save_top_k=0)
    options = {"strategy": "ddp", "devices": ranks, "use_distributed_sampler": False} if ranks > 1 else {}
    trainer = make_trainer(path, seen, checkpoint, max_epochs=2, **options)
    trainer.fit(module, Resumable(), ckpt_path=last if start else None, weights_only=True)
    return {"start": start, "rates": seen.rates, "features": seen.features, "weights": list(module.parameters())}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgd", "sgd_plain", "rmsprop"])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("loop", [plain_loop, lightning_fit])
def test_a_killed_run_goes_on_to_the_last_bit(tmp_path, loop, ranks, name):
    """Killed twice: at step 4, right after a checkpoint, and at step 7, one step after the next."""

    def run(folder: str, killed: int | None) -> list[dict]:
        path = tmp_path / folder if loop is lightning_fit else tmp_path / f"{folder}.pt"
        return run_ranks(loop, ranks, tmp_path / f"{folder}-ranks", ranks, name, path, killed)

    whole = run("whole", None)
    for step in (4, 7):
        with pytest.raises(torch.multiprocessing.ProcessExitedException, match="SIGKILL"):
            run("broken", step)
    resumed = run("broken", None)
    for a, b in zip(whole, resumed, strict=True):
        start = b["start"]
        assert start in (6, 8)  # a rank that is not killed may come to store one more
        assert (a["start"], len(a["rates"])) == (0, STEPS)
        assert b["rates"] == a["rates"][start:]
        assert all(torch.equal(p, q) for p, q in zip(b["features"], a["features"][start:], strict=True))
        assert all(torch.equal(p, q) for p, q in zip(b["weights"], a["weights"], strict=True))


@pytest.mark.parametrize("order", ["optimizer, meta_lr", "meta_lr, optimizer", "optimizer, then MetaLR is made"])
def test_the_order_of_loading_does_not_matter(order):
    """The optimizer's own state brings the rate set last, which must not be taken for the initial one."""
    policy = random_policy(strength=0.1)
    whole = make_run("sgd", policy, STEPS).train(batches(STEPS))
    state = make_run("sgd", policy, STEPS).train(batches(STEPS)[:5]).state()
    model = make_model(3)
    model.load_state_dict(state["model"])
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    if order.startswith("optimizer, then"):
        optimizer.load_state_dict(state["optimizer"])
    meta_lr = MetaLR(optimizer, STEPS, policy)
    for part in ("meta_lr", "optimizer") if order.startswith("meta_lr") else ("optimizer", "meta_lr"):
        {"optimizer": optimizer, "meta_lr": meta_lr}[part].load_state_dict(state[part])
    assert Run(model, optimizer, meta_lr).train(batches(STEPS)[5:]).rates == whole.rates[5:]
