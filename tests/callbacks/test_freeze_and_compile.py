"""A frozen part stays as it is and the rest learns; a compiled network gives the plain one's run."""

import lightning as L
import pytest
import torch
from torch import nn

from callbacks import Compile, Freeze, MetaLRCallback
from models import ImageClassifier
from tests.conftest import random_policy


class Small(ImageClassifier):
    def __init__(self):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        super().__init__(nn.Sequential(body, nn.Linear(4 * 36, 3)), classes=3)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, weight_decay=0.1)


def fit(*callbacks):
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(12, 1, 8, 8, generator=generator), torch.arange(12) % 3
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=4)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    model = Small()
    trainer = L.Trainer(max_epochs=2, enable_model_summary=False, callbacks=list(callbacks), **quiet)
    trainer.fit(model, loader, loader)
    return model


def test_what_is_frozen_stays_and_the_rest_learns_under_the_learned_schedule():
    before = Small().state_dict()
    after = fit(Freeze(["network.0.*"]), MetaLRCallback(random_policy())).state_dict()
    same = {name: bool(torch.equal(before[name], after[name])) for name in before if name.startswith("network")}
    assert {name for name, stays in same.items() if not stays} == {"network.1.weight", "network.1.bias"}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (["network.3.*"], r"'network.3.\*' is no parameter's name; there are network.0.\*, network.1.\*"),
        (["network.*"], "freezes all of the network"),
    ],
)
def test_names_that_do_not_fit_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        fit(Freeze(parameters))
    with pytest.raises(ValueError, match="give a list"):
        Freeze("network.*")


def test_a_compiled_network_gives_the_plain_ones_run():
    plain, compiled = fit(), fit(Compile(backend="eager"))
    assert compiled._compiled_call_impl is not None
    assert plain._compiled_call_impl is None
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    for one, other in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one, other)
