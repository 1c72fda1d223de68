"""A Hugging Face Trainer: the plain loop's rates, accumulation, clipping, its scheduler, resumption and two ranks."""

import copy
import gc
import json
import logging
import pickle
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from metalr import Guards, LRPolicy, MetaLR
from metalr.integrations.attachments import attach, release
from metalr.integrations.huggingface import MetaLRTrainerCallback
from tests.conftest import random_policy
from tests.integrations.hugging_face import InOrder, Model, Recorder
from tests.problem import batches, make_model
from tests.regimes.ranks import run_ranks

STEPS, ROWS = 12, 16


def rows() -> list[dict]:
    return [{"x": x, "labels": y} for xs, ys in batches(STEPS) for x, y in zip(xs, ys, strict=True)]


def make(folder, callback, trainer=InOrder, data=None, **options) -> Trainer:
    defaults = {
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "per_device_train_batch_size": ROWS,
        "num_train_epochs": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "weight_decay": 0.0,
        "optim": "adamw_torch",
    }
    args = TrainingArguments(str(folder), **(defaults | options))
    return trainer(Model(), args, train_dataset=data or rows(), callbacks=[callback])


def train(folder, callback, trainer=InOrder, resume=None, data=None, **options) -> Trainer:
    made = make(folder, callback, trainer, data, **options)
    made.train(resume_from_checkpoint=resume)
    return made


def hooks(trainer) -> list[int]:
    """Hooks on the model, on the optimizer and on accelerate's wrapper of it, and rates that are still reported."""
    optimizer = trainer.optimizer
    while hasattr(optimizer, "accelerator_state"):
        optimizer = optimizer.optimizer
    of = lambda thing: [len(value) for name, value in vars(thing).items() if name.endswith("_hooks")]  # noqa: E731
    return [sum(of(thing)) for thing in (trainer.model, optimizer, trainer.accelerator)]


CLEAN = [0, 0, 0]


class Interrupt(TrainerCallback):
    """Ends the training the first time that it comes to a step, as Ctrl-C or a full memory does."""

    def __init__(self, error=KeyboardInterrupt, step: int = 7, times: int = 1) -> None:
        self.error, self.step, self.times = error, step, times

    def on_substep_end(self, *arguments, **kwargs) -> None:
        self.on_step_end(*arguments, **kwargs)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step and self.times:
            self.times -= 1
            raise self.error


def plain_rates(policy, max_norm: float = 0.0, count: int = STEPS) -> list[float]:
    """The same in a loop of one's own."""
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    meta_lr, rates = MetaLR(optimizer, count, policy, steps_per_epoch=STEPS), []
    for x, y in batches(STEPS)[:count]:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        if max_norm:
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        meta_lr.step(loss.detach())
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize("schedule", [{}, {"lr_scheduler_type": "cosine", "warmup_steps": 5}])
def test_its_rates_are_the_plain_loops_and_are_what_is_logged(tmp_path, schedule, policy, caplog):
    """Whatever scheduler the Trainer was given, warm-up from 0 included; one line reports that it is not used."""
    callback = Recorder(policy)
    with caplog.at_level(logging.WARNING, "metalr"):
        train(tmp_path, callback, **schedule)
    assert callback.rates == pytest.approx(plain_rates(policy), rel=1e-5)
    assert callback.logged == pytest.approx(callback.rates, rel=1e-6)
    assert ("lr_scheduler_type='cosine' and its warm-up no longer" in caplog.text) == bool(schedule)


def test_clipped_gradients_are_what_it_sees(tmp_path, policy):
    clipped = Recorder(policy)
    train(tmp_path, clipped, max_grad_norm=0.05)
    assert clipped.rates == pytest.approx(plain_rates(policy, 0.05), rel=1e-4)
    assert clipped.rates != pytest.approx(plain_rates(policy), rel=1e-3)


