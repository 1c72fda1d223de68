"""Optimizers that call their closure several times in one step."""

import torch


class ExtraGradient(torch.optim.SGD):
    """Korpelevich 1976: a step from here with the gradient of the point that a first step leads to."""

    @torch.no_grad()
    def step(self, closure):
        closure = torch.enable_grad()(closure)
        loss = closure()
        params = [p for group in self.param_groups for p in group["params"]]
        here = [p.clone() for p in params]
        super().step()
        closure()
        for p, value in zip(params, here, strict=True):
            p.copy_(value)
        super().step()
        return loss


class ClosesTwice(torch.optim.SGD):
    """Evaluates its closure a second time for nothing, as a line search does that takes its first proposal."""

    @torch.no_grad()
    def step(self, closure):
        loss = torch.enable_grad()(closure)()
        torch.enable_grad()(closure)()
        super().step()
        return loss
