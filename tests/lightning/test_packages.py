"""`import pytorch_lightning as pl` is the same Trainer in a package of its own, and the same to the callback."""

import csv
import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F

from metalr import MetaLRCallback
from metalr.lightning import packages
from metalr.lightning.packages import classes, instances
from tests.conftest import random_policy
from tests.fit import BATCHES, loader
from tests.problem import make_model

pl = pytest.importorskip("pytorch_lightning")


class Module(pl.LightningModule):
    def __init__(self, head: bool = False) -> None:
        super().__init__()
        self.model, self.head = make_model(), head
        self.backbone = self.model[0]
        self.automatic_optimization = True

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        part = self.model[2] if self.head else self.model
        return torch.optim.SGD(list(part.parameters()), lr=0.1, momentum=0.9)


class Two(Module):
    """Manual optimization."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        first.zero_grad()
        second.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        first.step()
        second.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.model[i].parameters(), lr=0.1) for i in (0, 2)]


def fit(folder, *callbacks, module=None, policy=None, **options):
    callback = MetaLRCallback(policy or random_policy(strength=0.1))
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    defaults = {"max_epochs": 3, "accelerator": "cpu", "logger": False, "default_root_dir": folder} | quiet
    trainer = pl.Trainer(callbacks=[callback, *callbacks], **(defaults | options))
    trainer.fit(module or Module(), loader())
    return callback.controllers


def test_the_horizon_knows_its_accumulation_scheduler(tmp_path):
    (controller,) = fit(tmp_path, pl.callbacks.GradientAccumulationScheduler({0: 1, 1: 2}))
    assert controller.total_steps == controller.last_step == BATCHES + 2 * (BATCHES // 2)


def test_the_horizon_knows_its_timer(tmp_path):
    (controller,) = fit(tmp_path, max_epochs=-1, max_time={"seconds": 1})
    assert controller.total_steps is not None
    assert controller.last_step > 1


def test_its_weight_averaging_that_sets_the_rate_is_refused(tmp_path):
    with pytest.raises(ValueError, match="so does StochasticWeightAveraging"):
        fit(tmp_path, pl.callbacks.StochasticWeightAveraging(1e-3))


def test_a_module_without_an_optimizer_is_refused(tmp_path):
    module = Module()
    module.configure_optimizers = lambda: None
    with pytest.raises(ValueError, match="configure_optimizers returned no optimizer"):
        fit(tmp_path, module=module)


def test_its_monitor_shows_the_applied_rates(tmp_path):
    logger = pl.loggers.CSVLogger(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a monitor without a scheduler warns
        fit(tmp_path, pl.callbacks.LearningRateMonitor("step"), logger=logger, log_every_n_steps=1)
    with (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    by_key = [{row["step"]: row[key] for row in rows if row.get(key)} for key in ("lr-SGD", "metalr/lr")]
    assert len(by_key[0]) == 3 * BATCHES
    assert by_key[0] == by_key[1]


def test_its_finetuning_keeps_the_ratio_that_it_asks_for(tmp_path):
    thaw = pl.callbacks.BackboneFinetuning(1, lambda epoch: 1.0, backbone_initial_ratio_lr=0.1)
    (controller,) = fit(tmp_path, thaw, module=Module(head=True), policy=random_policy())
    assert controller.last_lr[1] / controller.last_lr[0] == pytest.approx(0.1)


def test_its_manual_optimization_has_a_controller_each(tmp_path):
    controllers = fit(tmp_path, module=Two(), max_epochs=-1, max_steps=20)
    assert [(c.total_steps, c.last_step) for c in controllers] == [(10, 10)] * 2


@pytest.mark.parametrize("name", ["FSDPStrategy", "DeepSpeedStrategy"])
@pytest.mark.parametrize("root", ["lightning.pytorch", "pytorch_lightning"])
def test_a_strategy_is_found_in_both_packages(name, root):
    (found,) = [each for each in classes(f"strategies.{name}") if each.__module__.startswith(root)]
    assert found.__name__ == name


@pytest.mark.parametrize(
    ("missing", "message"), [("torchmetrics", "torchmetrics"), ("", "No module named 'lightning'")]
)
def test_a_package_that_lacks_another_says_so_and_is_not_passed_over(missing, message, monkeypatch):
    def lacking(root):
        name = missing or root.partition(".")[0]
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(packages, "import_module", lacking)
    with pytest.raises(ModuleNotFoundError, match=message):
        packages._package()


def test_where_the_one_package_is_not_installed_the_other_serves(monkeypatch):
    def only_the_second(root):
        if root == "lightning.pytorch":
            raise ModuleNotFoundError("No module named 'lightning'", name="lightning")
        return root

    monkeypatch.setattr(packages, "import_module", only_the_second)
    monkeypatch.setattr(packages, "ROOTS", ("lightning.pytorch", "pytorch_lightning"))
    assert packages._package() == "pytorch_lightning"


def test_a_callback_of_either_package_is_found_and_no_other():
    from lightning.pytorch.callbacks import Timer

    class Trainer:
        callbacks = (Timer("00:00:00:01"), MetaLRCallback(random_policy()), pl.callbacks.Timer("00:00:00:02"))

    assert [timer.time_remaining() for timer in instances(Trainer, "callbacks.Timer")] == [1.0, 2.0]
    assert classes("callbacks.NoSuchCallback") == ()


@pytest.mark.slow
@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_the_callback_loads_no_other_package_than_the_one_in_use(package):
    other = {"pytorch_lightning": "lightning.pytorch", "lightning.pytorch": "pytorch_lightning"}[package]
    code = (
        f"import sys, {package}; from metalr.lightning.callback import MetaLRCallback; print({other!r} in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.split()[-1] == "False"
