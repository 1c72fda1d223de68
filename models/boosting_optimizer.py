"""Boosting: gradient boosting as a torch optimizer, gradient descent in function space (Friedman 2001)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from metalr.core.policy import BOOSTING_POLICIES
from models.tree_ensemble import Ensemble
from models.xgboost_ranks import XGBoostRanks


class Margins(nn.Parameter):
    """Holds the margins of the training rows: the parameter that boosting descends on, with its ensemble.

    They are log-odds, (N,). A subclass with another `hessian` may have other margins, and K of a row: (N, K).

    Attributes:
        ensemble: grown on this rank's rows.
        ranks: that share the rows; None for one process.
    """

    ensemble: Ensemble | None = None
    ranks: XGBoostRanks | None = None

    @property
    def own(self) -> slice:
        """Rows of the ensemble: all of them, or this rank's."""
        return slice(None) if self.ranks is None else self.ranks.own(len(self))

    def hessian(self) -> Tensor:
        """Computes the second derivative of the rows' losses by their margins, of the ensemble's rows."""
        probability = self[self.own].sigmoid()
        return (probability * (1.0 - probability)).clamp_(min=1e-16)  # as XGBoost's own objective does

    def whole(self, part: Tensor) -> Tensor:
        """Gathers the margins of all rows from those of the ensemble's rows."""
        return part if self.ranks is None else self.ranks.whole(part.to(self.device), len(self))


class Boosting(Optimizer):
    """Grows one tree a step, with the group's "lr" as its shrinkage.

    A step moves the margins by lr times the tree that best fits, to second order, the gradient that `backward()`
    left on them: margins <- margins + lr * tree(gradient, hessian), with `Margins.hessian`. Any
    torch scheduler, LearningRateMonitor and MetaLRCallback see an optimizer like every other.

    Args:
        params: `Margins`, with the gradient of the mean loss of their rows.
        lr: shrinkage, above 0.

    Attributes:
        lr_policies: names of the shipped policies that `MetaLR` takes for it, with a horizon and anytime.
    """

    lr_policies = BOOSTING_POLICIES

    def __init__(self, params: Iterable[Margins], lr: float = 0.1) -> None:
        if not 0.0 < lr < float("inf"):
            raise ValueError(f"lr={lr}: give a finite rate above 0; 0.1 is usual")
        super().__init__(params, {"lr": lr})
        for _, parameter in self._margins():
            if not isinstance(parameter, Margins):
                raise ValueError("params: Boosting grows trees on the Margins of models.BoostedTrees alone")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Grows the next tree, and returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for rate, margins in self._margins():
            if margins.grad is None:
                continue
            if margins.ensemble is None:
                raise RuntimeError("Boosting.step() before the model's setup: its margins have no ensemble yet")
            gradient = margins.grad[margins.own] * len(margins)  # of the sum: XGBoost's regularisation counts rows
            grown = margins.ensemble.grow(gradient.cpu().numpy(), margins.hessian().cpu().numpy(), rate)
            margins.copy_(margins.whole(torch.from_numpy(grown)))
        return loss

    def _margins(self) -> list[tuple[float, Margins]]:
        return [(float(group["lr"]), p) for group in self.param_groups for p in group["params"]]
