"""Half precision, a GradScaler, and fused optimizers under it."""

import pytest
import torch
import torch.nn.functional as F

from metalr import MetaLR, MetaLRCallback
from tests.conftest import random_policy
from tests.fit import BATCHES, Module, Recorder, loader, make_trainer, scaled
from tests.problem import batches, make_model

OPTIMIZERS = {
    "sgd": lambda p, **kw: torch.optim.SGD(p, lr=0.1, momentum=0.9, **kw),
    "sgd_plain": lambda p, **kw: torch.optim.SGD(p, lr=0.1, weight_decay=0.01, **kw),
    "adam": lambda p, **kw: torch.optim.Adam(p, lr=1e-2, **kw),
    "adagrad": lambda p, **kw: torch.optim.Adagrad(p, lr=1e-2, **kw),
}


class Made(Module):
    def __init__(self, name: str, **options) -> None:
        super().__init__()
        self.make = lambda p: OPTIMIZERS[name](p, **options)

    def configure_optimizers(self):
        return self.make(self.parameters())


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
@pytest.mark.parametrize("name", ["sgd_plain", "adam"])
def test_true_precisions(tmp_path, precision, name):
    """Half-precision parameters are summed in single: nothing overflows, every step is seen."""
    seen = Recorder(random_policy(strength=0.1))
    module = Made(name, **({"eps": 1e-4} if name == "adam" else {}))
    make_trainer(tmp_path, seen, max_epochs=2, precision=precision).fit(module, loader())
    (controller,) = seen.controllers
    assert float(torch.as_tensor(controller._decider.feature_state.seen)) == controller.last_step == 2 * BATCHES
    assert all(torch.isfinite(p).all() for p in module.parameters())


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_gradscaler_shows_in_no_feature(tmp_path, name, fused):
    """Fused optimizers unscale inside their step, after the hook: the hook must not see gradients times the scale."""
    features, weights = [], []
    for scale in (1.0, 1024.0):
        seen, module = Recorder(random_policy(strength=0.1)), Made(name, fused=fused)
        make_trainer(tmp_path, seen, max_epochs=1, plugins=[scaled(scale)]).fit(module, loader())
        assert len(seen.features) == BATCHES
        features.append(torch.stack(seen.features))
        weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    assert torch.allclose(*features, atol=0.05)
    assert torch.allclose(*weights, atol=0.01)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fused_and_foreach_optimizers_have_the_rates_of_the_plain_one(tmp_path, name):
    rates = []
    for options in ({"foreach": False}, {"foreach": True}, {"fused": True}):
        seen = Recorder(random_policy(strength=0.1))
        make_trainer(tmp_path, seen, max_epochs=2).fit(Made(name, **options), loader())
        rates.append([rate for (rate,) in seen.rates])
    assert rates[1] == pytest.approx(rates[0], rel=1e-4)
    assert rates[2] == pytest.approx(rates[0], rel=1e-4)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_gradscaler_skips_is_no_step(tmp_path, policy, fused):
    """A scale that overflows half precision: the scaler halves it until it does not."""
    moved = []

    class Spy(Recorder):
        def on_train_batch_end(self, trainer, pl_module, *args, **kwargs) -> None:
            super().on_train_batch_end(trainer, pl_module, *args, **kwargs)
            now = torch.cat([p.detach().flatten() for p in pl_module.parameters()])
            moved.append(not torch.equal(now, self.last))
            self.last = now

        def on_fit_start(self, trainer, pl_module) -> None:
            super().on_fit_start(trainer, pl_module)
            self.last = torch.cat([p.detach().flatten() for p in pl_module.parameters()])

    seen = Spy(policy)
    module = Made("adam", fused=fused)
    make_trainer(tmp_path, seen, max_epochs=2, plugins=[scaled(2.0**22)]).fit(module, loader())
    steps = seen.controllers[0].last_step
    assert 0 < steps < 2 * BATCHES
    assert steps == sum(moved)
    finite = seen.controllers[0]._decider.feature_state.seen
    assert float(torch.as_tensor(finite)) == steps  # none was forgotten as not finite


@pytest.mark.parametrize("fused", [False, True])
def test_the_plain_loop_with_a_gradscaler(policy, fused):
    """`scaler.unscale_` before `meta_lr.step` is enough, whoever unscales."""
    rates = []
    for scale in (1.0, 2.0**14):
        model = make_model()
        optimizer = OPTIMIZERS["adam"](model.parameters(), fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        meta_lr = MetaLR(optimizer, 20, policy)
        for x, y in batches(20):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            meta_lr.step(loss)
            scaler.step(optimizer)
            scaler.update()
        rates.append(meta_lr.last_lr)
    assert rates[0] == rates[1]  # the scale is a power of two


def test_a_sparse_gradient_under_a_gradscaler(tmp_path, policy):
    class Sparse(Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(8, 8, sparse=True)

        def training_step(self, batch, batch_idx):
            x, y = batch
            return F.cross_entropy(self.model(x + self.embedding(x.argmax(1))), y)

    seen = MetaLRCallback(policy)
    make_trainer(tmp_path, seen, max_epochs=1, plugins=[scaled(16.0)]).fit(Sparse(), loader())
    assert seen.controllers[0].last_step == BATCHES
