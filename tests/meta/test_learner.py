from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.utils import parameters_to_vector

from metalr import LRPolicy
from metalr.meta import PES, ActionES, Component, Episode, FullES, HeldOutTask, MetaLearner, MetaTasksDataModule
from metalr.meta.families import MLPTasks, QuadraticTasks
from metalr.meta.visited_states import visited_states


def make_data() -> MetaTasksDataModule:
    small = {"train_sizes": (32,), "valid_size": 16}
    components = {
        "quadratic": Component(QuadraticTasks(**small), horizons=(5, 9)),
        "mlp": Component(MLPTasks(**small), horizons=(5, 9)),
    }
    heldout = [
        HeldOutTask("quadratic", QuadraticTasks(**small), "sgd", 8, instances=2, rates=3),
        HeldOutTask("mlp", MLPTasks(**small), "adam", 8, instances=2, rates=3),
    ]
    return MetaTasksDataModule(components, heldout)


def make_learner(estimator=None, **kwargs) -> MetaLearner:
    return MetaLearner(
        hidden=(8, 4),
        estimator=estimator or ActionES(pairs=4),
        optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
        **kwargs,
    )


class Crash(L.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt("crash")


def fit(folder: Path, learner: MetaLearner, steps: int = 6, ckpt_path=None, **kwargs) -> torch.Tensor:
    options = {"callbacks": [ModelCheckpoint(folder, every_n_train_steps=1, save_last=True)]} | kwargs
    trainer = L.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=steps,
        val_check_interval=3,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(learner, make_data(), ckpt_path=ckpt_path)
    return parameters_to_vector(learner.policy.parameters()).detach().clone()


@pytest.mark.parametrize("estimator", [FullES(pairs=4), ActionES(pairs=4)], ids=lambda e: type(e).__name__)
def test_the_gradient_of_the_surrogate_is_the_estimate(tmp_path, estimator):
    """Plain descent at rate 1 moves the weights by the estimate, which is made again here by hand."""
    learner = MetaLearner(hidden=(8, 4), estimator=estimator, optimizer=lambda p: torch.optim.SGD(p, lr=1.0), seed=5)
    before = parameters_to_vector(learner.policy.parameters()).detach().clone()
    after = fit(tmp_path, learner, steps=1)
    batch = make_data().distribution.sample(0, 4)
    episode = Episode(batch.task, batch.inner, pairs=range(4), seed=(5, 0))
    estimate = estimator.estimate(LRPolicy(hidden=(8, 4), seed=5), episode).gradient
    assert float(estimate.norm()) > 0
    assert torch.allclose(before - after, estimate, atol=1e-6)


ESTIMATORS = [ActionES(pairs=4), FullES(pairs=4), PES(pairs=4, truncations=3)]


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_two_ranks_give_the_gradient_of_one(tmp_path, estimator):
    alone = fit(tmp_path / "one", make_learner(estimator))
    together = fit(tmp_path / "two", make_learner(estimator), strategy="ddp_fork", devices=2)
    assert torch.allclose(alone, together, atol=1e-5)
    best = [LRPolicy.load(tmp_path / name / "best.safetensors") for name in ("one", "two")]
    assert float(best[0].card["heldout"]) == pytest.approx(float(best[1].card["heldout"]), abs=2e-3)
    assert not torch.allclose(alone, parameters_to_vector(make_learner().policy.parameters()), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_a_crashed_run_goes_on_to_the_last_bit(tmp_path, estimator):
    """Also in the middle of an episode, where an estimator takes three meta-steps for one."""
    whole = fit(tmp_path / "whole", make_learner(estimator))
    broken = tmp_path / "broken"
    checkpoint = ModelCheckpoint(broken, every_n_train_steps=1, save_last=True)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(broken, make_learner(estimator), callbacks=[checkpoint, Crash(4)])
    learner = make_learner(estimator, seed=0)
    resumed = fit(broken, learner, ckpt_path=broken / "last.ckpt")
    assert torch.equal(resumed, whole)
    assert int(learner.inner_steps) > 0


def test_a_resumed_run_keeps_the_best_of_before(tmp_path):
    """Also where it writes to another folder, as a logger's versions are, and finds nothing better."""
    broken, after = tmp_path / "broken", tmp_path / "after"
    checkpoint = ModelCheckpoint(broken, every_n_train_steps=1, save_last=True)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(broken, make_learner(), callbacks=[checkpoint, Crash(4)])
    learner = make_learner()
    state = torch.load(broken / "last.ckpt", weights_only=False)
    state["state_dict"]["best_score"].fill_(-100.0)  # out of reach
    torch.save(state, broken / "last.ckpt")
    fit(after, learner, ckpt_path=broken / "last.ckpt")
    first, best, last = (
        LRPolicy.load(path)
        for path in (broken / "best.safetensors", after / "best.safetensors", after / "policy.safetensors")
    )
    assert torch.equal(parameters_to_vector(best.parameters()), parameters_to_vector(first.parameters()))
    assert best.card == first.card
    assert (best.card["meta_steps"], last.card["meta_steps"]) == ("3", "6")
    assert best.support.is_bounded
    assert last.support.is_bounded
    assert not first.support.is_bounded


def test_another_number_of_ranks_in_the_middle_of_an_episode_is_refused(tmp_path):
    estimator = PES(pairs=4, truncations=3)
    fit(tmp_path, make_learner(estimator), steps=1)
    with pytest.raises(Exception, match="written by 1 ranks in the middle of an episode, and this run has 2"):
        fit(tmp_path, make_learner(estimator), 3, tmp_path / "last.ckpt", strategy="ddp_fork", devices=2)


def test_the_policy_is_written_with_its_card(tmp_path):
    fit(tmp_path, make_learner())
    for name in ("policy", "best"):
        policy = LRPolicy.load(tmp_path / f"{name}.safetensors")
        assert {"seed", "meta_steps", "inner_steps", "heldout"} == set(policy.card)
        assert int(policy.card["inner_steps"]) > 0
        assert policy.support.is_bounded


def test_the_support_holds_the_states_of_the_training(tmp_path):
    learner = make_learner()
    fit(tmp_path, learner)
    policy = LRPolicy.load(tmp_path / "policy.safetensors")
    states = policy.select(visited_states(learner.policy, make_data().distribution, batches=60))
    scores = policy.support.out_of_distribution_score(states)
    assert float((scores > 0).float().mean()) < 0.05
    assert float(policy.support.out_of_distribution_score(torch.full((1, len(policy.features)), -3.0))) == 1.0


def test_pairs_that_do_not_split_over_ranks_are_refused(tmp_path):
    learner = MetaLearner(hidden=(4,), estimator=ActionES(pairs=3))
    with pytest.raises(Exception, match="estimator.pairs=3 must be a multiple of the number of ranks, 2"):
        fit(tmp_path, learner, strategy="ddp_fork", devices=2)


def test_it_can_start_from_a_policy(tmp_path):
    start = LRPolicy(hidden=(6,), seed=2)
    start.save(tmp_path / "start.safetensors")
    learner = MetaLearner(init_from=str(tmp_path / "start.safetensors"))
    assert torch.equal(parameters_to_vector(learner.policy.parameters()), parameters_to_vector(start.parameters()))
    assert all(p.requires_grad for p in learner.policy.parameters())


def test_meta_training_improves_the_outer_loss(tmp_path):
    """On quadratics from rates far too small, a dozen steps are enough to do better than the reference."""
    components = {"q": Component(QuadraticTasks(train_sizes=(64,), valid_size=32), horizons=(20, 20))}
    heldout = [HeldOutTask("q", QuadraticTasks(train_sizes=(64,), valid_size=32), "sgd", 20, instances=2, rates=4)]
    data = MetaTasksDataModule(components, heldout, decades=3.0)
    learner = MetaLearner(optimizer=lambda p: torch.optim.Adam(p, lr=0.01))
    before = heldout[0].score(learner.policy, True, torch.device("cpu"))
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=25,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(learner, data)
    after = heldout[0].score(learner.policy, True, torch.device("cpu"))
    assert float(after.median) < float(before.median) - 0.1


def test_going_on_counts_the_steps_before(tmp_path):
    fit(tmp_path / "first", make_learner(), steps=3)
    first = LRPolicy.load(tmp_path / "first" / "policy.safetensors").card
    learner = MetaLearner(init_from=str(tmp_path / "first" / "policy.safetensors"), estimator=ActionES(pairs=4))
    fit(tmp_path / "second", learner, steps=3)
    second = LRPolicy.load(tmp_path / "second" / "policy.safetensors").card
    assert int(second["meta_steps"]) == 6
    assert int(second["inner_steps"]) > int(first["inner_steps"])


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="anytime=False.*none of progress"):
        MetaLearner(features=["early", "optimizer"])
    with pytest.raises(ValueError, match="anytime=True.*progress"):
        MetaLearner(anytime=True, init_from="default")
    with pytest.raises(ValueError, match="init_from='default' has hidden layers"):
        MetaLearner(hidden=[8], init_from="default")
    with pytest.raises(ValueError, match="leave in what the policy reads already, progress"):
        MetaLearner(features=["travel", "step_size_reference"], init_from="default")
    with pytest.raises(ValueError, match="final_weight=2"):
        MetaLearner(final_weight=2)
