"""Parameter groups in a fit: ratios, one that is added on the way, and both after a resume."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import BaseFinetuning, ModelCheckpoint

from metalr import MetaLR, MetaLRCallback
from tests.conftest import random_policy
from tests.fit import BATCHES, Module, Recorder, Resumable, make_trainer
from tests.problem import OPTIMIZERS, batches, make_model


class Grouped(Module):
    def configure_optimizers(self):
        groups = [{"params": self.model[0].parameters(), "lr": 0.2}, {"params": self.model[2].parameters(), "lr": 2e-3}]
        return torch.optim.SGD(groups, momentum=0.9)


def test_groups_keep_their_ratios(tmp_path, policy):
    seen = Recorder(policy)
    make_trainer(tmp_path, seen, max_epochs=2).fit(Grouped(), Resumable())
    assert len(seen.rates) == 2 * BATCHES
    assert [a / b for a, b in seen.rates] == pytest.approx([100.0] * 2 * BATCHES)


class Unfreeze(BaseFinetuning):
    """Trains the head first, and the body from epoch 1 on at a rate of its own."""

    def freeze_before_training(self, pl_module) -> None:
        self.freeze(pl_module.model[0])

    def finetune_function(self, pl_module, epoch, optimizer) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.model[0], optimizer, lr=0.01)


class Head(Module):
    def configure_optimizers(self):
        trained = filter(lambda p: p.requires_grad, self.parameters())
        return torch.optim.SGD(trained, lr=0.1, momentum=0.9)


def test_a_group_that_finetuning_adds_has_its_own_rate(tmp_path, policy):
    seen = Recorder(policy)
    make_trainer(tmp_path, seen, Unfreeze(), max_epochs=3).fit(Head(), Resumable())
    assert [len(rates) for rates in seen.rates] == [1] * BATCHES + [2] * 2 * BATCHES
    assert all(body / head == pytest.approx(0.1) for head, body in seen.rates[BATCHES:])


class Growing(Module):
    """Its first layer joins the optimizer at step 5; resumed after that, it is there from the start."""

    def __init__(self, grown: bool = False) -> None:
        super().__init__()
        self.grown = grown

    def body(self) -> dict:
        return {"params": list(self.model[0].parameters()), "lr": 0.01}

    def configure_optimizers(self):
        groups = [{"params": list(self.model[2].parameters())}, *([self.body()] if self.grown else [])]
        return torch.optim.SGD(groups, lr=0.1, momentum=0.9)

    def on_train_batch_start(self, batch, batch_idx) -> None:
        if self.global_step == 5 and not self.grown:
            self.trainer.optimizers[0].add_param_group(self.body())


@pytest.mark.parametrize("step", [3, 8])
def test_a_fit_whose_groups_grew_is_resumed_to_the_last_bit(tmp_path, step):
    policy = random_policy(strength=0.1)
    seen = Recorder(policy)
    kept = ModelCheckpoint(tmp_path / "c", every_n_train_steps=step, save_top_k=-1)
    make_trainer(tmp_path, seen, kept, max_epochs=2).fit(Growing(), Resumable())
    assert [len(rates) for rates in seen.rates] == [1] * 5 + [2] * (2 * BATCHES - 5)

    resumed = Recorder(policy)
    (path,) = (tmp_path / "c").glob(f"*step={step}.ckpt")
    trainer = make_trainer(tmp_path, resumed, max_epochs=2)
    trainer.fit(Growing(grown=step > 5), Resumable(), ckpt_path=path, weights_only=True)
    assert resumed.rates == seen.rates[step:]


def test_a_checkpoint_of_other_optimizers_is_refused(tmp_path, policy):
    kept = ModelCheckpoint(tmp_path / "c", every_n_train_steps=3)
    make_trainer(tmp_path, MetaLRCallback(policy), kept, max_epochs=1).fit(Module(), Resumable())
    path = next((tmp_path / "c").glob("*.ckpt"))
    state = torch.load(path, weights_only=True)
    (controller,) = state["callbacks"]["MetaLRCallback"]["controllers"]
    state["callbacks"]["MetaLRCallback"]["controllers"] = [controller, controller]
    torch.save(state, path)
    trainer = make_trainer(tmp_path, MetaLRCallback(policy), max_epochs=2)
    with pytest.raises(ValueError, match="the checkpoint has the state of 2 optimizers, this run has 1"):
        trainer.fit(Module(), Resumable(), ckpt_path=path, weights_only=True)


def loop(model, optimizer, policy, steps: int = 12, at=lambda step: None) -> list[list[float]]:
    """Rates that each update was taken with."""
    meta_lr, rates = MetaLR(optimizer, steps, policy), []
    for step, (x, y) in enumerate(batches(steps)):
        at(step)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        meta_lr.step(loss)
        optimizer.step()
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
        assert rates[-1] == pytest.approx(meta_lr.last_lr)
    return rates


@pytest.mark.parametrize("key", ["lr_scale", "lr_mult", "lr_multiplier"])
def test_a_multiplier_beside_the_rate_is_kept_as_a_ratio(key, policy):
    """timm's layer decay: the groups share an lr, and the rates are those of groups that are written out."""
    rates = {}
    for name, head, body in (
        ("shared", {}, {key: 0.1}),
        ("written out", {"lr": 1e-2}, {"lr": 1e-3}),
        ("both", {"lr": 1e-2, key: 1.0}, {"lr": 1e-3, key: 0.1}),
    ):
        model = make_model()
        groups = [{"params": model[2].parameters(), **head}, {"params": model[0].parameters(), **body}]
        rates[name] = loop(model, torch.optim.AdamW(groups, lr=1e-2), policy)
    assert rates["shared"] == rates["written out"]
    assert rates["both"] == rates["written out"]
    assert [body / head for head, body in rates["shared"]] == pytest.approx([0.1] * 12)


