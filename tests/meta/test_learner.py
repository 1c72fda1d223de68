import threading
from copy import deepcopy
from pathlib import Path

import lightning as L
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from torch.nn.utils import parameters_to_vector

from metalr import LRPolicy
from metalr.meta import (
    PES,
    ActionES,
    Aggregator,
    CommonDescent,
    Component,
    Episode,
    FullES,
    HeldOutTask,
    Mean,
    MetaLearner,
    MetaTasksDataModule,
    TaskDistribution,
)
from metalr.meta.families import MLPTasks, QuadraticTasks
from metalr.meta.sharing import shares
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


class Crash(Callback):
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
@pytest.mark.parametrize("aggregator", [Mean(), CommonDescent(window=2)], ids=lambda a: type(a).__name__)
def test_the_gradient_of_the_surrogate_is_the_estimate(tmp_path, estimator, aggregator):
    """Plain descent at rate 1 moves the weights by what is aggregated of the task batches, made again here by hand."""
    descent = {"optimizer": lambda p: torch.optim.SGD(p, lr=1.0), "seed": 5, "task_batches": 3}
    learner = MetaLearner(hidden=(8, 4), estimator=estimator, aggregator=aggregator, **descent)
    before = parameters_to_vector(learner.policy.parameters()).detach().clone()
    after = fit(tmp_path, learner, steps=1)
    batches = [make_data().distribution.sample(index, 4) for index in range(3)]
    assert {batch.name for batch in batches} == {"mlp", "quadratic"}
    episodes = [Episode(batch.task, batch.inner, seed=(5, index)) for index, batch in enumerate(batches)]
    policy = LRPolicy(learner.policy.features, hidden=(8, 4), seed=5)
    estimates = torch.stack([estimator.estimate(policy, episode).gradient for episode in episodes])
    assert float(estimates.norm(dim=1).min()) > 0
    assert torch.allclose(before - after, aggregator.aggregate(estimates), atol=1e-6)
    assert int(learner.next_batch) == 3


def test_an_aggregator_sees_the_last_task_batches_and_all_of_the_meta_step(tmp_path):
    seen = []

    class Watching(Aggregator):
        def __init__(self, window: int) -> None:
            self.window = window

        def aggregate(self, gradients):
            seen.append(gradients.clone())
            return gradients.mean(0)

    for window, expected in ((0, [2, 2, 2]), (1, [2, 2, 2]), (5, [5, 5, 5])):
        seen.clear()
        fit(tmp_path, make_learner(task_batches=2, aggregator=Watching(window)), steps=3)
        assert [len(gradients) for gradients in seen] == expected
        made = torch.cat([gradients[-2:] for gradients in seen])
        assert bool(made.any(dim=1).all())
        padded = torch.cat((torch.zeros(window, made.shape[1]), made))
        for step, gradients in enumerate(seen):
            assert torch.equal(gradients, padded[: window + 2 * step + 2][-len(gradients) :])


KINDS = [
    {"estimator": ActionES(pairs=4)},
    {"estimator": ActionES(pairs=4), "aggregator": CommonDescent(window=5)},
    {"estimator": FullES(pairs=4)},
    {"estimator": PES(pairs=4, truncations=3)},
    {"estimator": PES(pairs=4, truncations=3), "aggregator": CommonDescent(window=2)},
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(type(part).__name__ for part in kind.values()))
def test_two_ranks_give_the_gradient_of_one(tmp_path, kind):
    """To the last bit, whichever rank makes a task batch, and the held-out score with it."""
    alone = fit(tmp_path / "one", make_learner(task_batches=3, **kind))
    together = fit(tmp_path / "two", make_learner(task_batches=3, **kind), strategy="ddp_fork", devices=2)
    assert torch.equal(alone, together)
    best = [LRPolicy.load(tmp_path / name / "best.safetensors") for name in ("one", "two")]
    assert best[0].card == best[1].card
    assert not torch.allclose(alone, parameters_to_vector(make_learner().policy.parameters()), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(type(part).__name__ for part in kind.values()))
