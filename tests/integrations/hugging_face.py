"""What the tests of Hugging Face's Trainer share: a model, a callback that notes the rates, a Trainer in order."""

import torch.nn.functional as F
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import Trainer

from metalr.integrations.huggingface import MetaLRTrainerCallback
from tests.problem import make_model


class Model(nn.Module):
    """The problem's model in the shape that a Trainer takes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = make_model()

    def forward(self, x, labels=None):
        logits = self.net(x)
        return {"loss": None if labels is None else F.cross_entropy(logits, labels), "logits": logits}


class Recorder(MetaLRTrainerCallback):
    """Notes the rates of the updates, and what was logged."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.rates: list[float] = []
        self.logged: list[float] = []

    def on_optimizer_step(self, args, state, control, **kwargs) -> None:
        self.rates.append(kwargs["optimizer"].param_groups[0]["lr"])

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if "learning_rate" in logs:
            self.logged.append(logs["learning_rate"])


class InOrder(Trainer):
    def _get_train_sampler(self, *args):
        return SequentialSampler(self.train_dataset)