def test_an_accumulation_window_is_the_large_batch(tmp_path, monkeypatch):
    """Also the last one, of 2 batches in place of 4: the loss is the window's, and so are the rates."""
    policy, seen, step = random_policy(strength=0.1), [], MetaLR.step
    monkeypatch.setattr(MetaLR, "step", lambda self, loss: (seen.append(float(loss)), step(self, loss)))
    data = rows()[: 2 * ROWS + ROWS // 2]
    whole, parts = Recorder(policy), Recorder(policy)
    train(tmp_path, whole, data=data)
    large, _ = list(seen), seen.clear()
    train(tmp_path, parts, data=data, per_device_train_batch_size=ROWS // 4, gradient_accumulation_steps=4)
    assert len(parts.rates) == 3
    assert seen == pytest.approx(large, rel=1e-5)
    assert parts.rates == pytest.approx(whole.rates, rel=1e-3)


def test_a_loss_of_ones_own_is_observed(tmp_path, policy):
    callback = Recorder(policy)

    class Own(InOrder):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            loss = F.cross_entropy(model(inputs["x"])["logits"], inputs["labels"])
            if self.args.label_names is None:
                callback.observe(loss)
            return loss

    train(tmp_path, callback, Own)
    assert callback.rates == pytest.approx(plain_rates(policy), rel=1e-5)
    with pytest.raises(RuntimeError, match=r"call callback.observe\(loss\) where it is computed"):
        train(tmp_path, Recorder(policy), Own, label_names=["labels"])


@pytest.mark.slow
@pytest.mark.parametrize("restore", [False, True])
def test_a_resumed_training_has_the_same_rates_to_the_last_bit(tmp_path, restore, policy):
    """From the Trainer's own checkpoint, whether it makes the callbacks anew or not."""
    policy.save(tmp_path / "mine.safetensors")
    made = lambda: Recorder(tmp_path / "mine.safetensors", Guards(divergence=None))  # noqa: E731
    whole = made()
    train(tmp_path / "run", whole, save_strategy="steps", save_steps=5)
    checkpoint = tmp_path / "run" / "checkpoint-5"
    stored = json.loads((checkpoint / "trainer_state.json").read_text())["stateful_callbacks"]["Recorder"]
    assert stored["args"]["policy"] == str(tmp_path / "mine.safetensors")
    resumed = train(tmp_path / "again", made(), resume=str(checkpoint), restore_callback_states_from_checkpoint=restore)
    (callback,) = (c for c in resumed.callback_handler.callbacks if isinstance(c, Recorder))
    assert callback.rates == whole.rates[5:]
    assert callback.guards == Guards(divergence=None)
    with pytest.raises(ValueError, match="written with another policy"):
        train(tmp_path / "other", Recorder(random_policy(1)), resume=str(checkpoint))


def test_a_callback_that_joins_later_plans_for_the_steps_that_remain(tmp_path, policy):
    train(tmp_path, TrainerCallback(), save_strategy="steps", save_steps=5)
    late = MetaLRTrainerCallback(policy)
    train(tmp_path / "late", late, resume=str(tmp_path / "checkpoint-5"))
    assert late.meta_lr.total_steps == late.meta_lr.last_step == STEPS - 5


class Plateau(InOrder):
    def create_scheduler(self, num_training_steps, optimizer=None):
        self.lr_scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer)
        return self.lr_scheduler


def test_what_sets_the_rate_too_or_hides_the_gradients_is_refused(tmp_path, policy):
    with pytest.raises(ValueError, match="so does ReduceLROnPlateau: give lr_scheduler_type='constant'"):
        train(tmp_path, MetaLRTrainerCallback(policy), Plateau)
    for deepspeed, devices, word in (("ds.json", 1, "deepspeed"), (None, 2, "n_gpu=2")):
        args = SimpleNamespace(deepspeed=deepspeed, n_gpu=devices)
        with pytest.raises(ValueError, match=word):
            MetaLRTrainerCallback(policy).on_train_begin(args, None, None)
    with pytest.raises(FileNotFoundError, match="neither a file nor a shipped policy"):
        MetaLRTrainerCallback("nowhere.safetensors")


def on_ranks(rank: int, folder) -> list[float]:
    callback = Recorder(random_policy(strength=0.1))
    train(folder / str(rank), callback, Trainer, per_device_train_batch_size=ROWS // 2, seed=3)
    return callback.rates


@pytest.mark.slow
def test_two_ranks_set_the_rates_of_one(tmp_path):
    """DDP over gloo: the same on both ranks, to the last bit, and one process's up to rounding."""
    first, second = run_ranks(on_ranks, 2, tmp_path / "ranks", tmp_path)
    alone = Recorder(random_policy(strength=0.1))
    train(tmp_path / "alone", alone, Trainer, seed=3)
    assert first == second
    assert len(first) == STEPS
    assert first[:1] == pytest.approx(alone.rates[:1], rel=1e-3)


def test_its_default_is_the_shipped_policy(tmp_path):
    callback = MetaLRTrainerCallback()
    train(tmp_path, callback, max_steps=2)
    assert callback.meta_lr.policy.fingerprint() == LRPolicy.load("default").fingerprint()
    assert callback.meta_lr.total_steps == 2


def losses_a_step(monkeypatch) -> list[int]:
    """Fills with the number of losses that each decision was taken on."""
    seen, own = [], MetaLRTrainerCallback.on_pre_optimizer_step

    def counted(self, *arguments, **kwargs):
        seen.append(len(self._losses))
        own(self, *arguments, **kwargs)

    monkeypatch.setattr(MetaLRTrainerCallback, "on_pre_optimizer_step", counted)
    return seen


SAVING = {"save_strategy": "steps", "save_steps": 5}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("a broken batch")])
def test_an_interrupted_training_goes_on_in_the_same_trainer(tmp_path, error, policy, monkeypatch):
    """With the rates of the one that nobody interrupted, one loss a step, and no hook that is left."""
    whole = Recorder(policy)
    train(tmp_path / "whole", whole)
    callback, stop, seen = Recorder(policy), Interrupt(error), losses_a_step(monkeypatch)
    made = make(tmp_path / "run", callback, **SAVING)
    made.add_callback(stop)
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        made.train()
    callback.rates.clear()
    made.train(resume_from_checkpoint=True)
    assert callback.rates == whole.rates[5:]
    assert set(seen) == {1}
    assert hooks(made) == CLEAN


