"""A Hugging Face Trainer: the plain loop's rates, accumulation, clipping, its scheduler, resumption and two ranks."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from metalr import Guards, LRPolicy, MetaLR
from metalr.integrations.huggingface import MetaLRTrainerCallback
from tests.conftest import random_policy
from tests.problem import batches, make_model
from tests.regimes.ranks import run_ranks

STEPS, ROWS = 12, 16


class Model(nn.Module):
    """The problem's model in the shape that a Trainer takes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = make_model()

    def forward(self, x, labels=None):
        logits = self.net(x)
        return {"loss": None if labels is None else F.cross_entropy(logits, labels), "logits": logits}


class Recorder(MetaLRTrainerCallback):
    """Notes the rates of the updates, and what was logged."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.rates: list[float] = []
        self.logged: list[float] = []

    def on_optimizer_step(self, args, state, control, **kwargs) -> None:
        self.rates.append(kwargs["optimizer"].param_groups[0]["lr"])

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if "learning_rate" in logs:
            self.logged.append(logs["learning_rate"])


class InOrder(Trainer):
    def _get_train_sampler(self, *args):
        return SequentialSampler(self.train_dataset)


def rows() -> list[dict]:
    return [{"x": x, "labels": y} for xs, ys in batches(STEPS) for x, y in zip(xs, ys, strict=True)]


def train(folder, callback, trainer=InOrder, resume=None, data=None, **options) -> Trainer:
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
    made = trainer(Model(), args, train_dataset=data or rows(), callbacks=[callback])
    made.train(resume_from_checkpoint=resume)
    return made


def plain_rates(policy, max_norm: float = 0.0, count: int = STEPS) -> list[float]:
    """The same in a loop of one's own."""
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    meta_lr, rates = MetaLR(optimizer, count, policy), []
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
    """Whatever scheduler the Trainer was given, warm-up from 0 included; it says that it has no say."""
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


def test_a_loss_of_ones_own_is_told(tmp_path, policy):
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
