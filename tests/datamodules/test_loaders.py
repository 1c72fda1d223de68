"""How ranks share a split."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from datamodules.loaders import even_batch_size, make_loader


def parts(count: int, ranks: int, batch_size: int, training: bool = False, epoch: int = 0) -> list[list[list[int]]]:
    """The batches of each rank."""
    rows, made = TensorDataset(torch.arange(count)), []
    for rank in range(ranks):
        trainer = SimpleNamespace(world_size=ranks, global_rank=rank)
        loader = make_loader(rows, batch_size, trainer, training, num_workers=0)
        if ranks > 1:
            loader.sampler.set_epoch(epoch)
        made.append([batch.tolist() for (batch,) in loader])
    return made


@given(count=st.integers(3, 80), ranks=st.integers(1, 3), batch_size=st.integers(1, 20))
def test_no_row_is_lost_or_there_twice_and_ranks_have_as_many_batches(count, ranks, batch_size):
    made = parts(count, ranks, batch_size)
    assert sorted(row for part in made for batch in part for row in batch) == list(range(count))
    assert len({len(part) for part in made}) == 1
    assert all(1 <= len(batch) <= batch_size + 2 or batch_size < 8 for part in made for batch in part)


@given(count=st.integers(3, 80), ranks=st.integers(1, 3), batch_size=st.integers(2, 20))
def test_in_training_each_rank_leaves_out_its_last_incomplete_batch(count, ranks, batch_size):
    made = parts(count, ranks, batch_size, training=True)
    rows = [row for part in made for batch in part for row in batch]
    assert len(rows) == len(set(rows))
    assert len({len(part) for part in made}) == 1
    if count // ranks >= batch_size:
        assert {len(batch) for part in made for batch in part} == {batch_size}
        assert count - len(rows) < ranks * batch_size + ranks
    else:
        assert sorted(rows) == list(range(count))


def test_an_epoch_shares_the_rows_out_anew():
    first, second = (parts(60, 2, 10, training=True, epoch=epoch) for epoch in (0, 1))
    assert first != second
    assert parts(60, 2, 10, training=True) == first


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="2 rows on 3 ranks"):
        parts(2, 3, 4)


def test_batches_are_as_asked_for_or_nearly():
    assert even_batch_size(1000, 2, 64) == 64
    assert even_batch_size(9, 2, 4) == 3  # 4 and 5 rows: one batch of 4, and two of 4 and 1
    assert even_batch_size(17, 2, 2) == 3
    assert even_batch_size(17, 2, 1) == 3