def test_a_multiplier_that_all_groups_share_is_applied(policy):
    """As timm's schedulers do."""
    model = make_model()
    optimizer = torch.optim.SGD([{"params": model.parameters(), "lr_scale": 0.5}], lr=0.1)
    assert MetaLR(optimizer, 10, policy).base_lrs == [0.05]


def test_a_group_added_with_a_multiplier_has_its_ratio(policy):
    model = make_model()
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)

    def grow(step):
        if step == 4:
            optimizer.add_param_group({"params": model[0].parameters(), "lr_scale": 0.1})

    rates = loop(model, optimizer, policy, at=grow)
    assert [len(r) for r in rates] == [1] * 4 + [2] * 8
    assert all(body / head == pytest.approx(0.1) for head, body in rates[4:])


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_bad_multiplier_is_named(value, policy):
    optimizer = torch.optim.SGD([{"params": make_model().parameters(), "lr_scale": value}], lr=0.1)
    with pytest.raises(ValueError, match=r"param_groups\[0\]\['lr_scale'\]=.*finite multiplier above 0, or 0"):
        MetaLR(optimizer, 10, policy)


@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("name", ["sgd", "sgd_plain", "adam", "rmsprop"])
def test_a_group_with_a_rate_of_0_is_frozen(name, tensor, policy):
    """The other has the rates that it has without it, though gradients arrive at both."""
    rates = {}
    for listed in (True, False):
        model = make_model()
        optimizer = OPTIMIZERS[name](model[2].parameters())
        if listed:
            zero = torch.tensor(0.0) if tensor else 0.0
            optimizer.add_param_group({"params": list(model[0].parameters()), "lr": zero, "weight_decay": 0.1})
        before = model[0].weight.detach().clone()
        rates[listed] = loop(model, optimizer, policy)
        assert torch.equal(model[0].weight, before)
    assert [rate for rate, _ in rates[True]] == [rate for (rate,) in rates[False]]
    assert [rate for _, rate in rates[True]] == [0.0] * 12


def test_a_frozen_group_that_is_given_a_rate_joins(policy):
    model = make_model()
    groups = [{"params": model[2].parameters()}, {"params": model[0].parameters(), "lr": 0.0}]
    optimizer = torch.optim.RMSprop(groups, lr=0.01)

    def thaw(step):
        if step == 5:
            optimizer.param_groups[1]["lr"] = 0.001

    rates = loop(model, optimizer, policy, at=thaw)
    assert [body for _, body in rates[:5]] == [0.0] * 5
    ratio = 0.001 / rates[4][0]  # it was written beside the head's rate of the step before
    assert [body / head for head, body in rates[5:]] == pytest.approx([ratio] * 7)


def test_all_groups_frozen_are_refused(policy):
    with pytest.raises(ValueError, match="every group's 'lr' or multiplier is 0, of 1"):
        MetaLR(torch.optim.SGD(make_model().parameters(), lr=0.0), 10, policy)


def test_groups_without_a_rate_are_refused(policy):
    class Rateless(torch.optim.Optimizer):
        def __init__(self, params) -> None:
            super().__init__(params, {"max_step": 1.0})

    with pytest.raises(ValueError, match=r"param_groups\[0\] has no 'lr': the optimizer has no learning rate"):
        MetaLR(Rateless(make_model().parameters()), 10, policy)
