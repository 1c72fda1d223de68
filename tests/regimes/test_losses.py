"""Losses of any sign: a Gaussian likelihood, an ELBO, a critic, and one that comes to zero."""

import itertools
import math

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from metalr import MetaLR, MetaLRCallback
from metalr.core.features import FEATURES
from tests.conftest import random_policy
from tests.fit import make_trainer
from tests.problem import make_model

STEPS = 60


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 4, generator=generator)
    return TensorDataset(x, x @ torch.randn(4, 1, generator=generator))


def batches_of(count: int):
    x, y = data().tensors
    for i in itertools.islice(itertools.cycle(range(0, 256, 32)), count):
        yield x[i : i + 32], y[i : i + 32]


class Gaussian(nn.Module):
    """Mean and log variance: with a good fit the negative log likelihood falls below zero."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 2)

    def loss(self, x, y):
        mean, log_variance = self.net(x).split(1, dim=1)
        return F.gaussian_nll_loss(mean, y, log_variance.exp(), full=True)


class Vae(nn.Module):
    """The negative ELBO of a linear VAE with a learned noise, per row: crosses zero as the noise falls."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 4), nn.Linear(2, 4)
        self.log_noise = nn.Parameter(torch.zeros(()))
        self.generator = torch.Generator().manual_seed(0)

    def loss(self, x, y):
        x = torch.cat((y, -y, y, 2 * y), 1) * 0.1  # of rank one: two latent dimensions are enough
        mean, log_variance = self.encoder(x).split(2, dim=1)
        z = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=self.generator)
        variance = (2 * self.log_noise).exp().expand_as(x)
        likelihood = F.gaussian_nll_loss(self.decoder(z), x, variance, full=True, reduction="none").sum(1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return (likelihood + divergence).mean()


@pytest.mark.parametrize("make", [Gaussian, Vae])
def test_a_loss_that_crosses_zero(make):
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    meta_lr, losses, features = MetaLR(optimizer, 300, random_policy(strength=0.001)), [], []
    for x, y in batches_of(300):
        optimizer.zero_grad()
        loss = model.loss(x, y)
        loss.backward()
        meta_lr.step(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
        features.append(torch.as_tensor(meta_lr._features)[0].clone())
    assert losses[0] > 0 > losses[-1]
    seen = meta_lr._decider.feature_state.seen
    assert float(torch.as_tensor(seen)) == 300  # no step was taken for one that is not finite
    trends = torch.stack(features)[50:, FEATURES.index("loss_trend_slow")]
    assert float(trends.mean()) < -0.1  # that it falls is seen, below zero too


def test_a_loss_that_comes_to_zero_and_stays():
    """A hinge loss that every example satisfies: loss and gradient are zero, and no feature is lost."""
    weight = nn.Parameter(torch.full((3,), 0.1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    meta_lr = MetaLR(optimizer, STEPS, random_policy(strength=0.01))
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = F.relu(1.0 - weight.sum()).square()
        loss = F.relu(loss - 0.01)
        loss.backward()
        meta_lr.step(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
        assert torch.isfinite(torch.as_tensor(meta_lr._features)).all()
    assert losses[-1] == 0.0
    assert float(torch.as_tensor(meta_lr._decider.feature_state.seen)) == STEPS
    assert math.isfinite(meta_lr.last_lr[0])


class WassersteinGan(L.LightningModule):
    """A critic's loss has no sign and no end; the generator takes every second batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.critic = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
        self.generator = nn.Linear(2, 4)
        self.losses: list[tuple[float, float]] = []

    def training_step(self, batch, batch_idx):
        real, _ = batch
        critic_optimizer, generator_optimizer = self.optimizers()
        fake = self.generator(torch.randn(len(real), 2))
        critic_loss = self.critic(fake.detach()).mean() - self.critic(real + 1.0).mean()
        critic_optimizer.zero_grad()
        self.manual_backward(critic_loss)
        critic_optimizer.step()
        with torch.no_grad():
            for p in self.critic.parameters():
                p.clamp_(-0.1, 0.1)
        if batch_idx % 2 == 0:
            generator_loss = -self.critic(fake).mean()
            self.toggle_optimizer(generator_optimizer)
            generator_optimizer.zero_grad()
            self.manual_backward(generator_loss)
            generator_optimizer.step()
            self.untoggle_optimizer(generator_optimizer)
            self.losses.append((float(critic_loss.detach()), float(generator_loss.detach())))

    def configure_optimizers(self):
        return [torch.optim.RMSprop(m.parameters(), lr=1e-3) for m in (self.critic, self.generator)], []


def test_a_critic_and_its_generator_have_a_horizon_each(tmp_path):
    torch.manual_seed(0)
    module, callback = WassersteinGan(), MetaLRCallback(random_policy(strength=0.1), total_steps=[32, 16])
    make_trainer(tmp_path, callback, max_epochs=4).fit(module, DataLoader(data(), batch_size=32))
    critic, generator = callback.controllers
    assert (critic.last_step, generator.last_step) == (critic.total_steps, generator.total_steps) == (32, 16)
    assert min(loss for loss, _ in module.losses) < 0
    for controller, steps in ((critic, 32), (generator, 16)):
        assert float(torch.as_tensor(controller._decider.feature_state.seen)) == steps


def test_a_horizon_for_each_optimizer_is_asked_for(tmp_path, policy):
    callback = MetaLRCallback(policy, total_steps=[4, 4, 4])
    with pytest.raises(ValueError, match=r"total_steps=\[4, 4, 4\]: this run has 2 optimizers"):
        make_trainer(tmp_path, callback).fit(WassersteinGan(), DataLoader(data(), batch_size=32))
    for bad in ([], [4, 0]):
        with pytest.raises(ValueError, match="total_steps="):
            MetaLRCallback(policy, total_steps=bad)


def test_a_maximised_objective_is_given_as_the_loss_that_falls():
    """maximize=True: the loss that the policy reads is the objective's negative, as the gradient's ascent is."""
    rates = []
    for maximize in (False, True):
        model = make_model().double()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, maximize=maximize)
        meta_lr = MetaLR(optimizer, 20, random_policy(strength=0.1))
        generator = torch.Generator().manual_seed(0)
        for _ in range(20):
            x = torch.randn(16, 8, dtype=torch.float64, generator=generator)
            loss = (model(x) - 1.0).square().mean()
            optimizer.zero_grad()
            (-loss if maximize else loss).backward()
            meta_lr.step(loss)
            optimizer.step()
        rates.append(meta_lr.last_lr[0])
    assert rates[0] == pytest.approx(rates[1], rel=1e-6)
