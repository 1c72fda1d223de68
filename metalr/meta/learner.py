"""MetaLearner: meta-training as a LightningModule."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from metalr.core.features import ANYTIME_FEATURES, FEATURES, HORIZON_FEATURES
from metalr.core.policy import LRPolicy
from metalr.core.validation_loss import VALIDATION_FEATURES
from metalr.meta.action_es import ActionES
from metalr.meta.distribution import TaskDistribution
from metalr.meta.estimator import Episode, Estimate, GradientEstimator
from metalr.meta.heldout import HeldOutScore, HeldOutTask
from metalr.meta.visited_states import visited_states


class MetaLearner(L.LightningModule):
    """Meta-trains a policy on a distribution of tasks.

    `training_step` returns a surrogate loss whose gradient is the estimate: the inner product of the weights with the
    detached estimate. DDP, clipping, accumulation, any torch optimizer and checkpoints then work as for any module.
    Noise and tasks depend on (seed, task batch, pair), never on the rank: the pairs of a meta-step are split over the
    ranks, and any number of ranks gives the gradient of one rank.

    At each validation it writes `policy.safetensors` beside the logs, and `best.safetensors` where the held-out score
    is the lowest so far.

    Example:
        >>> from pathlib import Path
        >>> import lightning as L
        >>> from metalr.meta import ActionES, Component, HeldOutTask, MetaLearner, MetaTasksDataModule
        >>> from metalr.meta.families import QuadraticTasks
        >>> data = MetaTasksDataModule(
        ...     components={"quadratic": Component(QuadraticTasks(), horizons=(10, 20))},
        ...     heldout=[HeldOutTask("quadratic", QuadraticTasks(), "sgd", total_steps=20, instances=2, rates=3)],
        ... )
        >>> quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        >>> trainer = L.Trainer(max_steps=4, val_check_interval=2, accelerator="cpu", **quiet)
        >>> trainer.fit(MetaLearner(estimator=ActionES(pairs=4)), data)
        >>> sorted(path.name for path in Path(trainer.default_root_dir).glob("*.safetensors"))
        ['best.safetensors', 'policy.safetensors']

    Args:
        anytime: meta-train a policy for runs without a horizon.
        features: names of the features that the policy reads; by default all that are defined with `anytime`, but for
            those of the validation loss, which are learned only where the data shows one (`validated`).
        hidden: widths of the policy's hidden layers, [64, 32] by default.
        estimator: of the gradient; `ActionES` by default.
        optimizer: makes the optimizer of the policy's weights; Adam at 1e-3 by default.
        lr_scheduler: makes the schedule of its rate, stepped once a meta-step; constant by default.
        final_weight: share of the final loss in the outer loss, in [0, 1]; the rest is the run's mean loss.
        compiled: run inner steps through torch.compile.
        init_from: policy file or shipped name to start from, in place of `hidden`; with `features`, it reads
            these in place of its own, of which none may be left out. The card counts its meta-steps, too.
        seed: of the policy's initial weights and of the noise.
        support_batches: number of task batches on which the policy's support is learned after the training, see
            `metalr.meta.visited_states`.

    Raises:
        ValueError: for a final_weight out of range, or features that do not go with `anytime` or `init_from`.
    """

    def __init__(
        self,
        anytime: bool = False,
        features: Sequence[str] | None = None,
        hidden: Sequence[int] | None = None,
        estimator: GradientEstimator | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        final_weight: float = 0.6,
        compiled: bool = False,
        init_from: str | None = None,
        seed: int = 0,
        support_batches: int = 48,
    ) -> None:
        super().__init__()
        if not 0.0 <= final_weight <= 1.0:
            raise ValueError(f"final_weight={final_weight}: give a share in [0, 1]")
        self.policy = _starting_policy(anytime, features, hidden, init_from, seed)
        done = self.policy.card  # of the policy that this run starts from
        self._meta_steps = int(done.get("meta_steps", 0))
        self.anytime = anytime
        self.estimator = estimator or ActionES()
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.final_weight = final_weight
        self.compiled = compiled
        self.seed = seed
        self.support_batches = support_batches
        self.inner_steps: Tensor
        self.best_score: Tensor
        self.register_buffer("inner_steps", torch.tensor(int(done.get("inner_steps", 0))))
        self.register_buffer("best_score", torch.tensor(float("inf")))
        self.task_batches: Tensor
        self.register_buffer("task_batches", torch.tensor(0))  # done; the index of the next
        self._episode: Episode | None = None
        self._distribution: TaskDistribution | None = None
        self._family = ""
        self._restored: list[dict[str, Any]] | None = None
        self._step_scores: list[tuple[str, HeldOutScore]] = []
        self._scored: dict[str, LRPolicy] = {}  # the last and the best, by the names of their files

    @property
    def family(self) -> str:
        """Name of the component that the last task batch is from; empty before the first."""
        return self._family

    def configure_optimizers(self) -> Any:
        """Makes the optimizer and its scheduler."""
        optimizer = self.optimizer(self.policy.parameters())
        if self.lr_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.lr_scheduler(optimizer), "interval": "step"},
        }

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leaves the batch as it is: tasks are sampled on the CPU and moved in `training_step`."""
        return batch

    def training_step(self, batch: TaskDistribution, batch_idx: int) -> Tensor:
        """Makes the inner runs of a task batch, or a truncation of them, and returns the surrogate loss."""
        if self._episode is None:
            self._episode = self._begin(batch)
        episode = self._episode
        estimate = self.estimator.estimate(self.policy, episode)
        self._log_step(estimate)
        if episode.done:
            self._episode = None
            self.task_batches.add_(1)
        return parameters_to_vector(self.policy.parameters()) @ estimate.gradient

    def _begin(self, distribution: TaskDistribution) -> Episode:
        """Begins this rank's part of the next task batch."""
        self._distribution = distribution
        index, pairs = int(self.task_batches), self.estimator.pairs
        own = _own_pairs(pairs, self.global_rank, self.trainer.world_size)
        batch = distribution.sample(index, pairs, self.anytime)
        self._family = batch.name
        episode = Episode(
            task=batch.task.select(own).to(self.device),
            inner=batch.inner.select(own),
            pairs=range(own.start, own.stop),
            seed=(self.seed, index),
            final_weight=self.final_weight,
            compiled=self.compiled,
            gather=self._gather,
        )
        if self._restored is not None:
            episode.load_state_dict(self._restored[self.global_rank])
            self._restored = None
        return episode

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the written policies, and the inner runs of all ranks in the middle of an episode."""
        checkpoint["scored"] = {name: (policy.state_dict(), policy.card) for name, policy in self._scored.items()}
        if self._episode is None:
            return
        states: list[Any] = [self._episode.state_dict()]
        if self.trainer.world_size > 1:
            states = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(states, self._episode.state_dict())
        checkpoint["episode"] = states

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the written policies; the inner runs wait until their task batch is sampled again.

        Raises:
            ValueError: for a checkpoint of an earlier version, or one in the middle of an episode of another number of
                ranks.
        """
        if "draws" in checkpoint["state_dict"]:
            raise ValueError(
                "the checkpoint is of an earlier version of MetaLearner: start a new meta-training from the policy "
                "file beside it, by init_from"
            )
        for name, (weights, card) in checkpoint.get("scored", {}).items():
            self._scored[name] = LRPolicy(self.policy.features, self.policy.hidden, card=card)
            self._scored[name].load_state_dict(weights)
        self._restored = checkpoint.get("episode")
        if self._restored is not None and len(self._restored) != self.trainer.world_size:
            raise ValueError(
                f"the checkpoint was written by {len(self._restored)} ranks in the middle of an episode, and this run "
                f"has {self.trainer.world_size}: resume with as many"
            )

    def _gather(self, losses: Tensor) -> Tensor:
        """Losses of all ranks' runs, (copies, all instances), from those of one rank's."""
        gathered = self.all_gather(losses)
        if not isinstance(gathered, Tensor):
            raise TypeError(f"all_gather gave {type(gathered).__name__}")
        return gathered.movedim(-2, 0).flatten(1)

    def _log_step(self, estimate: Estimate) -> None:
        self.inner_steps.add_(estimate.inner_steps)
        loss = estimate.losses.mean()
        self.log("outer_loss", loss, prog_bar=True)
        self.log("inner_steps", self.inner_steps.float())
        for logger in self.loggers:  # self.log would repeat it at the steps of other families
            logger.log_metrics({f"outer_loss/{self._family}": float(loss)}, step=self.global_step)

    def validation_step(self, batch: HeldOutTask, batch_idx: int) -> None:
        """Scores the policy on a held-out task."""
        score = batch.score(self.policy, self.anytime, self.device)
        self._step_scores.append((batch.name, score))

    def on_validation_epoch_end(self) -> None:
        """Logs the scores, and writes `policy.safetensors`, and `best.safetensors` at a new best.

        Their support is learned when the training ends, since it takes a minute of inner runs.
        """
        scores, self._step_scores = self._step_scores, []
        if not scores:
            return
        for name, score in scores:
            self.log(f"heldout/{name}/median", score.median)
            self.log(f"heldout/{name}/worst", score.worst)
        total = torch.stack([score.total for _, score in scores]).mean()
        self.log("heldout", total, prog_bar=True)
        if self.trainer.sanity_checking:
            return
        folder = self._folder()
        policy = deepcopy(self.policy)
        policy.card = {
            "seed": str(self.seed),
            "meta_steps": str(self._meta_steps + self.trainer.global_step),
            "inner_steps": str(int(self.inner_steps)),
            "heldout": f"{float(total):.4f}",
        }
        self._scored["policy"] = policy
        if total < self.best_score:
            self.best_score.copy_(total)
            self._scored["best"] = policy
        self._write(folder)

    def _write(self, folder: Path) -> None:
        if self.trainer.is_global_zero:
            for name, policy in self._scored.items():
                policy.save(folder / f"{name}.safetensors")

    def _folder(self) -> Path:
        """Returns the folder of the policies; collective, as `log_dir` is."""
        return Path(self.trainer.log_dir or self.trainer.default_root_dir)

    def on_train_end(self) -> None:
        """Learns the support of the written policies, and writes them again.

        After an interruption the best policy may be from before it, and its first file in another folder.
        """
        folder = self._folder()
        if not self.trainer.is_global_zero or self._distribution is None:
            return
        for policy in {id(policy): policy for policy in self._scored.values()}.values():
            policy.learn_support(visited_states(policy, self._distribution, self.support_batches))
        self._write(folder)


def _own_pairs(pairs: int, rank: int, ranks: int) -> slice:
    if pairs % ranks:
        raise ValueError(f"estimator.pairs={pairs} must be a multiple of the number of ranks, {ranks}")
    return slice(pairs // ranks * rank, pairs // ranks * (rank + 1))


def _starting_policy(
    anytime: bool, features: Sequence[str] | None, hidden: Sequence[int] | None, init_from: str | None, seed: int
) -> LRPolicy:
    if init_from is None:
        known = [n for n in (ANYTIME_FEATURES if anytime else FEATURES) if n not in VALIDATION_FEATURES]
        policy = LRPolicy(features or known, hidden or (64, 32), seed)
    elif hidden:
        raise ValueError(f"init_from={init_from!r} has hidden layers of its own: leave out hidden")
    else:
        policy = LRPolicy.load(init_from)
        policy = policy.widened(features) if features else policy
        policy.requires_grad_(True)
    if policy.anytime != anytime:
        read = [name for name in HORIZON_FEATURES if name in policy.features]
        raise ValueError(
            f"anytime={anytime}, and the policy reads {read or 'none'} of {', '.join(HORIZON_FEATURES)}: a policy "
            "for runs with a horizon reads one of them or more, an anytime policy none"
        )
    return policy
