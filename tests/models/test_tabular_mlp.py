"""The tabular perceptron: missing values, what is refused, and that it learns and reloads."""

import lightning as L
import pytest
import torch

from datamodules import AdultDataModule
from models import TabularMLP
from tests.real import DATA, datasets_cache, needs_data  # noqa: F401

SIZES = [9, 17, 8, 15, 7, 6, 3, 42]


class Model(TabularMLP):
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 3e-3)


def test_missing_values_have_a_place_of_their_own():
    torch.manual_seed(0)
    model = TabularMLP(2, [3, 4], hidden=[8]).eval()
    numbers, categories = (
        torch.tensor([[1.0, float("nan")], [1.0, 0.0], [1.0, 0.0]]),
        torch.tensor([[0, 1]] * 2 + [[1, 1]]),
    )
    margins = model(numbers, categories)
    assert margins.shape == (3,)
    assert margins.isfinite().all()
    assert margins[0] == margins[1] != margins[2]


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"dropout=1\.0"):
        TabularMLP(2, [3], dropout=1.0)


@needs_data
def test_one_epoch_of_adult_learns_and_reloads_the_same(tmp_path):
    data = AdultDataModule(str(DATA / "adult"))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    quiet |= {"default_root_dir": tmp_path, "enable_checkpointing": False}
    L.seed_everything(0)
    run = L.Trainer(max_epochs=1, limit_val_batches=0, **quiet)
    run.fit(Model(6, SIZES), datamodule=data)
    run.save_checkpoint(tmp_path / "mlp.ckpt")
    before = run.test(run.lightning_module, data, verbose=False)[0]
    assert before["test/auc"] > 0.88
    after = L.Trainer(**quiet).test(Model(6, SIZES), data, ckpt_path=tmp_path / "mlp.ckpt", verbose=False)[0]
    assert after == before
    with pytest.raises(ValueError, match=r"category_sizes=\[9, 2\], and the data has \[9, 17"):
        L.Trainer(**quiet).test(TabularMLP(6, [9, 2]), data, verbose=False)
