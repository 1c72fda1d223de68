"""Hyperparameters of inner runs, and the priors that meta-training samples them from, one for each optimizer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor


class Hyperparameters(NamedTuple):
    """Holds the hyperparameters of R runs, each of shape (R, 1).

    Attributes:
        lr: initial rate lr(0), > 0.
        beta1: SGD's, RMSprop's and Muon's momentum, or Adam's and Lion's beta 1, in [0, 1).
        beta2: Adam's and Lion's beta 2, or RMSprop's alpha, in [0, 1); SGD and Muon alone do not read it.
        coupled: weight decay added to the gradient (all but Lion and Muon), >= 0.
        decoupled: weight decay times the rate taken off the parameters (AdamW, Lion, Muon), >= 0.
        nesterov: 1 for Nesterov's momentum (SGD), else 0.
    """

    lr: Tensor
    beta1: Tensor
    beta2: Tensor
    coupled: Tensor
    decoupled: Tensor
    nesterov: Tensor

    @classmethod
    def of(cls, lr: Tensor, beta1: float = 0.0, beta2: float = 0.0) -> Hyperparameters:
        """Makes hyperparameters without decay, with the same momentum or betas for all runs, from rates (R, 1)."""
        zeros = torch.zeros_like(lr)
        return cls(lr=lr, beta1=zeros + beta1, beta2=zeros + beta2, coupled=zeros, decoupled=zeros, nesterov=zeros)

    def repeat(self, times: int) -> Hyperparameters:
        """Repeats the runs `times` times, one copy after another."""
        return Hyperparameters(*(value.repeat(times, 1) for value in self))

    def to(self, device: torch.device) -> Hyperparameters:
        """Moves them to a device."""
        return Hyperparameters(*(value.to(device) for value in self))


class HyperparameterPrior(ABC):
    """Samples the hyperparameters of one optimizer.

    Attributes:
        usual_lr: geometric centre of the initial rates.
    """

    usual_lr: float

    @abstractmethod
    def sample(self, runs: int, generator: torch.Generator, decades: float) -> Hyperparameters:
        """Samples the hyperparameters of some runs.

        Args:
            runs: R.
            generator: of all random numbers.
            decades: width of the log-uniform distribution of the initial rates about `usual_lr`.
        """

    def _rates(self, runs: int, generator: torch.Generator, decades: float) -> Tensor:
        """Samples initial rates, log-uniform over `decades` about the usual one, (R, 1)."""
        half = 10.0 ** (decades / 2)
        return _log_uniform(runs, self.usual_lr / half, self.usual_lr * half, generator)


def _log_uniform(runs: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.empty(runs, 1).uniform_(math.log(low), math.log(high), generator=generator).exp()


def _decay(runs: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Samples weight decay: zero for half of the runs, log-uniform for the others."""
    used = torch.rand(runs, 1, generator=generator) < 0.5
    return torch.where(used, _log_uniform(runs, low, high, generator), 0.0)


class SGDPrior(HyperparameterPrior):
    """Samples momentum: 0.9 in half of the runs, 0 in an eighth, else 1 - momentum in 0.02 to 0.5; L2 in half.

    A quarter of the runs have Nesterov's momentum.
    """

    usual_lr = 0.1

    def sample(self, runs: int, generator: torch.Generator, decades: float) -> Hyperparameters:
        """Samples rate, momentum, Nesterov's or not, and coupled decay."""
        kind = torch.rand(runs, 1, generator=generator)
        other = 1.0 - _log_uniform(runs, 0.02, 0.5, generator)
        momentum = torch.where(kind < 0.5, 0.9, torch.where(kind < 0.625, 0.0, other))
        lr = self._rates(runs, generator, decades)
        nesterov = (torch.rand(runs, 1, generator=generator) < 0.25).float()
        coupled = _decay(runs, 1e-5, 1e-2, generator)
        return Hyperparameters.of(lr)._replace(beta1=momentum, coupled=coupled, nesterov=nesterov)


