"""MetaLRTrainerCallback: `MetaLR` in a Hugging Face Trainer."""

from __future__ import annotations

import base64
import io
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from metalr.core.controller import MetaLR
from metalr.core.grad_scaler import skips
from metalr.core.guards import DEFAULT_GUARDS, Guards
from metalr.core.policy import LRPolicy
from metalr.integrations.ranks import mean_over_ranks

logger = logging.getLogger("metalr")


class MetaLRTrainerCallback(TrainerCallback, ExportableState):
    """Sets the learning rate of a `transformers.Trainer` at each optimizer step.

    `Trainer(..., callbacks=[MetaLRTrainerCallback()])`. `TrainingArguments.learning_rate` is the initial rate, and
    `state.max_steps` the horizon.

    **The Trainer's own schedule** gives way, warm-up included: from the start of the training on, its scheduler
    only reports the rates that are set here, so that the logged `learning_rate` is the applied one. A scheduler that is
    no LambdaLR (reduce_lr_on_plateau, one of your own) is refused.

    **The loss.** A Trainer tells its callbacks none. The model's is taken, as it comes out of its forward pass, with
    the weight that it has in the backward pass: so the losses of an accumulation window sum to what the gradient is the
    gradient of, be they divided by the number of batches or of tokens. It is averaged over the ranks. A loss that is
    computed elsewhere (`compute_loss_func`, label smoothing, an overridden `compute_loss`) has to be told:
    `callback.observe(loss)` there, before it is returned.

    **Clipping.** A Trainer clips the gradients before any callback sees them, at a norm of 1 by default. Trends of the
    gradient's norm are flat then, and a clipped step counts as it was applied. `max_grad_norm=0` shows them whole.

    **Checkpoints.** The state is in the checkpoint's trainer_state.json, and a resumed training has the same rates.

    Args:
        policy: as for `MetaLR`; a name or a path is kept in the checkpoint.
        guards: as for `MetaLR`, or its arguments as a dict.

    Attributes:
        meta_lr: the controller, from the start of the training on.

    Raises:
        ValueError: at the start of the training, for a scheduler that sets the rate too, DeepSpeed or DataParallel.
        FileNotFoundError: for a policy that does not exist.
    """

    meta_lr: MetaLR | None = None

    def __init__(
        self, policy: str | Path | LRPolicy = "default", guards: Guards | dict[str, Any] = DEFAULT_GUARDS
    ) -> None:
        # A missing or damaged file is told here, before any data is prepared.
        self.policy = policy if policy == "default" or isinstance(policy, LRPolicy) else LRPolicy.load(policy)
        self._named = None if isinstance(policy, LRPolicy) else str(policy)
        self.guards = guards if isinstance(guards, Guards) else Guards(**guards)
        self._losses: list[Tensor] = []
        self._hook: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Makes the controller, restores its state on a resumed training, and listens to the model's loss."""
        _refuse(args)
        optimizer, scheduler = _unwrapped(kwargs["optimizer"]), _own(kwargs["lr_scheduler"])
        for group in optimizer.param_groups:  # the scheduler's warm-up has begun at a rate of 0
            _fill(group, group.get("initial_lr", group["lr"]))
        stored = _stored(state, type(self).__name__)
        done = state.global_step if stored is None else 0
        self.meta_lr = MetaLR(optimizer, state.max_steps - done, self.policy, guards=self.guards)
        if stored is not None:
            self.meta_lr.load_state_dict(stored)
        self._losses = []
        self._quieten(scheduler, args)
        self._hook = kwargs["model"].register_forward_hook(self._after_forward)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Decides, between the clipping and the update."""
        losses, self._losses = self._losses, []
        if self.meta_lr is None or not losses:
            raise RuntimeError(
                "MetaLRTrainerCallback saw no loss before this optimizer step: the loss is not the model's own, so "
                "call callback.observe(loss) where it is computed"
            )
        loss = torch.stack(losses).sum()
        scaler = getattr(kwargs["optimizer"], "scaler", None)
        if scaler is not None and scaler.is_enabled():
            loss = loss / scaler.scale(torch.ones_like(loss))
            if skips(scaler, self.meta_lr.optimizer):
                return
        self.meta_lr.step(mean_over_ranks(loss))
        _own(kwargs["lr_scheduler"])._last_lr = list(self.meta_lr.last_lr)  # what is logged

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leaves the model as it was."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def observe(self, loss: Tensor) -> None:
        """Tells a loss that the backward pass will go through, a scalar; others are left out."""
        if not loss.requires_grad:
            return
        value = loss.detach().float().clone()  # the Trainer may scale it in place
        loss.register_hook(lambda weight: self._losses.append((value * weight.float()).reshape(())))  # type: ignore[no-untyped-call]

    def state(self) -> dict[str, Any]:
        """Of the callback, as JSON: its arguments, and all of the controller's state."""
        args: dict[str, Any] = {"guards": asdict(self.guards)}
        if self._named is not None:
            args["policy"] = self._named
        return {"args": args, "attributes": {"stored": None if self.meta_lr is None else _encode(self.meta_lr)}}

    def _after_forward(self, model: Any, inputs: Any, outputs: Any) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs[0]
        if isinstance(loss, Tensor) and loss.numel() == 1:
            self.observe(loss)

    def _quieten(self, scheduler: LambdaLR, args: TrainingArguments) -> None:
        """Makes the Trainer's scheduler report the controller's rates."""
        meta_lr = self.meta_lr
        if meta_lr is None:
            raise RuntimeError("no controller yet")
        groups = range(len(scheduler.base_lrs))
        scheduler.lr_lambdas = [
            lambda _, g=g: meta_lr.last_lr[g] / float(scheduler.base_lrs[g])  # type: ignore[misc]
            for g in groups
        ]
        scheduler._last_lr = list(meta_lr.last_lr)
        if str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)) != "constant":
            name = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
            logger.warning(
                "metalr: lr_scheduler_type=%r and its warm-up no longer set the rate, MetaLRTrainerCallback does; give "
                "lr_scheduler_type='constant' to say so",
                str(name),
            )