def test_a_second_training_of_a_trainer_begins_anew_and_leaves_no_hook(tmp_path, policy, monkeypatch):
    callback, seen = Recorder(policy), losses_a_step(monkeypatch)
    made = train(tmp_path, callback)
    made.train()
    assert hooks(made) == CLEAN
    assert seen == [1] * 2 * STEPS
    assert callback.meta_lr.last_step == callback.meta_lr.total_steps == STEPS


@pytest.mark.slow
def test_batch_sizes_that_do_not_fit_leave_no_hooks(tmp_path, policy, monkeypatch):
    """auto_find_batch_size begins the training anew with each batch size that it tries."""
    callback, seen = Recorder(policy), losses_a_step(monkeypatch)
    made = make(tmp_path, callback, auto_find_batch_size=True)
    made.add_callback(Interrupt(RuntimeError("CUDA out of memory."), step=1, times=3))
    made.train()
    assert hooks(made) == CLEAN
    assert set(seen) == {1}
    assert callback.meta_lr.last_step == callback.meta_lr.total_steps == made.state.global_step > STEPS


def test_a_trainer_takes_over_a_model_that_another_left_with_a_hook(tmp_path, policy, monkeypatch):
    first, seen = make(tmp_path, Recorder(policy)), losses_a_step(monkeypatch)
    first.add_callback(Interrupt())
    with pytest.raises(KeyboardInterrupt):
        first.train()
    second = Recorder(policy)
    made = InOrder(first.model, first.args, train_dataset=rows(), callbacks=[second])
    made.train()
    assert set(seen) == {1}
    assert hooks(made) == CLEAN
    (left,) = [c for c in first.callback_handler.callbacks if isinstance(c, Recorder)]
    assert not left._losses


def test_the_hook_of_a_callback_that_is_gone_takes_itself_off(tmp_path, policy):
    made = make(tmp_path, Recorder(policy))
    made.add_callback(Interrupt())
    with pytest.raises(KeyboardInterrupt):
        made.train()
    assert hooks(made)[0] == 1
    pickle.loads(pickle.dumps(made.model))
    other = copy.deepcopy(made.model)
    other(rows()[0]["x"][None], torch.zeros(1, dtype=torch.long))["loss"].backward()
    (callback,) = [c for c in made.callback_handler.callbacks if isinstance(c, Recorder)]
    assert not callback._losses  # a copy of the model is another model
    made.remove_callback(Recorder)
    del callback
    gc.collect()
    made.model(rows()[0]["x"][None], torch.zeros(1, dtype=torch.long))
    assert hooks(made) == CLEAN


def test_a_scheduler_of_ones_own_sets_the_rate_again_afterwards(tmp_path, policy):
    """Whether the training came to its end, or its callback is gone."""
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    args = make(tmp_path, TrainerCallback(), max_steps=3).args
    callback = Recorder(policy)
    made = InOrder(model, args, train_dataset=rows(), callbacks=[callback], optimizers=(optimizer, scheduler))
    made.train()
    assert callback.logged == pytest.approx(callback.rates)
    assert [factor(3) for factor in scheduler.lr_lambdas] == [0.5]
    made.add_callback(Interrupt(step=1))
    with pytest.raises(KeyboardInterrupt):
        made.train()
    assert [factor(3) for factor in scheduler.lr_lambdas] != [0.5]
    made.remove_callback(Recorder)
    del callback
    gc.collect()
    assert [factor(3) for factor in scheduler.lr_lambdas] == [0.5]


