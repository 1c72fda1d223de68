"""MetaLearner: meta-training as a LightningModule."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from statistics import fmean
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
from metalr.meta.aggregation import Aggregator, Mean
from metalr.meta.distribution import TaskDistribution
from metalr.meta.estimator import Episode, GradientEstimator
from metalr.meta.heldout import HeldOutScore, HeldOutTask
from metalr.meta.sharing import outcome_table, shares
from metalr.meta.visited_states import visited_states


class MetaLearner(L.LightningModule):
    """Meta-trains a policy on a distribution of tasks.

    `training_step` returns a surrogate loss whose gradient is the estimate: the inner product of the weights with the
    detached estimate. DDP, clipping, accumulation, any torch optimizer and checkpoints then work as for any module.
    It is aggregated from those of the meta-step's task batches, which are shared out over the ranks, as the held-out
    tasks are. Noise and tasks depend on (seed, task batch, pair), never on the rank, and the estimates are
    added up in the order of the task batches: any number of ranks gives the gradient of one rank.

    At each validation it writes `policy.safetensors` beside the logs, and `best.safetensors` where the held-out score
    is the lowest so far. With Lightning's `EMAWeightAveraging(use_buffers=False)` among the callbacks, what is scored
    and written is the average of the weights.

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
        features: names of the features that the policy reads; by default all that are defined with `anytime`, except
            those of the validation loss, which are learned only where the data shows one (`validated`).
        hidden: widths of the policy's hidden layers, [64, 32] by default.
        estimator: of the gradient; `ActionES` by default.
        optimizer: makes the optimizer of the policy's weights; Adam at 1e-3 by default.
        lr_scheduler: makes the schedule of its rate, stepped once a meta-step; constant by default.
        final_weight: share of the final loss in the outer loss, in [0, 1]; the rest is the run's mean loss.
        compiled: run inner steps through torch.compile; the compiled parts are kept on disk, see
            `metalr.meta.compilation`.
        init_from: policy file or shipped name to start from, in place of `hidden`; with `features`, it reads
            these in place of its own, of which none may be left out. The card counts its meta-steps, too.
        seed: of the policy's initial weights and of the noise.
        support_batches: number of task batches on which the policy's support is learned after the training, see
            `metalr.meta.visited_states`.
        task_batches: number of task batches of a meta-step, each of a family, a network, a horizon and an inner
            optimizer of its own; as many as ranks, or more.
        aggregator: makes one gradient of the task batches' estimates; their `Mean` by default. `CommonDescent` is for
            mixtures whose families ask for opposite changes.

    Raises:
        ValueError: for a final_weight out of range, no task batches, or features that do not go with `anytime` or
            `init_from`; on fit, for fewer task batches than ranks.
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
        task_batches: int = 1,
        aggregator: Aggregator | None = None,
    ) -> None:
        super().__init__()
        if task_batches < 1:
            raise ValueError(f"task_batches={task_batches}: give 1 or more")
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
        self.task_batches = task_batches
        self.aggregator = aggregator or Mean()
        self.recent: Tensor
        self.register_buffer("recent", torch.zeros(self.aggregator.window, self.policy.size))  # the newest last
        self.next_batch: Tensor
        self.register_buffer("next_batch", torch.tensor(0))  # index of the first task batch of the meta-step
        self._open: dict[int, Episode | None] = {}  # this rank's, by their places in the meta-step; None: not begun
        self._ended = True  # all ranks' task batches
        self._distribution: TaskDistribution | None = None
        self._families: list[str] = []
        self._restored: dict[int, dict[str, Any]] | None = None
        self._step_scores: list[tuple[str, HeldOutScore | None]] = []
        self._scored: dict[str, LRPolicy] = {}  # the last and the best, by the names of their files

    @property
    def family(self) -> str:
        """Name of the component of the last meta-step's task batches, "mixture" for several; empty before the first."""
        names = set(self._families)
        return "mixture" if len(names) > 1 else "".join(names)

    def __deepcopy__(self, memo: dict[int, Any]) -> MetaLearner:
        """Copies all but what makes the optimizers, which the copy shares.

        Averaging weights copies the module, and the makers that LightningCLI gives hold the CLI, with the trainer and,
        on several ranks, processes and locks that have no copy.
        """
        memo |= {id(maker): maker for maker in (self.optimizer, self.lr_scheduler)}
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__dict__.update(deepcopy(self.__getstate__(), memo))
        return copied

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
        """Makes the inner runs of the task batches, or a truncation of them, and returns the surrogate loss."""
        if self._ended:
            self._begin(batch)
        estimates, size = {}, self.policy.size
        for place, episode in list(self._open.items()):
            episode = episode or self._episode(batch, place)
            estimates[place] = self.estimator.estimate(self.policy, episode)
            self._open[place] = episode
            if episode.done:
                del self._open[place]
        table = self._sum(outcome_table(estimates, self.task_batches, size, self.device))
        gradients, losses, steps = table[:, :size], table[:, size], table[:, size + 1]
        self._restored = None
        self._log_step(losses, steps)
        if not self._sum(torch.tensor(len(self._open), device=self.device)):
            self._ended = True
            self.next_batch.add_(self.task_batches)
        window = self.aggregator.window
        seen = torch.cat((self.recent, gradients))[-max(window, self.task_batches) :]
        self.recent = seen[len(seen) - window :]
        return parameters_to_vector(self.policy.parameters()) @ self.aggregator.aggregate(seen)

    def _sum(self, tensor: Tensor) -> Tensor:
        """Adds up the tensors of all ranks."""
        total = self.trainer.strategy.reduce(tensor, reduce_op="sum")
        if not isinstance(total, Tensor):
            raise TypeError(f"the strategy's reduce gave {type(total).__name__}")
        return total

    def _begin(self, distribution: TaskDistribution) -> None:
        """Chooses this rank's part of the next task batches, by their horizons."""
        ranks, first = self.trainer.world_size, int(self.next_batch)
        if self.task_batches < ranks:
            raise ValueError(f"task_batches={self.task_batches}: give one for each of the {ranks} ranks, or more")
        self._distribution = distribution
        indices = range(first, first + self.task_batches)
        self._families = [distribution.component(index) for index in indices]
        own = shares([distribution.horizon(index) for index in indices], ranks)[self.global_rank]
        if self._restored is not None:
            own = [place for place in own if place in self._restored]  # the others had ended
        self._open = dict.fromkeys(own)
        self._ended = False

    def _episode(self, distribution: TaskDistribution, place: int) -> Episode:
        """Samples the task batch at this place of the meta-step."""
        index = int(self.next_batch) + place
        batch = distribution.sample(index, self.estimator.pairs, self.anytime)
        episode = Episode(
            task=batch.task.to(self.device),
            inner=batch.inner,
            seed=(self.seed, index),
            final_weight=self.final_weight,
            compiled=self.compiled,
        )
        if self._restored is not None:
            episode.load_state_dict(self._restored[place])
        return episode

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the written policies, and the inner runs of all ranks in the middle of an episode."""
        checkpoint["scored"] = {name: (policy.state_dict(), policy.card) for name, policy in self._scored.items()}
        own = {place: episode.state_dict() for place, episode in self._open.items() if episode is not None}
        everyone: list[Any] = [own]
        if self.trainer.world_size > 1:
            everyone = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(everyone, own)
        episodes = {place: state for part in everyone for place, state in part.items()}
        if episodes:
            checkpoint["episodes"] = episodes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the written policies; the inner runs wait until their task batch is sampled again.

        Raises:
            ValueError: for a checkpoint of an earlier version.
        """
        if not {"next_batch", "recent"} <= set(checkpoint["state_dict"]):
            raise ValueError(
                "the checkpoint is of an earlier version of MetaLearner: start a new meta-training from the policy "
                "file beside it, by init_from"
            )
        for name, (weights, card) in checkpoint.get("scored", {}).items():
            self._scored[name] = LRPolicy(self.policy.features, self.policy.hidden, card=card)
            self._scored[name].load_state_dict(weights)
        self._restored = checkpoint.get("episodes")

    def _log_step(self, losses: Tensor, steps: Tensor) -> None:
        """Logs the mean outer loss, and that of each family; a task batch that had ended before has no steps."""
        self.inner_steps.add_(steps.long().sum())
        made = steps > 0
        self.log("outer_loss", losses[made].mean(), prog_bar=True)
        self.log("inner_steps", self.inner_steps.float())
        by_family: dict[str, list[float]] = {}
        for name, loss in zip(itertools.compress(self._families, made), losses[made].tolist(), strict=True):
            by_family.setdefault(name, []).append(loss)
        means = {f"outer_loss/{name}": fmean(values) for name, values in by_family.items()}
        for logger in self.loggers:  # self.log would repeat it at the steps of other families
            logger.log_metrics(means, step=self.global_step)

    def on_validation_epoch_start(self) -> None:
        """Copies the policy that is scored: an average of the weights where a callback of Lightning averages them."""
        if not self.trainer.sanity_checking:
            self._scored["policy"] = deepcopy(self.policy)

    def validation_step(self, batch: HeldOutTask, batch_idx: int) -> None:
        """Scores the policy on a held-out task, where it is this rank's."""
        mine = batch_idx % self.trainer.world_size == self.global_rank
        score = batch.score(self.policy, self.anytime, self.device, self.compiled) if mine else None
        self._step_scores.append((batch.name, score))

    def on_validation_epoch_end(self) -> None:
        """Logs the scores, and writes `policy.safetensors`, and `best.safetensors` at a new best.

        Their support is learned when the training ends, since it takes a minute of inner runs.
        """
        scores = self._all_scores()
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
        policy = self._scored["policy"]
        policy.card = {
            "seed": str(self.seed),
            "meta_steps": str(self._meta_steps + self.trainer.global_step),
            "inner_steps": str(int(self.inner_steps)),
            "heldout": f"{float(total):.4f}",
        }
        if total < self.best_score:
            self.best_score.copy_(total)
            self._scored["best"] = policy
        self._write(folder)

    def _all_scores(self) -> list[tuple[str, HeldOutScore]]:
        """Collects the scores of all ranks."""
        own, self._step_scores = self._step_scores, []
        if not own:
            return []
        table = torch.zeros(len(own), 2, device=self.device)
        for row, (_, score) in zip(table, own, strict=True):
            if score is not None:
                row.copy_(torch.stack(score))
        return [(name, HeldOutScore(*row)) for (name, _), row in zip(own, self._sum(table), strict=True)]

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
