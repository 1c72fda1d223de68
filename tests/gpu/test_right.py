"""What must hold on a GPU: precisions, tensor rates, compiled and captured steps, sharding, resuming, no waits."""

import copy
import os
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from benchmarks.accelerator.captured import captured
from metalr import MetaLR, MetaLRCallback
from tests.conftest import random_policy
from tests.fit import BATCHES, Module, Recorder, loader, make_trainer
from tests.in_place import InPlaceTraining
from tests.problem import batches, make_model

pytestmark = pytest.mark.gpu

STEPS = 16

OPTIMIZERS = {
    "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, fused=True),
    "adamw": lambda p, lr: torch.optim.AdamW(p, lr=lr, fused=True, capturable=p[0].is_cuda),
    "rmsprop": lambda p, lr: torch.optim.RMSprop(p, lr=lr, capturable=p[0].is_cuda),
}


class Training(InPlaceTraining):
    """A training on a device, whose rate is a tensor there or a float."""

    def __init__(self, device: torch.device, name: str = "adamw", as_tensor: bool = True, **options) -> None:
        self.device = device
        model = make_model().to(device)
        lr = torch.tensor(0.01, device=device) if as_tensor else 0.01
        optimizer = OPTIMIZERS[name](list(model.parameters()), lr)
        meta_lr = MetaLR(optimizer, 4 * STEPS, random_policy(strength=0.1), **options)
        x, y = batches(1)[0]
        super().__init__(model, optimizer, meta_lr, (x.to(device), y.to(device)))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_rates_on_the_gpu_are_those_of_the_cpu(device, name, as_tensor):
    ours = Training(device, name, as_tensor).train(batches(STEPS))
    assert ours == pytest.approx(Training(torch.device("cpu"), name, False).train(batches(STEPS)), rel=1e-2)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_fused_decision_is_the_plain_one(device, name):
    fused, plain = (Training(device, name, fused=fuse).train(batches(STEPS)) for fuse in (None, False))
    assert fused == pytest.approx(plain, rel=1e-4)


@pytest.mark.cuda_only
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_with_tensor_rates_never_waits(device, name):
    run = Training(device, name)
    run.train(batches(3))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            run.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda_only
def test_a_wait_would_be_seen(device):
    """So the test above can fail: a rate that is a float comes to the host."""
    run = Training(device, as_tensor=False)
    run.train(batches(3))
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchroniz"):
            run.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda_only
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("fuse", [None, False])
def test_a_captured_step_has_the_rates_of_ordinary_ones(device, name, fuse):
    data = batches(STEPS)
    plain = Training(device, name)
    plain.train([data[0]] * 4 + data[4:])
    run = Training(device, name, fused=fuse)
    run.load(data[0])
    replay = captured(run.step, device)
    replay()  # the capture itself runs nothing
    assert run.train(data[4:], replay) == pytest.approx(plain.rates[4:], rel=1e-3)
    assert run.meta_lr.last_step == STEPS


def test_a_compiled_model_and_optimizer(device):
    data = batches(STEPS)
    plain, run = Training(device, "sgd"), Training(device, "sgd")
    backend = "inductor" if device.type == "cuda" else "eager"
    model, update = torch.compile(run.model, backend=backend), torch.compile(run.optimizer.step, backend=backend)

    def step() -> None:
        run.optimizer.zero_grad()
        loss = F.cross_entropy(model(run.x), run.y)
        loss.backward()
        run.meta_lr.step(loss)
        update()

    assert run.train(data, step) == pytest.approx(plain.train(data), rel=1e-2)
    torch._dynamo.reset()


def test_a_run_is_resumed_exactly(device):
    whole = Training(device)
    whole.train(batches(STEPS))
    states = [copy.deepcopy(part.state_dict()) for part in (whole.model, whole.optimizer, whole.meta_lr)]
    resumed = Training(device)
    for part, state in zip((resumed.model, resumed.optimizer, resumed.meta_lr), states, strict=True):
        part.load_state_dict(state)
    more = batches(6, seed=1)
    assert resumed.train(more) == whole.train(more)[STEPS:]


class Fused(Module):
    """Trains by the fused AdamW, with a rate that is a float."""

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2, fused=True)


class Tensored(Module):
    """The same with a rate that is a tensor on the device."""

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=torch.tensor(1e-2, device=self.device), fused=True)


def fit(tmp_path, device, precision: str, module: Module, **options) -> Recorder:
    seen = Recorder(random_policy(strength=0.1))
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    make_trainer(tmp_path, seen, max_epochs=2, precision=precision, accelerator=accelerator, **options).fit(
        module, loader()
    )
    return seen


@pytest.mark.cuda_only
def test_half_precision_with_a_gradscaler_and_a_fused_optimizer(tmp_path, device):
    seen = fit(tmp_path, device, "16-mixed", Fused())
    exact = fit(tmp_path, device, "32-true", Fused())
    assert 0 < seen.controllers[0].last_step <= 2 * BATCHES  # the scaler skips the first, which overflow
    assert all(torch.isfinite(features).all() for features in seen.features)
    assert seen.rates[-1] == pytest.approx(exact.rates[-1], rel=0.5)


@pytest.mark.parametrize("made", [Fused, Tensored])
def test_bfloat16(tmp_path, device, made):
    seen, exact = (fit(tmp_path, device, precision, made()) for precision in ("bf16-mixed", "32-true"))
    assert seen.controllers[0].last_step == 2 * BATCHES
    assert [rate for (rate,) in seen.rates] == pytest.approx([rate for (rate,) in exact.rates], rel=0.3)


def test_a_fit_in_lightning_is_resumed_exactly(tmp_path, device):
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    rates = []
    for epochs in ([3], [1, 3]):
        checkpoint = None
        for number in epochs:
            callback = MetaLRCallback(random_policy(strength=0.1), total_steps=3 * BATCHES)
            trainer = make_trainer(tmp_path, callback, max_epochs=number, accelerator=accelerator)
            trainer.fit(Tensored(), loader(), ckpt_path=checkpoint)
            checkpoint = str(tmp_path / f"{number}.ckpt")
            trainer.save_checkpoint(checkpoint)
        rates.append(callback.controllers[0].last_lr)
    assert rates[0] == rates[1]


@pytest.fixture
def one_rank(device, tmp_path) -> Iterator[None]:
    """A process group of one: NCCL on a GPU."""
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("as_tensor", [False, True])
def test_fully_sharded_parameters_on_one_device(device, one_rank, as_tensor):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    data = batches(STEPS)
    plain, run = (Training(device, "adamw", as_tensor) for _ in range(2))
    mesh = init_device_mesh(device.type, (1,))
    run.model = make_model().to(device)
    fully_shard(run.model, mesh=mesh)
    lr = torch.tensor(0.01, device=device) if as_tensor else 0.01
    run.optimizer = torch.optim.AdamW(run.model.parameters(), lr=lr)
    run.meta_lr = MetaLR(run.optimizer, 4 * STEPS, random_policy(strength=0.1))
    assert run.meta_lr._sample.is_sharded
    assert run.train(data) == pytest.approx(plain.train(data), rel=1e-3)


def test_data_parallel_on_one_device(device, one_rank):
    data = batches(STEPS)
    plain, run = Training(device), Training(device)
    ids = [device.index or 0] if device.type == "cuda" else None
    run.model = torch.nn.parallel.DistributedDataParallel(run.model, device_ids=ids)
    assert run.train(data) == pytest.approx(plain.train(data), rel=1e-4)