class AdamPrior(HyperparameterPrior):
    """Samples betas, (0.9, 0.999) in half of the runs; L2 in a quarter, AdamW's decay in half of the others."""

    usual_lr = 1e-3

    def sample(self, runs: int, generator: torch.Generator, decades: float) -> Hyperparameters:
        """Samples rate, betas, and coupled or decoupled decay."""
        usual = torch.rand(runs, 1, generator=generator) < 0.5
        beta1 = torch.where(usual, 0.9, 1.0 - _log_uniform(runs, 0.03, 0.5, generator))
        beta2 = torch.where(usual, 0.999, 1.0 - _log_uniform(runs, 1e-3, 5e-2, generator))
        lr = self._rates(runs, generator, decades)
        is_l2 = torch.rand(runs, 1, generator=generator) < 0.25
        coupled = torch.where(is_l2, _log_uniform(runs, 1e-6, 1e-3, generator), 0.0)
        decoupled = torch.where(is_l2, 0.0, _decay(runs, 1e-3, 0.3, generator))
        return Hyperparameters.of(lr)._replace(beta1=beta1, beta2=beta2, coupled=coupled, decoupled=decoupled)


class RMSpropPrior(HyperparameterPrior):
    """Samples alpha, 0.99 in half of the runs, else other ones; momentum 0.9 in a third."""

    usual_lr = 1e-3

    def sample(self, runs: int, generator: torch.Generator, decades: float) -> Hyperparameters:
        """Samples rate, alpha and momentum."""
        usual = torch.rand(runs, 1, generator=generator) < 0.5
        alpha = torch.where(usual, 0.99, 1.0 - _log_uniform(runs, 1e-3, 0.1, generator))
        momentum = 0.9 * (torch.rand(runs, 1, generator=generator) < 0.33).float()
        return Hyperparameters.of(self._rates(runs, generator, decades))._replace(beta1=momentum, beta2=alpha)


class LionPrior(HyperparameterPrior):
    """Sets betas (0.9, 0.99); samples decay in half of the runs."""

    usual_lr = 1e-4

    def sample(self, runs: int, generator: torch.Generator, decades: float) -> Hyperparameters:
        """Samples rate and decoupled decay."""
        lr = self._rates(runs, generator, decades)
        return Hyperparameters.of(lr, 0.9, 0.99)._replace(decoupled=_decay(runs, 1e-2, 1.0, generator))


class MuonPrior(HyperparameterPrior):
    """Sets momentum 0.95; samples decay in half of the runs."""

    usual_lr = 0.02

    def sample(self, runs: int, generator: torch.Generator, decades: float) -> Hyperparameters:
        """Samples rate and decoupled decay."""
        lr = self._rates(runs, generator, decades)
        return Hyperparameters.of(lr, 0.95)._replace(decoupled=_decay(runs, 1e-3, 0.3, generator))


class MuonWithAdamWPrior(MuonPrior):
    """Sets momentum 0.95, and AdamW's beta 2 to 0.95 in half of the runs and 0.999 in the others; decay as Muon's."""

    def sample(self, runs: int, generator: torch.Generator, decades: float) -> Hyperparameters:
        """Samples rate, AdamW's beta 2 and decoupled decay."""
        hyper = super().sample(runs, generator, decades)
        short = torch.rand(runs, 1, generator=generator) < 0.5
        return hyper._replace(beta2=torch.where(short, 0.95, 0.999))


class ShrinkagePrior(HyperparameterPrior):
    """Samples the shrinkage of boosted trees, a rate alone: the parameters of the trees' growth belong to the task."""

    usual_lr = 0.1

    def sample(self, runs: int, generator: torch.Generator, decades: float) -> Hyperparameters:
        """Samples rates."""
        return Hyperparameters.of(self._rates(runs, generator, decades))


PRIORS: dict[str, HyperparameterPrior] = {
    "sgd": SGDPrior(),
    "adam": AdamPrior(),
    "rmsprop": RMSpropPrior(),
    "lion": LionPrior(),
    "muon": MuonPrior(),
    "muon_adamw": MuonWithAdamWPrior(),
    "boosting": ShrinkagePrior(),
}
"""Priors by the name of an optimizer; "boosting" is that of boosted trees."""