def test_a_crashed_run_goes_on_to_the_last_bit(tmp_path, kind):
    """Also in the middle of its episodes, where an estimator takes three meta-steps for one."""
    whole = fit(tmp_path / "whole", make_learner(task_batches=2, **kind))
    broken = tmp_path / "broken"
    checkpoint = ModelCheckpoint(broken, every_n_train_steps=1, save_last=True)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(broken, make_learner(task_batches=2, **kind), callbacks=[checkpoint, Crash(4)])
    learner = make_learner(seed=0, task_batches=2, **kind)
    resumed = fit(broken, learner, ckpt_path=broken / "last.ckpt")
    assert torch.equal(resumed, whole)
    assert int(learner.inner_steps) > 0


@pytest.mark.slow
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


@pytest.mark.slow
def test_another_number_of_ranks_goes_on_in_the_middle_of_the_episodes(tmp_path):
    kind = KINDS[-1]
    whole = fit(tmp_path / "whole", make_learner(task_batches=2, **kind), steps=3)
    fit(tmp_path, make_learner(task_batches=2, **kind), steps=1)
    last = tmp_path / "last.ckpt"
    resumed = fit(tmp_path, make_learner(task_batches=2, **kind), 3, last, strategy="ddp_fork", devices=2)
    assert torch.equal(resumed, whole)


def test_a_task_batch_that_ends_before_the_others_waits_for_them(tmp_path):
    """Horizons of 2 and of 6 in four truncations: the first takes two, and two of 6 begin after four meta-steps."""
    small = QuadraticTasks(train_sizes=(32,), valid_size=16)
    components = {"short": Component(small, horizons=(2, 2)), "long": Component(small, horizons=(6, 6))}
    distribution = TaskDistribution(components, seed=7)
    assert [distribution.horizon(index) for index in range(4)] == [2, 6, 6, 6]
    data = MetaTasksDataModule(components, seed=7)
    learner = make_learner(PES(pairs=4, truncations=4), task_batches=2)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", max_steps=5, default_root_dir=tmp_path, limit_val_batches=0, **quiet)
    trainer.fit(learner, data)
    assert int(learner.next_batch) == 2
    assert int(learner.inner_steps) == 2 * 4 * (2 + 6 + 2 + 2)


@pytest.mark.slow
def test_the_policy_is_written_with_its_card(tmp_path):
    fit(tmp_path, make_learner())
    for name in ("policy", "best"):
        policy = LRPolicy.load(tmp_path / f"{name}.safetensors")
        assert {"seed", "meta_steps", "inner_steps", "heldout"} == set(policy.card)
        assert int(policy.card["inner_steps"]) > 0
        assert policy.support.is_bounded


class Weights(Callback):
    """Keeps the policy's weights after every meta-step."""

    def __init__(self) -> None:
        self.kept: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.kept.append(parameters_to_vector(pl_module.policy.parameters()).detach().clone())


@pytest.mark.slow
def test_an_average_of_the_weights_is_what_is_scored_and_written(tmp_path):
    """An interrupted run goes on with its average, too."""

    def callbacks(folder: Path) -> list[Callback]:
        checkpoint = ModelCheckpoint(folder, every_n_train_steps=1, save_last=True)
        return [EMAWeightAveraging(use_buffers=False, decay=0.5), checkpoint]

    weights, folder, broken = Weights(), tmp_path / "whole", tmp_path / "broken"
    fit(folder, make_learner(), callbacks=[*callbacks(folder), weights])
    average = weights.kept[0]
    for after in weights.kept[1:]:
        average = 0.5 * average + 0.5 * after
    whole = LRPolicy.load(folder / "policy.safetensors")
    written = parameters_to_vector(whole.parameters())
    torch.testing.assert_close(written, average)
    assert not torch.allclose(written, weights.kept[-1], atol=1e-4)
    scores = [float(task.score(whole, False, torch.device("cpu")).total) for task in make_data().heldout]
    assert whole.card["heldout"] == f"{sum(scores) / len(scores):.4f}"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(broken, make_learner(), callbacks=[*callbacks(broken), Crash(4)])
    fit(broken, make_learner(), ckpt_path=broken / "last.ckpt", callbacks=callbacks(broken))
    resumed = LRPolicy.load(broken / "policy.safetensors")
    assert torch.equal(parameters_to_vector(resumed.parameters()), written)
    assert resumed.card == whole.card


