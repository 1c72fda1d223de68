"""MetaLRTrainerCallback: `MetaLR` in a Hugging Face Trainer."""

from __future__ import annotations

import base64
import io
import logging
import math
import weakref
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from metalr.core.controller import MetaLR
from metalr.core.grad_scaler import skips
from metalr.core.guards import DEFAULT_GUARDS, Guards
from metalr.core.lr_limits import Limit, LRLimits
from metalr.core.policy import LRPolicy
from metalr.core.sample import ParamGroup
from metalr.integrations.attachments import attach, release
from metalr.integrations.ranks import mean_over_ranks

logger = logging.getLogger("metalr")


class MetaLRTrainerCallback(TrainerCallback, ExportableState):
    """Sets the learning rate of a `transformers.Trainer` at each optimizer step.

    `TrainingArguments.learning_rate` is the initial rate. The horizon is the steps done and those to come, up to
    `state.max_steps`; another batch size, accumulation or number of epochs in a resumed training moves it.

    **The Trainer's own schedule** gives way, warm-up included: until the end of the training, its scheduler only
    reports the rates set here, so that the logged `learning_rate` is the applied one. A scheduler that is no LambdaLR
    (reduce_lr_on_plateau, one of your own) is refused.

    **The loss.** A Trainer gives its callbacks none. The model's is read as it leaves the forward pass, with the weight
    that it has in the backward pass: so the losses of an accumulation window sum to what the gradient is the gradient
    of, whether they are divided by the number of batches or of tokens. It is averaged over the ranks. For a loss that
    is computed elsewhere (`compute_loss_func`, label smoothing, an overridden `compute_loss`) call
    `callback.observe(loss)` there, before it is returned.

    **Clipping.** A Trainer clips the gradients before any callback sees them, at a norm of 1 by default. Trends of the
    gradient's norm are flat then, and a clipped step counts as it was applied. `max_grad_norm=0` shows them whole.

    **Checkpoints.** The state is in the checkpoint's trainer_state.json, and a resumed training has the same rates.

    **The validation loss.** With `monitor="eval_loss"`, a policy that reads one is given that of each evaluation.

    **Interruptions.** A training that ends with an exception cannot take its forward hook off the model. The next
    training of the model does, whichever Trainer and callback runs it; the hook of a callback that is gone takes itself
    off.

    Args:
        policy: as for `MetaLR`; a name or a path is kept in the checkpoint.
        guards: as for `MetaLR`, or its arguments as a dict.
        min_lr: smallest rate, as for `MetaLR`.
        max_lr: largest rate, as for `MetaLR`.
        monitor: name of a loss among the evaluation's metrics, such as "eval_loss" (of several evaluation sets, that of
            one: "eval_<name>_loss"), of the same kind as the training loss. It is averaged over the ranks.

    Attributes:
        meta_lr: the controller, from the start of the training on.

    Raises:
        ValueError: at the start of the training, for a scheduler that sets the rate too, a second callback of this
            kind, DeepSpeed or DataParallel; at the step after an evaluation whose metrics lack the monitored one.
        FileNotFoundError: for a policy that does not exist.

    Example:
        >>> import tempfile, torch
        >>> from transformers import Trainer, TrainingArguments
        >>> from metalr.integrations.huggingface import MetaLRTrainerCallback
        >>> class Model(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.linear = torch.nn.Linear(4, 2)
        ...
        ...     def forward(self, x, labels):
        ...         logits = self.linear(x)
        ...         return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}
        >>> rows = [{"x": x, "labels": int(x[0] > 0)} for x in torch.randn(64, 4)]
        >>> arguments = TrainingArguments(
        ...     tempfile.mkdtemp(), max_steps=5, learning_rate=1e-3, lr_scheduler_type="constant", report_to=[],
        ...     disable_tqdm=True, use_cpu=True,
        ... )
        >>> callback = MetaLRTrainerCallback()
        >>> output = Trainer(Model(), arguments, train_dataset=rows, callbacks=[callback]).train()  # doctest: +ELLIPSIS
        {'train_runtime': ...}
        >>> callback.meta_lr.last_step
        5
    """

    meta_lr: MetaLR | None = None

    def __init__(
        self,
        policy: str | Path | LRPolicy = "default",
        guards: Guards | dict[str, Any] = DEFAULT_GUARDS,
        min_lr: Limit = None,
        max_lr: Limit = None,
        monitor: str | None = None,
    ) -> None:
        # A missing or damaged file is an error here, before any data is prepared.
        self.policy = policy if policy == "default" or isinstance(policy, LRPolicy) else LRPolicy.load(policy)
        self._named = None if isinstance(policy, LRPolicy) else str(policy)
        self.guards = guards if isinstance(guards, Guards) else Guards(**guards)
        self.limits = LRLimits(min_lr, max_lr)
        self.monitor = monitor
        self._evaluated: set[str] = set()  # metrics since the last step
        self._losses: list[Tensor] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Makes the controller, restores its state on a resumed training, and listens to the model's loss."""
        _refuse(args)
        _refuse_a_second(state)
        optimizer, scheduler = _unwrapped(kwargs["optimizer"]), _own(kwargs["lr_scheduler"])
        for group in optimizer.param_groups:  # the scheduler's warm-up has begun at a rate of 0
            _fill(group, group.get("initial_lr", group["lr"]))
        stored = _stored(state, type(self).__name__)
        self.meta_lr = MetaLR(
            optimizer,
            max(1, state.max_steps - state.global_step),
            self.policy,
            guards=self.guards,
            min_lr=self.limits.min_lr,
            max_lr=self.limits.max_lr,
            module=kwargs["model"],
            steps_per_epoch=_steps_per_epoch(args, kwargs.get("train_dataloader")),
        )
        if stored is not None:
            self.meta_lr.load_state_dict(stored)
        self._set_horizon(state)
        # A checkpoint from before this callback was there has no place for its state, and the Trainer asks for one.
        states: Any = state.stateful_callbacks or {}  # by name
        state.stateful_callbacks = {type(self).__name__: self.state(), **states}  # type: ignore[assignment]
        self._losses, self._evaluated = [], set()
        if self.monitor is not None and not self.meta_lr.policy.reads_validation:
            logger.warning("metalr: monitor=%r has no effect: the policy reads no validation loss", self.monitor)
        self._quieten(scheduler, args)
        scheduler._last_lr = list(self.meta_lr.last_lr)
        attach(kwargs["model"], kwargs["model"].register_forward_hook(_Listener(self)).remove)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Decides, between the clipping and the update."""
        self._check_monitor()
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
        self._set_horizon(state)
        self.meta_lr.step(mean_over_ranks(loss))
        _own(kwargs["lr_scheduler"])._last_lr = list(self.meta_lr.last_lr)  # what is logged

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Gives the controller the evaluation's loss; several evaluation sets have an evaluation each."""
        metrics = metrics or {}
        self._evaluated |= metrics.keys()
        if self.meta_lr is not None and self.monitor in metrics:
            device = self.meta_lr.optimizer.param_groups[0]["params"][0].device
            self.meta_lr.validation(mean_over_ranks(torch.tensor(float(metrics[self.monitor]), device=device)))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leaves the model, the optimizer and the scheduler as they were."""
        release(kwargs["model"])
        release(_own(kwargs["lr_scheduler"]))
        if self.meta_lr is not None:
            self.meta_lr.release()

    def observe(self, loss: Tensor) -> None:
        """Reads a scalar loss that the backward pass will go through; one without a gradient is left out."""
        if not loss.requires_grad:
            return
        value = loss.detach().float().clone()  # the Trainer may scale it in place
        loss.register_hook(lambda weight: self._losses.append((value * weight.float()).reshape(())))  # type: ignore[no-untyped-call]

    def state(self) -> dict[str, Any]:
        """Returns the callback's arguments and all of the controller's state, for JSON."""
        args: dict[str, Any] = {"guards": asdict(self.guards)}
        args |= {"min_lr": self.limits.min_lr, "max_lr": self.limits.max_lr, "monitor": self.monitor}
        if self._named is not None:
            args["policy"] = self._named
        return {"args": args, "attributes": {"stored": None if self.meta_lr is None else _encode(self.meta_lr)}}

    def _check_monitor(self) -> None:
        """Checks that the Trainer's own evaluation had the metric; one of another prefix may come before it."""
        known = self.monitor is None or self.monitor in self._evaluated
        if not known and any(name.startswith("eval_") for name in self._evaluated):
            names = ", ".join(sorted(self._evaluated))
            raise ValueError(f"monitor={self.monitor!r} is not evaluated: choose of {names}")

    def _set_horizon(self, state: TrainerState) -> None:
        """Adds the steps done and those to come: other batches, epochs or a skipped step move the end."""
        if self.meta_lr is not None:
            left = max(0, state.max_steps - state.global_step)
            self.meta_lr.total_steps = max(1, self.meta_lr.last_step + left)

    def _after_forward(self, outputs: Any) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs[0]
        if isinstance(loss, Tensor) and loss.numel() == 1:
            self.observe(loss)

    def _quieten(self, scheduler: LambdaLR, args: TrainingArguments) -> None:
        """Makes the Trainer's scheduler report the controller's rates, while this callback is there."""
        release(scheduler)
        own, this, quiet = list(scheduler.lr_lambdas), weakref.ref(self), weakref.ref(scheduler)

        def factor(epoch: int, group: int, base: float) -> float:
            meta_lr = getattr(this(), "meta_lr", None)
            return float(own[group](epoch) if meta_lr is None else meta_lr.last_lr[group] / base)

        def restore() -> None:
            owner = quiet()
            if owner is not None:
                owner.lr_lambdas = own

        scheduler.lr_lambdas = [
            lambda epoch, group=group, base=float(base): factor(epoch, group, base)  # type: ignore[misc]
            for group, base in enumerate(scheduler.base_lrs)
        ]
        attach(scheduler, restore)
        if str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)) != "constant":
            name = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
            logger.warning(
                "metalr: lr_scheduler_type=%r and its warm-up no longer set the rate, MetaLRTrainerCallback does; give "
                "lr_scheduler_type='constant' to say so",
                str(name),
            )


