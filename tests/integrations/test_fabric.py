"""Lightning Fabric: the plain loop's rates, on one rank and on two, and a GradScaler."""

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.fabric.plugins.precision import MixedPrecision

from metalr.integrations.fabric import FabricMetaLR
from tests.conftest import random_policy
from tests.problem import OPTIMIZERS, batches, make_model, make_run

STEPS = 12


def train(fabric: L.Fabric, optimizer: str = "adamw", steps=range(STEPS), restore=None, spoil: int = -1):
    model = make_model()
    model, made = fabric.setup(model, OPTIMIZERS[optimizer](model.parameters()))
    meta_lr = FabricMetaLR(fabric, made, STEPS, random_policy(strength=0.1))
    state = {"model": model, "optimizer": made, "meta_lr": meta_lr}
    if restore is not None:
        fabric.load(restore, state)
    rates = []
    for step in steps:
        x, y = (part[fabric.global_rank :: fabric.world_size] for part in batches(STEPS)[step])
        loss = F.cross_entropy(model(x).float(), y) * (float("inf") if step == spoil else 1.0)
        made.zero_grad()
        fabric.backward(loss)
        meta_lr.step(loss)
        made.step()
        rates.append(made.param_groups[0]["lr"])
    return rates, state


def test_it_passes_the_length_of_an_epoch_on():
    fabric, model = L.Fabric(accelerator="cpu"), make_model()
    model, made = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert FabricMetaLR(fabric, made, STEPS, random_policy(), steps_per_epoch=3).steps_per_epoch == 3


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
def test_its_rates_are_the_plain_loops(optimizer):
    plain = make_run(optimizer, random_policy(strength=0.1), STEPS).train(batches(STEPS))
    rates, _ = train(L.Fabric(accelerator="cpu"), optimizer)
    assert rates == [rate for (rate,) in plain.rates]


def on_ranks(fabric: L.Fabric) -> list[list[float]]:
    rates, _ = train(fabric)
    return fabric.all_gather(torch.tensor(rates, dtype=torch.float64)).tolist()


def test_two_ranks_set_the_rates_of_one():
    """Each sees half of a batch: the same rates on both, to the last bit, and one process's up to rounding."""
    first, second = L.Fabric(accelerator="cpu", devices=2, strategy="ddp_fork").launch(on_ranks)
    alone, _ = train(L.Fabric(accelerator="cpu"))
    assert first == second
    assert first == pytest.approx(alone, rel=1e-3)


def test_fabric_stores_it_and_it_goes_on_to_the_last_bit(tmp_path):
    whole, _ = train(L.Fabric(accelerator="cpu"))
    half, state = train(L.Fabric(accelerator="cpu"), steps=range(5))
    L.Fabric(accelerator="cpu").save(tmp_path / "state.ckpt", state)
    rest, _ = train(L.Fabric(accelerator="cpu"), steps=range(5, STEPS), restore=tmp_path / "state.ckpt")
    assert half + rest == whole


def test_a_gradscaler_is_seen_through_and_what_it_skips_is_no_step():
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    fabric = L.Fabric(accelerator="cpu", plugins=MixedPrecision("16-mixed", "cpu", scaler=scaler))
    rates, state = train(fabric, "sgd", spoil=4)
    assert state["meta_lr"].last_step == STEPS - 1
    assert rates[4] == rates[3]
    assert all(abs(value) <= 3 for value in state["meta_lr"]._features.flatten().tolist())
    plain = make_run("sgd", random_policy(strength=0.1), STEPS).train(batches(STEPS)[:4])
    assert rates[:4] == pytest.approx([rate for (rate,) in plain.rates], rel=0.02)