def _refuse(args: TrainingArguments) -> None:
    if args.deepspeed:
        raise ValueError(
            "deepspeed keeps the gradients inside its engine, where MetaLRTrainerCallback cannot read them: use DDP or "
            "FSDP2"
        )
    if args.n_gpu > 1:
        raise ValueError(
            f"n_gpu={args.n_gpu} in one process (DataParallel): launch a process for each with torchrun or accelerate"
        )


def _own(scheduler: Any) -> LambdaLR:
    """The scheduler inside of accelerate's wrapper."""
    inner = getattr(scheduler, "scheduler", scheduler)
    if not isinstance(inner, LambdaLR):
        raise ValueError(
            f"MetaLRTrainerCallback sets the learning rate, and so does {type(inner).__name__}: give "
            "lr_scheduler_type='constant'"
        )
    return inner


def _unwrapped(optimizer: Any) -> Optimizer:
    """The torch optimizer inside of accelerate's wrapper, which only passes calls on."""
    while hasattr(optimizer, "accelerator_state"):
        optimizer = optimizer.optimizer
    found: Optimizer = optimizer
    return found


def _fill(group: dict[str, Any], lr: Any) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(float(lr))
    else:
        group["lr"] = float(lr)


def _encode(meta_lr: MetaLR) -> str:
    """A controller's state as text that JSON takes."""
    buffer = io.BytesIO()
    torch.save(meta_lr.state_dict(), buffer)
    return base64.b64encode(buffer.getvalue()).decode()


def _stored(state: TrainerState, name: str) -> dict[str, Any] | None:
    """The controller's state in a checkpoint that the training is resumed from; None where there is none."""
    states: Any = state.stateful_callbacks or {}  # as a checkpoint holds them, by name
    found = states.get(name)
    if isinstance(found, list):
        raise ValueError(f"the checkpoint has {len(found)} callbacks {name}: use one")
    text = found["attributes"]["stored"] if found and state.global_step > 0 else None
    if text is None:
        return None
    stored: dict[str, Any] = torch.load(io.BytesIO(base64.b64decode(text)), weights_only=True)
    return stored