class _Listener:
    """Passes the model's losses to a callback, as a forward hook; a copy, in a copy of the model, does nothing."""

    def __init__(self, callback: MetaLRTrainerCallback | None = None) -> None:
        self._callback = None if callback is None else weakref.ref(callback)

    def __reduce__(self) -> tuple[type[_Listener], tuple[()]]:
        return _Listener, ()

    def __call__(self, model: nn.Module, inputs: Any, outputs: Any) -> None:
        callback = None if self._callback is None else self._callback()
        if callback is not None:
            callback._after_forward(outputs)
        elif self._callback is not None:
            release(model)


def _refuse_a_second(state: TrainerState) -> None:
    states: Any = state.stateful_callbacks or {}  # by name
    each = [one for found in states.values() for one in (found if isinstance(found, list) else [found])]
    count = sum("stored" in one.get("attributes", {}) for one in each)
    if count > 1:
        raise ValueError(f"{count} callbacks MetaLRTrainerCallback set the learning rate of one Trainer: use one")


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


def _steps_per_epoch(args: TrainingArguments, loader: Any) -> int | None:
    """Counts the optimizer steps of one pass over the training data; None for data without a length."""
    try:
        batches = len(loader)
    except (TypeError, NotImplementedError):
        return None
    return math.ceil(batches / args.gradient_accumulation_steps) if batches else None


