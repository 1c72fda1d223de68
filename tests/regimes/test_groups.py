"""Parameter groups in a fit: ratios, one that is added on the way, and both after a resume."""

import pytest
import torch
from lightning.pytorch.callbacks import BaseFinetuning, ModelCheckpoint

from metalr import MetaLRCallback
from tests.conftest import random_policy
from tests.fit import BATCHES, Module, Recorder, Resumable, make_trainer


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
