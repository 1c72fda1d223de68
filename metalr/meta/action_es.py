"""ActionES: evolution strategies with noise on the policy's output."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metalr.core.policy import LRPolicy
from metalr.core.update_rule import span
from metalr.meta.estimator import Episode, Estimate, GradientEstimator, check_settings, flat_gradient, squashed
from metalr.meta.rollout import Rollout, curve_weights, rollout


@dataclass(frozen=True)
class ActionES(GradientEstimator):
    """Estimates the gradient from antithetic noise on the policy's output, instead of its weights.

    An action is one number, whereas a policy has thousands of weights. Noise is added to the output, output_t =
    policy(features_t) + sigma eps_t, with +eps in one run of a pair and -eps in the other; the chain rule through the
    policy is exact. With L_t the part of the outer loss that lies after step t,

        gradient = E[ sum_t (L_t+ - L_t-) / (2 sigma) * eps_t * d policy(features_t) / d weights ],

    the score-function estimator (REINFORCE, Williams 1992, eq. 11) of a Gaussian policy, with the other run of the
    pair as its baseline. It is unbiased for the policy with noise, including the effect of earlier actions on later
    features. `benchmarks/estimators.py` compares its variance with that of FullES, PES and NRES.

    Noise is constant over blocks of 1/`decisions` of the update rule's span, so that a long run has no more
    independent noise than a short one; within a block the gradient is spread evenly.

    Attributes:
        pairs: P, antithetic pairs of a task batch, 1 or more.
        sigma: standard deviation of the noise on the output, > 0.
        decisions: number of blocks in a span, 1 or more.
        squash: function of a pair's difference of losses, see `metalr.meta.estimator.squashed`.
    """

    pairs: int = 32
    sigma: float = 0.5
    decisions: int = 128
    squash: str = "tanh"

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_settings(self.pairs, self.sigma, self.squash)
        if self.decisions < 1:
            raise ValueError(f"decisions={self.decisions}: give 1 or more")

    def estimate(self, policy: LRPolicy, episode: Episode) -> Estimate:
        """Makes whole runs of both halves, and one backward pass through all decisions."""
        blocks = hold_blocks(episode.inner.total_steps, episode.inner.anytime, self.decisions)
        noise = episode.noise(int(blocks[-1]) + 1).T[blocks.to(episode.task.device)]  # (T, P)
        action_noise = self.sigma * torch.cat((noise, -noise), dim=1)
        runs = rollout(
            episode.task,
            episode.inner,
            policy.function(),
            copies=2,
            compiled=episode.compiled,
            record=True,
            action_noise=action_noise,
        )
        episode.done = True
        losses = runs.outer_loss(episode.final_weight).view(2, -1)
        credit = squashed(loss_to_go(runs, episode.final_weight), losses[0] - losses[1], self.squash)
        lengths = blocks.bincount()[blocks].to(credit)[:, None]
        weights = credit * noise / (2.0 * self.sigma * len(episode.task) * lengths)
        gradient = decision_gradient(policy, runs, weights)
        return Estimate(gradient, losses, losses.numel() * episode.inner.total_steps)


def hold_blocks(total_steps: int, anytime: bool, decisions: int) -> Tensor:
    """Numbers the blocks of equal noise from 0, and returns each step's block, (T,)."""
    blocks: list[int] = []
    number = 0
    while len(blocks) < total_steps:
        scale = span(len(blocks), None if anytime else total_steps)
        blocks += [number] * max(1, round(scale / decisions))
        number += 1
    return torch.tensor(blocks[:total_steps])


def loss_to_go(runs: Rollout, final_weight: float) -> Tensor:
    """Computes L_t+ - L_t-, a pair's difference in that part of the outer loss that lies after step t, (T, P)."""
    weights = curve_weights(len(runs.curve), final_weight).to(runs.curve)
    plus, minus = (weights[:, None] * runs.curve).chunk(2, dim=1)
    to_go = (plus - minus).flip(0).cumsum(0).flip(0)
    steps = torch.arange(int(runs.evaluation_steps[-1]))
    return to_go[torch.searchsorted(runs.evaluation_steps, steps, right=True).to(to_go.device)]


def decision_gradient(policy: LRPolicy, runs: Rollout, weights: Tensor) -> Tensor:
    """Differentiates sum_t weight_t * policy(features_t), mean of both runs of a pair, in the policy's weights: (n,).

    Args:
        policy: that set the rates.
        runs: of 2 P runs, with records.
        weights: of each step and pair, (T, P).
    """
    features = torch.stack([record.features for record in runs.records])  # (T, 2 P, F)
    finite = torch.stack([record.finite for record in runs.records])
    with torch.enable_grad():
        outputs = policy(features.flatten(0, 1)).view(finite.shape)
        total = 0.5 * (torch.cat((weights, weights), dim=1) * finite * outputs).sum()
        return flat_gradient(total, policy)