def _own(scheduler: Any) -> LambdaLR:
    """Returns the scheduler inside accelerate's wrapper."""
    inner = getattr(scheduler, "scheduler", scheduler)
    if not isinstance(inner, LambdaLR):
        raise ValueError(
            f"MetaLRTrainerCallback sets the learning rate, and so does {type(inner).__name__}: give "
            "lr_scheduler_type='constant'"
        )
    return inner


def _unwrapped(optimizer: Any) -> Optimizer:
    """Returns the torch optimizer inside accelerate's wrapper, which only passes calls on."""
    while hasattr(optimizer, "accelerator_state"):
        optimizer = optimizer.optimizer
    found: Optimizer = optimizer
    return found


def _fill(group: ParamGroup, lr: Any) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(float(lr))
    else:
        group["lr"] = float(lr)


def _encode(meta_lr: MetaLR) -> str:
    """Encodes a controller's state as text that JSON takes."""
    buffer = io.BytesIO()
    torch.save(meta_lr.state_dict(), buffer)
    return base64.b64encode(buffer.getvalue()).decode()


def _stored(state: TrainerState, name: str) -> dict[str, Any] | None:
    """Finds the controller's state in the checkpoint that the training resumes from; None where there is none."""
    states: Any = state.stateful_callbacks or {}  # as a checkpoint holds them, by name
    found = states.get(name)
    text = found["attributes"]["stored"] if found and state.global_step > 0 else None
    if text is None:
        return None
    stored: dict[str, Any] = torch.load(io.BytesIO(base64.b64decode(text)), weights_only=True)
    return stored
