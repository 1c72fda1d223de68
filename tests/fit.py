"""The problem of `tests.problem` in a Lightning Trainer, for tests that need a real fit."""

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.utils.data import DataLoader, TensorDataset

from metalr import MetaLRCallback
from tests.problem import batches, make_model

BATCHES = 6


class Module(L.LightningModule):
    """Notes the rates it was trained with."""

    def __init__(self, scheduler: bool = False, **options) -> None:
        super().__init__()
        self.model = make_model()
        self.options = {"lr": 0.1, "momentum": 0.9} | options
        self.scheduler = scheduler
        self.rates: list[float] = []

    def training_step(self, batch, batch_idx):
        x, y = (part[self.global_rank :: self.trainer.world_size] for part in batch)
        return F.cross_entropy(self.model(x), y)

    def on_before_zero_grad(self, optimizer) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), **self.options)
        if not self.scheduler:
            return optimizer
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


class Recorder(MetaLRCallback):
    """Notes the rates and the features of every decision."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.rates: list[list[float]] = []
        self.features: list[torch.Tensor] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        before = sum(controller.last_step for controller in self.controllers)
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        if sum(controller.last_step for controller in self.controllers) > before:
            _, controller = self._controller(optimizer)
            self.rates.append(controller.last_lr)
            self.features.append(torch.as_tensor(controller._features).clone())


def dataset() -> TensorDataset:
    data = batches(BATCHES)
    return TensorDataset(torch.cat([b[0] for b in data]), torch.cat([b[1] for b in data]))


def loader() -> DataLoader:
    return DataLoader(dataset(), batch_size=16)


class Resumable:
    """The batches of the problem, from where a checkpoint left off: what Lightning asks of a loader for that."""

    def __init__(self) -> None:
        self.data, self.next = batches(BATCHES), 0

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self):
        self.next %= BATCHES
        while self.next < BATCHES:
            self.next += 1
            yield self.data[self.next - 1]

    def state_dict(self) -> dict:
        return {"next": self.next}

    def load_state_dict(self, state: dict) -> None:
        self.next = state["next"]


class StopAt(L.Callback):
    """Stops the fit at an optimizer step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        trainer.should_stop = trainer.should_stop or trainer.global_step >= self.step


class Crash(L.Callback):
    """Ends the fit before an optimizer step, by an error."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("crash")


def make_trainer(folder, callback, *callbacks, **options) -> L.Trainer:
    defaults = {
        "max_epochs": 4,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    return L.Trainer(callbacks=[callback, *callbacks], **(defaults | options))


def applied(module: Module) -> list[float]:
    """Rates of the updates: the hook sees each at the next step's zero_grad."""
    rate = module.trainer.optimizers[0].param_groups[0]["lr"]
    return [*module.rates[1:], rate]


def scaled(scale: float) -> MixedPrecision:
    """16-mixed with a GradScaler, on the CPU."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
    return MixedPrecision("16-mixed", "cpu", scaler=scaler)