def test_a_search_of_hyperparameters_leaves_no_hook_on_any_trials_model(tmp_path, policy):
    """A trial that is given up with an exception included."""
    models, callback = [], Recorder(policy)

    def init():
        models.append(Model())
        return models[-1]

    args = make(tmp_path, TrainerCallback()).args
    made = InOrder(
        args=args, model_init=init, train_dataset=rows(), callbacks=[callback, Interrupt(ValueError("given up"))]
    )
    with pytest.raises(ValueError, match="given up"):
        made.train()
    for rate in (0.02, 0.03):  # model_init makes each trial's model anew
        args.learning_rate = rate
        made.train()
        assert callback.meta_lr.base_lrs == [rate] * 2
    assert callback.meta_lr.last_step == STEPS
    assert [len(model._forward_hooks) for model in models[-2:]] == [0, 0]


def test_an_attachment_is_taken_off_before_the_next():
    class Target:
        pass

    target, log = Target(), []
    attach(target, lambda: log.append(1))
    attach(target, lambda: log.append(2))
    assert log == [1]
    release(target)
    release(target)
    assert log == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {"per_device_train_batch_size": ROWS // 2},
        {"per_device_train_batch_size": ROWS * 2},
        {"gradient_accumulation_steps": 2},
        {"num_train_epochs": 5},
        {"max_steps": 40},
        {"ignore_data_skip": True},
    ],
    ids=str,
)
def test_a_resumed_training_ends_where_its_steps_do(tmp_path, changed, policy):
    """Two epochs of twelve steps, resumed after ten: the horizon is the steps done and those to come."""
    train(tmp_path, Recorder(policy), num_train_epochs=2, save_strategy="steps", save_steps=10, save_total_limit=1)
    callback = Recorder(policy)
    options = {"num_train_epochs": 2} | changed
    resumed = train(tmp_path / "again", callback, resume=str(next(tmp_path.glob("checkpoint-*"))), **options)
    assert callback.meta_lr.total_steps == callback.meta_lr.last_step == resumed.state.global_step


def test_a_callback_that_joined_late_and_was_resumed_has_its_own_end(tmp_path, policy):
    train(tmp_path / "none", TrainerCallback(), **SAVING)
    late = Recorder(policy)
    train(tmp_path / "late", late, resume=str(tmp_path / "none" / "checkpoint-5"), **SAVING)
    again = Recorder(policy)
    train(tmp_path / "again", again, resume=str(tmp_path / "late" / "checkpoint-10"))
    assert again.meta_lr.total_steps == again.meta_lr.last_step == STEPS - 5
    assert again.rates == late.rates[5:]


def test_a_finished_training_is_resumed_to_do_nothing(tmp_path, policy):
    train(tmp_path, TrainerCallback(), save_strategy="steps", save_steps=STEPS)
    callback = Recorder(policy)
    train(tmp_path / "again", callback, resume=str(tmp_path / f"checkpoint-{STEPS}"))
    assert callback.rates == []


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(rows())


def test_a_stream_without_a_length_ends_at_max_steps(tmp_path, policy):
    """Also after more rounds through it; without max_steps the Trainer itself says what to give."""
    callback = Recorder(policy)
    train(tmp_path, callback, Trainer, data=Stream(), max_steps=STEPS + 5)
    assert callback.meta_lr.total_steps == callback.meta_lr.last_step == STEPS + 5
    assert callback.meta_lr.steps_per_epoch is None
    with pytest.raises(ValueError, match="max_steps has to be specified"):
        train(tmp_path, Recorder(policy), Trainer, data=Stream(), max_steps=-1)


@pytest.mark.parametrize(("options", "steps"), [({}, STEPS), ({"gradient_accumulation_steps": 5}, -(-STEPS // 5))])
def test_an_epoch_is_a_pass_over_the_data(tmp_path, policy, options, steps):
    callback = Recorder(policy)
    train(tmp_path, callback, Trainer, **options)
    assert callback.meta_lr.steps_per_epoch == steps


def test_two_callbacks_in_one_trainer_are_refused(tmp_path, policy):
    made = make(tmp_path, MetaLRTrainerCallback(policy))
    made.add_callback(Recorder(policy))
    with pytest.raises(ValueError, match="2 callbacks MetaLRTrainerCallback set the learning rate of one Trainer"):
        made.train()