def test_a_copy_shares_what_makes_the_optimizer():
    """Of LightningCLI it holds the trainer, with locks and, on several ranks, processes: none of them has a copy."""

    class Maker:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def __call__(self, made_of):
            return torch.optim.SGD(made_of, lr=1.0)

    learner = MetaLearner(hidden=(8, 4), optimizer=Maker(), lr_scheduler=Maker())
    copied = deepcopy(learner)
    assert (copied.optimizer, copied.lr_scheduler) == (learner.optimizer, learner.lr_scheduler)
    with torch.no_grad():
        learner.policy.layers[0].bias.add_(1.0)
    assert not torch.equal(copied.policy.layers[0].bias, learner.policy.layers[0].bias)


@pytest.mark.slow
def test_the_support_holds_the_states_of_the_training(tmp_path):
    learner = make_learner()
    fit(tmp_path, learner)
    policy = LRPolicy.load(tmp_path / "policy.safetensors")
    states = policy.select(visited_states(learner.policy, make_data().distribution, batches=60))
    scores = policy.support.out_of_distribution_score(states)
    assert float((scores > 0).float().mean()) < 0.05
    assert float(policy.support.out_of_distribution_score(torch.full((1, len(policy.features)), -3.0))) == 1.0


def test_fewer_task_batches_than_ranks_are_refused(tmp_path):
    with pytest.raises(Exception, match="task_batches=1: give one for each of the 2 ranks, or more"):
        fit(tmp_path, make_learner(), strategy="ddp_fork", devices=2)


@given(costs=st.lists(st.integers(1, 20_000), min_size=1, max_size=30), ranks=st.integers(1, 6))
def test_shares_are_even_up_to_one_task_batch(costs, ranks):
    own = shares(costs, ranks)
    assert sorted(place for places in own for place in places) == list(range(len(costs)))
    loads = [sum(costs[place] for place in places) for places in own]
    assert max(loads) - min(loads) <= max(costs)


def test_it_can_start_from_a_policy(tmp_path):
    start = LRPolicy(hidden=(6,), seed=2)
    start.save(tmp_path / "start.safetensors")
    learner = MetaLearner(init_from=str(tmp_path / "start.safetensors"))
    assert torch.equal(parameters_to_vector(learner.policy.parameters()), parameters_to_vector(start.parameters()))
    assert all(p.requires_grad for p in learner.policy.parameters())


def test_meta_training_improves_the_outer_loss(tmp_path):
    """On quadratics from rates far too small, two dozen steps are enough to do better than the reference."""
    components = {"q": Component(QuadraticTasks(train_sizes=(64,), valid_size=32), horizons=(50, 50))}
    heldout = [HeldOutTask("q", QuadraticTasks(train_sizes=(64,), valid_size=32), "sgd", 50, instances=2, rates=4)]
    data = MetaTasksDataModule(components, heldout, decades=3.0)
    learner = MetaLearner(optimizer=lambda p: torch.optim.Adam(p, lr=0.01), seed=2)
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
    assert float(after.median) < float(before.median) - 0.5


@pytest.mark.slow
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
    with pytest.raises(ValueError, match="task_batches=0"):
        MetaLearner(task_batches=0)


def test_a_checkpoint_of_an_earlier_version_is_refused(tmp_path):
    fit(tmp_path, make_learner(), steps=1)
    state = torch.load(tmp_path / "last.ckpt", weights_only=False)
    state["state_dict"]["task_batches"] = state["state_dict"].pop("next_batch")
    torch.save(state, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="earlier version of MetaLearner"):
        fit(tmp_path, make_learner(), 2, tmp_path / "last.ckpt")
