"""Parameters that are sharded over ranks: FSDP2 and tensor parallelism on gloo; how FSDP1 and DeepSpeed are refused."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from metalr import MetaLR, MetaLRCallback
from tests.conftest import random_policy
from tests.fit import Module, Recorder, Resumable, make_trainer
from tests.problem import OPTIMIZERS, batches
from tests.regimes.ranks import initialises, run_ranks

STEPS = 10
NAMES = ("sgd", "sgd_plain", "adam", "rmsprop")


def make_model(width: int = 13) -> nn.Sequential:
    """13 rows over two ranks: the shards are of unequal sizes, and of the last bias (1 row) one rank has nothing."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4), nn.ReLU(), nn.Linear(4, 1))


def fully(model):
    fully_shard(model[0])
    return fully_shard(model)


def partly(model):
    """The last layer stays whole on both ranks."""
    fully_shard(model[0])
    for layer in (model[2], model[4]):
        for p in layer.parameters():
            p.register_hook(lambda g: (dist.all_reduce(g), g / 2)[1])
    return model


def replicated(model):
    """Both dimensions of a mesh: two replicas of one shard (HSDP)."""
    return fully_shard(model, mesh=init_device_mesh("cpu", (2, 1), mesh_dim_names=("replicate", "shard")))


def tensor_parallel(model):
    """The rows of a layer, the columns of the next, of which the bias is whole on both ranks."""
    mesh = init_device_mesh("cpu", (2,))
    return parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


def train(model, name: str, rank: int, ranks: int, sample: int = 2**20) -> list[list[float]]:
    """Rates of a training on every ranks-th row of each batch."""
    optimizer = OPTIMIZERS[name](model.parameters())
    meta_lr, rates = MetaLR(optimizer, STEPS, random_policy(strength=0.1), sample=sample), []
    for x, y in batches(STEPS):
        optimizer.zero_grad()
        out = model(x[rank::ranks]).squeeze(1)
        loss = F.mse_loss(out, y[rank::ranks].float())
        loss.backward()
        mean = loss.detach().clone()
        if ranks > 1:
            dist.all_reduce(mean)
            mean /= ranks
        meta_lr.step(mean)
        optimizer.step()
        rates.append(meta_lr.last_lr)
    return rates


def shard_and_train(rank: int) -> dict:
    found = {("fully", name): train(fully(make_model()), name, rank, 2) for name in NAMES}
    for shard in (partly, replicated):
        found[shard.__name__, "adam"] = train(shard(make_model()), "adam", rank, 2)
    # Ranks of a tensor-parallel group have the same batch.
    found["tensor_parallel", "adam"] = train(tensor_parallel(make_model(12)), "adam", 0, 1)
    found["sampled", "adam"] = train(fully(make_model()), "adam", rank, 2, sample=60)
    return found


@pytest.mark.slow
def test_shards_have_the_rates_of_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr("metalr.core.sample.LEAST", 8)
    first, second = run_ranks(shard_and_train, 2, tmp_path)
    assert first == second  # to the last bit: all ranks decide alike
    for (how, name), rates in first.items():
        whole = [rate for (rate,) in train(make_model(12 if how == "tensor_parallel" else 13), name, 0, 1)]
        tolerance = 0.5 if how == "sampled" else 3e-2  # each rank sees the structure of its own rows
        assert [rate for (rate,) in rates] == pytest.approx(whole, rel=tolerance), (how, name)
    assert first["sampled", "adam"] != first["fully", "adam"]


class Sharded(Module):
    def configure_model(self) -> None:
        if not hasattr(self.model, "reshard"):
            fully_shard(self.model, mesh=self.device_mesh["data_parallel"])


@initialises
def fit_sharded(rank: int, folder, policy) -> dict:
    options = {"max_epochs": 2, "devices": 2, "use_distributed_sampler": False}

    def strategy():
        return ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)

    whole = Recorder(policy)
    checkpoint = ModelCheckpoint(folder, every_n_train_steps=5, save_top_k=-1)
    make_trainer(folder, whole, checkpoint, strategy=strategy(), **options).fit(Sharded(), Resumable())
    (path,) = folder.glob("*step=5.ckpt")
    resumed = Recorder(policy)
    trainer = make_trainer(folder, resumed, strategy=strategy(), **options)
    trainer.fit(Sharded(), Resumable(), ckpt_path=path, weights_only=False)
    return {"whole": whole.rates, "resumed": resumed.rates}


@pytest.mark.slow
def test_fsdp2_in_a_fit_has_one_processs_rates_and_resumes(tmp_path):
    policy = random_policy(strength=0.1, distances=False)  # which begin anew on a resume
    first, second = run_ranks(fit_sharded, 2, tmp_path / "ranks", tmp_path / "checkpoints", policy)
    assert first == second
    alone = Recorder(policy)
    make_trainer(tmp_path, alone, max_epochs=2).fit(Module(), Resumable())
    assert [r for (r,) in first["whole"]] == pytest.approx([r for (r,) in alone.rates], rel=1e-3)
    assert first["resumed"] == first["whole"][5:]


def test_measured_directions_of_shards_stay_out_of_the_state(tmp_path):
    """A state is written by one rank, and each one's copies differ: the first step after a resume goes without."""

    def keep(rank: int) -> dict:
        optimizer = OPTIMIZERS["rmsprop"](fully(make_model()).parameters())
        return MetaLR(optimizer, STEPS, random_policy()).state_dict()["direction"]

    assert run_ranks(keep, 2, tmp_path) == [{}, {}]


def test_meshes_apart_are_refused(tmp_path):
    def mixed(rank: int) -> str:
        from torch.distributed.tensor import DTensor, Replicate

        meshes = [init_device_mesh("cpu", (2,)), init_device_mesh("cpu", (2,))]
        parts = [dist.device_mesh.DeviceMesh("cpu", [r]) for r in (0, 1)]
        assert meshes[0] == meshes[1]
        params = [nn.Parameter(DTensor.from_local(torch.ones(2), part, [Replicate()])) for part in parts]
        try:
            MetaLR(torch.optim.SGD(params, lr=0.1, foreach=False), 10, random_policy())
        except ValueError as error:
            return str(error)
        return ""

    assert all("device meshes of which none contains" in message for message in run_ranks(mixed, 2, tmp_path))


def test_fsdp1s_parameters_are_refused(tmp_path):
    def flatten(rank: int, original: bool) -> str:
        from torch.distributed.fsdp import FullyShardedDataParallel

        model = FullyShardedDataParallel(make_model(), use_orig_params=original, device_id=torch.device("cpu"))
        try:
            MetaLR(torch.optim.SGD(model.parameters(), lr=0.1), 10, random_policy())
        except ValueError as error:
            return str(error)
        return ""

    for original in (False, True):
        (message,) = run_ranks(flatten, 1, tmp_path, original)
        assert "FullyShardedDataParallel (FSDP1)" in message
        assert "fully_shard" in message


@pytest.mark.parametrize("strategy", [FSDPStrategy, DeepSpeedStrategy])
def test_strategies_that_do_not_show_the_gradients_are_refused(strategy):
    """Not run: FSDP1 wants a GPU, and DeepSpeed is not installed."""
    trainer = SimpleNamespace(
        strategy=object.__new__(strategy), lr_scheduler_configs=[], callbacks=[], optimizers=[None]
    )
    with pytest.raises(ValueError, match=f"strategy={strategy.__name__}.*ModelParallelStrategy with fully_shard"):
        MetaLRCallback().on_fit_start(trainer, None)
