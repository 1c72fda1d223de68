"""DDP: unequal batches, unused parameters, a loss of each rank's own."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Subset

from tests.conftest import random_policy
from tests.fit import Module, Recorder, dataset, make_trainer
from tests.regimes.ranks import initialises, run_ranks

RANKS = 2


class Uneven(Module):
    """A batch's rows by turns: of 5 rows, rank 0 has 3 and rank 1 has 2. Alone, it is the mean of the ranks' means."""

    def __init__(self, idle: bool = False) -> None:
        super().__init__()
        self.idle = torch.nn.Linear(3, 3) if idle else None

    def training_step(self, batch, batch_idx):
        x, y = batch
        mine = [self.global_rank] if self.trainer.world_size > 1 else range(RANKS)
        losses = [F.cross_entropy(self.model(x[rank::RANKS]), y[rank::RANKS]) for rank in mine]
        return torch.stack(losses).mean()


def last_is_short() -> DataLoader:
    """Batches of 16 rows, and one of 5."""
    return DataLoader(Subset(dataset(), range(16 * 4 + 5)), batch_size=16)


def fit(module, folder, **options) -> Recorder:
    seen = Recorder(random_policy(strength=0.1))
    make_trainer(folder, seen, max_epochs=2, use_distributed_sampler=False, **options).fit(module, last_is_short())
    return seen


@initialises
def on_ranks(rank: int, folder, idle: bool) -> dict:
    strategy = "ddp_find_unused_parameters_true" if idle else "ddp"
    seen = fit(Uneven(idle), folder, strategy=strategy, devices=RANKS)
    return {"rates": [rate for (rate,) in seen.rates], "features": torch.cat(seen.features)}


@pytest.mark.parametrize("idle", [False, True])
def test_ranks_with_unequal_last_batches_set_one_processs_rates(tmp_path, idle):
    """To the last bit on both ranks; up to rounding those of one process."""
    first, second = run_ranks(on_ranks, RANKS, tmp_path / "ranks", tmp_path, idle)
    assert first["rates"] == second["rates"]
    assert torch.equal(first["features"], second["features"])
    alone = fit(Uneven(idle), tmp_path)
    assert first["rates"] == pytest.approx([rate for (rate,) in alone.rates], rel=1e-3)
    assert torch.allclose(first["features"], torch.cat(alone.features), atol=1e-2)
