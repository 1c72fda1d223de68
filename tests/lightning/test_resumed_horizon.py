"""The horizon at each decision, against the number of steps that the run really had."""

import math
import re
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from torch.utils.data import DataLoader

from metalr import MetaLRCallback
from metalr.lightning.horizon import Mark, StepPace
from tests.conftest import random_policy
from tests.fit import Module, dataset, make_trainer, scaled
from tests.problem import make_model

ROWS = 96


class Horizons(MetaLRCallback):
    """Notes the horizon and the number of each decision, of each optimizer."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[list[int]] = []

    def on_train_start(self, trainer, pl_module) -> None:
        super().on_train_start(trainer, pl_module)
        self.seen = [[] for _ in self.controllers]

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        before = [controller.last_step for controller in self.controllers]
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        for seen, controller, last in zip(self.seen, self.controllers, before, strict=True):
            if controller.last_step > last:
                seen.append(controller.total_steps)


@dataclass(frozen=True)
class Setting:
    """What may differ between the two parts of a run."""

    batch: int = 16
    epochs: int = 3
    window: int = 1
    windows: dict[int, int] = field(default_factory=dict)
    limit: float = 1.0
    steps: int = -1

    def fit(self, folder: Path, path: Path | None = None, *more: L.Callback) -> Horizons:
        horizons = Horizons(random_policy(strength=0.1))
        schedule = [GradientAccumulationScheduler(dict(self.windows))] if self.windows else []
        trainer = make_trainer(
            folder,
            horizons,
            *schedule,
            *more,
            max_epochs=self.epochs,
            max_steps=self.steps,
            limit_train_batches=self.limit,
            accumulate_grad_batches=1 if self.windows else self.window,
        )
        trainer.fit(Module(), DataLoader(dataset(), self.batch), ckpt_path=path, weights_only=True)
        return horizons


SETTINGS = st.builds(
    Setting,
    batch=st.sampled_from([8, 12, 16, 32, 48]),
    epochs=st.integers(2, 4),
    window=st.integers(1, 4),
    windows=st.dictionaries(st.integers(0, 3), st.integers(1, 3), max_size=2),
    limit=st.sampled_from([1.0, 0.5]),
    steps=st.sampled_from([-1, -1, 9, 14]),
)


@settings(max_examples=20, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(before=SETTINGS, after=SETTINGS, step=st.integers(1, 12), at_epoch_end=st.booleans())
def test_the_horizon_of_a_resumed_run_is_the_steps_that_it_had(before, after, step, at_epoch_end):
    """Another batch size is also another number of devices: each has fewer batches of the same rows."""
    with TemporaryDirectory() as made:
        folder = Path(made)
        every = {"every_n_epochs": 1} if at_epoch_end else {"every_n_train_steps": step}
        kept = ModelCheckpoint(folder / "c", save_top_k=-1, filename="{epoch}-{step}", **every)
        whole = before.fit(folder, None, kept)
        (controller,) = whole.controllers
        assert whole.seen == [[controller.last_step] * controller.last_step]
        paths = sorted((folder / "c").glob("*.ckpt"), key=lambda path: int(path.stem.rpartition("=")[2]))
        if not paths or int(re.search(r"epoch=(\d+)", paths[0].name)[1]) >= after.epochs:
            return  # Lightning refuses to resume beyond max_epochs
        resumed = after.fit(folder, paths[0])
        if not resumed.controllers or not resumed.seen[0]:
            return  # it had come to its end
        (controller,) = resumed.controllers
        assert set(resumed.seen[0]) == {controller.last_step}


def test_a_run_resumed_with_the_other_batch_size_comes_to_its_end(tmp_path):
    """Three epochs of 6 batches, then three of 12 or of 3."""
    kept = ModelCheckpoint(tmp_path / "c", filename="{epoch}", save_top_k=-1)
    Setting(epochs=6).fit(tmp_path, None, kept)
    for batch, steps in ((16, 36), (8, 18 + 36), (32, 18 + 9)):
        horizons = Setting(epochs=6, batch=batch).fit(tmp_path, tmp_path / "c" / "epoch=2.ckpt")
        (controller,) = horizons.controllers
        assert controller.last_step == steps
        assert set(horizons.seen[0]) == {steps}


def test_a_dataloader_that_grows_moves_the_horizon_at_each_epoch(tmp_path):
    """2, 4 and 6 batches: at each epoch, the epochs to come are taken to be as long as it."""

    class Growing(Module):
        def train_dataloader(self):
            return DataLoader(dataset(), 16, sampler=range(32 * (self.current_epoch + 1)))

    horizons = Horizons(random_policy())
    make_trainer(tmp_path, horizons, max_epochs=3, reload_dataloaders_every_n_epochs=1).fit(Growing())
    assert horizons.seen == [[2 + 2 + 2] * 2 + [2 + 4 + 4] * 4 + [2 + 4 + 6] * 6]


def test_steps_that_a_gradscaler_skips_are_not_waited_for(tmp_path):
    """The horizon comes down by one for each, so that the reference comes to its end with the run."""
    horizons = Horizons(random_policy())
    trainer = make_trainer(tmp_path, horizons, max_epochs=3, plugins=[scaled(2.0**22)])
    trainer.fit(Module(), DataLoader(dataset(), 16))
    (controller,) = horizons.controllers
    assert controller.last_step < 18
    assert controller.total_steps == controller.last_step


class Parts(L.LightningModule):
    """Optimizers that each step every so many batches; those that count are the ones that Lightning counts."""

    def __init__(self, every: tuple[int, ...], counted: tuple[bool, ...] = (), times: int = 1) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.every, self.times = every, times
        self.counted = counted or (True,) * len(every)
        self.parts = torch.nn.ModuleList(make_model(seed) for seed in range(len(every)))

    def training_step(self, batch, batch_idx):
        x, y = batch
        optimizers = self.optimizers()
        for i, optimizer in enumerate(optimizers if isinstance(optimizers, list) else [optimizers]):
            if not self.counted[i]:  # the known way to have one of them left out of global_step
                profiler = self.trainer.profiler
                optimizer._on_before_step = lambda profiler=profiler: profiler.start("optimizer_step")
                optimizer._on_after_step = lambda profiler=profiler: profiler.stop("optimizer_step")
            if (self.trainer.fit_loop.total_batch_idx + 1) % self.every[i] == 0:
                for _ in range(self.times):
                    optimizer.zero_grad()
                    self.manual_backward(F.cross_entropy(self.parts[i](x), y))
                    optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.1, momentum=0.9) for part in self.parts]


@pytest.mark.parametrize(
    ("module", "options", "steps"),
    [
        (lambda: Parts((1, 1)), {"max_steps": 40}, [20, 20]),
        (lambda: Parts((1, 1), (True, False)), {"max_steps": 40}, [40, 40]),
        (lambda: Parts((1, 1, 1), (True, False, False)), {"max_steps": 20}, [20, 20, 20]),
        (lambda: Parts((1, 5)), {"max_steps": 60}, [50, 10]),
        (lambda: Parts((1, 5)), {"max_epochs": 5}, [30, 6]),
        (lambda: Parts((4,)), {"max_epochs": 8}, [12]),
        (lambda: Parts((1, 2), times=3), {"max_epochs": 4}, [72, 36]),
        (lambda: Parts((1,), times=2), {"max_epochs": 9, "max_steps": 30}, [30]),
    ],
)
def test_each_optimizer_under_manual_optimization_has_the_horizon_that_it_has(tmp_path, module, options, steps):
    """Known from the second batch with a step of it on, up to two steps where they step at different paces."""
    horizons = Horizons(random_policy())
    make_trainer(tmp_path, horizons, **({"max_epochs": -1} | options)).fit(module(), DataLoader(dataset(), 16))
    assert [controller.last_step for controller in horizons.controllers] == steps
    late = [seen[len(seen) // 2 :] for seen in horizons.seen]
    assert all(abs(total - wanted) <= 2 for part, wanted in zip(late, steps, strict=True) for total in part)


@pytest.mark.parametrize("every", [(1, 1), (1, 3)])
def test_a_fit_under_manual_optimization_is_resumed_with_its_horizons(tmp_path, every):
    options = {"max_epochs": -1, "max_steps": 40}
    whole, resumed = Horizons(random_policy()), Horizons(random_policy())
    kept = ModelCheckpoint(tmp_path / "c", every_n_train_steps=16, save_top_k=-1, filename="kept")
    make_trainer(tmp_path, whole, kept, **options).fit(Parts(every), DataLoader(dataset(), 16))
    state = torch.load(tmp_path / "c" / "kept.ckpt", weights_only=True)["callbacks"]["MetaLRCallback"]
    trainer = make_trainer(tmp_path, resumed, **options)
    path = tmp_path / "c" / "kept.ckpt"
    trainer.fit(Parts(every), DataLoader(dataset(), 16), ckpt_path=path, weights_only=True)
    for part, (seen, all_seen) in enumerate(zip(resumed.seen, whole.seen, strict=True)):
        assert seen == all_seen[state["controllers"][part]["step"] :]


@given(every=st.integers(1, 5), times=st.integers(1, 3), batches=st.integers(12, 60))
def test_a_pace_gives_the_steps_of_the_run_from_the_second_mark_on(every, times, batches):
    """An optimizer that steps `times` every `every` batches, and is alone."""
    pace = StepPace(Mark(0, 0, 0), 1)
    for batch in range(1, batches + 1):
        steps = times * (batch // every)
        pace.after_batch(Mark(steps, batch, steps))
        if steps >= 2 * times:
            assert pace.steps_per_batch == Fraction(times, every)
            to_come = math.floor((batches - batch // every * every) * pace.steps_per_batch)
            assert steps + to_come == times * batches // every
