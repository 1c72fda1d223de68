"""ModuleNet: any torch module as the network of inner runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, replace_all_batch_norm_modules_, vmap

from metalr.meta.net import Net, Params, Shapes

Criterion = Callable[[Any, Tensor], Tensor]
"""Mean loss of a batch, shape (), from the module's outputs and the targets."""


class TrainingStep(nn.Module):
    """Wraps a LightningModule's training_step as a forward pass, (inputs, targets) -> loss, that logs nothing.

    Args:
        module: a LightningModule whose training_step takes a pair, and needs neither Trainer nor metrics.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        for name in ("log", "log_dict"):
            setattr(module, name, _nothing)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the loss of one batch, shape ()."""
        output = self.module.training_step((inputs, targets), 0)  # type: ignore[operator]
        loss: Tensor = output["loss"] if isinstance(output, dict) else output
        return loss


def _nothing(*_: Any, **__: Any) -> None:
    """Replaces a log call in an inner run."""


@dataclass(frozen=True, eq=False)
class ModuleNet(Net):
    """Makes a torch module the network of inner runs, by `torch.func.functional_call` on stacked parameters.

    The module is in evaluation mode: dropout is off. Batch norm uses the batch's own statistics, in training and in
    validation, since runs cannot share running ones. Other buffers, and parameters that require no gradient, are
    constants that all runs share.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from metalr.meta import ModuleNet
        >>> net = ModuleNet(lambda: nn.Linear(4, 3), nn.functional.cross_entropy)
        >>> net.initialise(2, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 15])

    Attributes:
        make: makes the module, with fresh weights from torch's global generator.
        criterion: maps outputs and targets to the mean loss; None for a LightningModule, whose training_step is the
            loss.
    """

    make: Callable[[], nn.Module]
    criterion: Criterion | None = None

    def _made(self) -> nn.Module:
        module = self.make()
        if not isinstance(module, nn.Module):
            raise ValueError(f"module made {type(module).__name__}: give a torch.nn.Module's class or a factory of one")
        if self.criterion is None:
            if not hasattr(module, "training_step"):
                raise ValueError(
                    f"loss=None, and {type(module).__name__} has no training_step: give loss=, a function of outputs "
                    "and targets, or a LightningModule"
                )
            module = TrainingStep(module)
        return module

    @cached_property
    def module(self) -> nn.Module:
        """The module whose code, buffers and frozen parameters all runs share."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = self._made()
        replace_all_batch_norm_modules_(module)
        return module.eval()

    @cached_property
    def shapes(self) -> Shapes:
        """Shapes of the trained parameters, by name."""
        return {name: tuple(p.shape) for name, p in self.module.named_parameters() if p.requires_grad}

    def loss(self, params: Params, inputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the mean loss of one batch, shape ()."""
        device = inputs.device
        rest = (*self.module.named_buffers(), *self.module.named_parameters())
        constants = {name: value.to(device) for name, value in rest if name not in params}
        if self.criterion is None:
            lightning: Tensor = functional_call(self.module, constants | params, (inputs, targets))
            return lightning
        return self.criterion(functional_call(self.module, constants | params, (inputs,)), targets)

    def initialise(self, runs: int, generator: torch.Generator) -> Tensor:
        """Makes a new module for each run, and returns its initial weights, (runs, size)."""
        seeds = torch.randint(2**62, (runs,), generator=generator).tolist()
        rows = []
        with torch.random.fork_rng(devices=[]):
            for seed in seeds:
                torch.manual_seed(seed)
                made = dict(self._made().named_parameters())
                rows.append(torch.cat([made[name].detach().float().flatten() for name in self.shapes]))
        return torch.stack(rows)

    def check(self, inputs: Tensor, targets: Tensor) -> None:
        """Checks that the module can be trained in inner runs.

        Args:
            inputs: of one batch, (B, ...).
            targets: of one batch, (B, ...).

        Raises:
            ValueError: for no parameters, a buffer that a forward pass changes, a module that
                `torch.func.vmap` cannot batch, or a loss that is no positive finite scalar.
        """
        name = type(self.make()).__name__
        if not self.shapes:
            raise ValueError(f"module={name} has no parameters that require a gradient")
        self._check_buffers(name, inputs, targets)
        theta = self.initialise(2, torch.Generator().manual_seed(0))
        pair = (torch.stack((inputs, inputs)), torch.stack((targets, targets)))
        try:
            _, loss = vmap(grad_and_value(self.flat_loss))(theta, *pair)
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"module={name} cannot be trained many at once (torch.func.vmap): {error}\nGive a module and a loss "
                "that are functions of their inputs alone: no metric objects, no .item(), no Trainer, no if on values"
            ) from error
        if not bool((torch.isfinite(loss) & (loss > 0)).all()):
            raise ValueError(
                f"module={name} has a loss of {loss.tolist()} at its initial weights: the outer loss is a ratio of "
                "losses, so add a constant that keeps it above 0"
            )

    def _check_buffers(self, name: str, inputs: Tensor, targets: Tensor) -> None:
        before = {key: value.clone() for key, value in self.module.named_buffers()}
        self.module.train()
        with torch.no_grad():
            self.loss(dict(self.module.named_parameters()), inputs, targets)
        self.module.eval()
        changed = [key for key, value in self.module.named_buffers() if not torch.equal(value, before[key])]
        if changed:
            raise ValueError(
                f"module={name} changes its buffers {', '.join(changed)} in the forward pass, which runs side by side "
                "cannot share: leave them out (batch norm's are taken care of)"
            )
