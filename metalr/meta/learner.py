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
from metalr.meta.action_es import ActionES
from metalr.meta.distribution import TaskDistribution
from metalr.meta.estimator import Episode, Estimate, GradientEstimator
from metalr.meta.heldout import HeldOutScore, HeldOutTask
from metalr.meta.visited_states import visited_states


class MetaLearner(L.LightningModule):
    """Learns a policy by evolution strategies on a distribution of tasks.

    `training_step` turns the estimated gradient into a surrogate loss whose gradient is the estimate: the inner
    product of the weights with the detached estimate. DDP, clipping, accumulation, any torch optimizer and
    checkpoints then work as for any module. Noise and tasks are drawn from (seed, step, pair), never from the
    rank: the pairs of a step are split over the ranks, and any number of ranks gives one rank's gradient.

    Args:
        anytime: meta-train a policy for runs without a horizon.
        features: names of features to read; all that go with `anytime` by default.
        hidden: widths of the policy's hidden layers, [64, 32] by default.
        estimator: of the gradient; `ActionES` by default.
        optimizer: of the policy's weights; Adam at 1e-3 by default.
        lr_scheduler: of the meta learning rate, a step each meta-step; constant by default.
        final_weight: share of the final loss in the outer loss, the rest is the run's mean; in [0, 1].
        compiled: run inner steps through torch.compile.
        init_from: a policy file or shipped name to go on from, in place of features and hidden; its steps count in
            the card.
        seed: of the policy's initial weights and of the noise.
        support_draws: draws on which the states are gathered that the policy's file says it knows.
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
        support_draws: int = 48,
    ) -> None:
        super().__init__()
        if not 0.0 <= final_weight <= 1.0:
            raise ValueError(f"final_weight={final_weight}: must be in [0, 1]")
        self.policy = _starting_policy(anytime, features, hidden, init_from, seed)
        done = self.policy.card  # of the policy that this run goes on from
        self._meta_steps = int(done.get("meta_steps", 0))
        self.anytime = anytime
        self.estimator = estimator or ActionES()
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.final_weight = final_weight
        self.compiled = compiled
        self.seed = seed
        self.support_draws = support_draws
        self.inner_steps: Tensor
        self.best_score: Tensor
        self.register_buffer("inner_steps", torch.tensor(int(done.get("inner_steps", 0))))
        self.register_buffer("best_score", torch.tensor(float("inf")))
        self.draws: Tensor
        self.register_buffer("draws", torch.tensor(0))
        self._episode: Episode | None = None
        self._distribution: TaskDistribution | None = None
        self._family = ""
        self._restored: list[dict[str, Any]] | None = None
        self._step_scores: list[tuple[str, HeldOutScore]] = []
        self._scored: dict[str, LRPolicy] = {}  # the last and the best, by the names of their files

    @property
    def family(self) -> str:
        """Name of the family that was drawn last; empty before the first draw."""
        return self._family

    def configure_optimizers(self) -> Any:
        """The injected optimizer, Adam at 1e-3 without one, and its scheduler."""
        optimizer = self.optimizer(self.policy.parameters())
        if self.lr_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.lr_scheduler(optimizer), "interval": "step"},
        }

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Draws are made where they are used."""
        return batch

    def training_step(self, batch: TaskDistribution, batch_idx: int) -> Tensor:
        """A piece of a draw's inner runs, or all of them, and the surrogate loss of the estimated gradient."""
        if self._episode is None:
            self._episode = self._begin(batch)
        episode = self._episode
        estimate = self.estimator.estimate(self.policy, episode)
        self._log_step(estimate)
        if episode.done:
            self._episode = None
            self.draws.add_(1)
        return parameters_to_vector(self.policy.parameters()) @ estimate.gradient

    def _begin(self, distribution: TaskDistribution) -> Episode:
        """This rank's part of the next draw."""
        self._distribution = distribution
        index, pairs = int(self.draws), self.estimator.pairs
        own = _own_pairs(pairs, self.global_rank, self.trainer.world_size)
        draw = distribution.sample(index, pairs, self.anytime)
        self._family = draw.name
        task, inner = draw.task.select(own).to(self.device), draw.inner.select(own)
        numbers = range(own.start, own.stop)
        episode = Episode(task, inner, numbers, (self.seed, index), self.final_weight, self.compiled, self._gather)
        if self._restored is not None:
            episode.load_state_dict(self._restored[self.global_rank])
            self._restored = None
        return episode

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the policies that were written, and the inner runs of all ranks where an episode is not over."""
        checkpoint["scored"] = {name: (policy.state_dict(), policy.card) for name, policy in self._scored.items()}
        if self._episode is None:
            return
        states: list[Any] = [self._episode.state_dict()]
        if self.trainer.world_size > 1:
            states = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(states, self._episode.state_dict())
        checkpoint["episode"] = states

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the written policies; the inner runs are kept until the draw is made again."""
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
        for logger in self.loggers:  # self.log would repeat it at the steps that draw other families
            logger.log_metrics({f"outer_loss/{self._family}": float(loss)}, step=self.global_step)

    def validation_step(self, batch: HeldOutTask, batch_idx: int) -> None:
        """Scores the policy on a held-out task against its reference schedule."""
        score = batch.score(self.policy, self.anytime, self.device)
        self._step_scores.append((batch.name, score))

    def on_validation_epoch_end(self) -> None:
        """Logs the scores, and writes the policy: `policy.safetensors`, and `best.safetensors` at a new best.

        Their support is gathered when the training ends: it takes a minute of inner runs.
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
        """Of the policies; asks all ranks."""
        return Path(self.trainer.log_dir or self.trainer.default_root_dir)

    def on_train_end(self) -> None:
        """Adds to the written policies the region of the states that they come to.

        After an interruption the best may be from before it, and its first file in another folder.
        """
        folder = self._folder()
        if not self.trainer.is_global_zero or self._distribution is None:
            return
        for policy in {id(policy): policy for policy in self._scored.values()}.values():
            policy.learn_support(visited_states(policy, self._distribution, self.support_draws))
        self._write(folder)


def _own_pairs(pairs: int, rank: int, ranks: int) -> slice:
    if pairs % ranks:
        raise ValueError(f"estimator.pairs={pairs} must be a multiple of the number of ranks, {ranks}")
    return slice(pairs // ranks * rank, pairs // ranks * (rank + 1))


def _starting_policy(
    anytime: bool, features: Sequence[str] | None, hidden: Sequence[int] | None, init_from: str | None, seed: int
) -> LRPolicy:
    if init_from is None:
        policy = LRPolicy(features or (ANYTIME_FEATURES if anytime else FEATURES), hidden or (64, 32), seed)
    elif features or hidden:
        raise ValueError(f"init_from={init_from!r} has features and hidden layers of its own: leave out the others")
    else:
        policy = LRPolicy.load(init_from).requires_grad_(True)
    if policy.anytime != anytime:
        read = [name for name in HORIZON_FEATURES if name in policy.features]
        raise ValueError(
            f"anytime={anytime}, and the policy reads {read or 'none'} of {', '.join(HORIZON_FEATURES)}: a policy "
            "for runs with a horizon reads one of them or more, an anytime policy none"
        )
    return policy
