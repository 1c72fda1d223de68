"""Through the real CLI, a small network learns a small batch of real text, under cosine and with a learned rate.

How near to 0 a learned schedule comes is the policy's affair, and differs from seed to seed (docs/limits.md): its loss
has to be a tenth of an even guess's at most.
"""

import pytest

from benchmarks.grids import write_questions
from tests.text import BERT, GPT2, datasets_cache, needs_data  # noqa: F401
from tests.text_cli import run

NO_DROPOUT = {
    BERT: {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0},
    GPT2: {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0},
}
SIZES = {
    BERT: {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128},
    GPT2: {"n_layer": 2, "n_embd": 64, "n_head": 2},
}

STEPS = "150"


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Eight questions, two of them unanswerable, to train and to validate on."""
    folder = tmp_path_factory.mktemp("batch")
    write_questions(folder)
    return str(folder)


def _overfit(folder, config, path, model, schedule, *more):
    overrides = SIZES[model] | NO_DROPOUT[model]
    arguments = {"data.path": path, "model.path": model, "optimizer.lr": "1e-3", "data.num_workers": "0"}
    arguments |= {f"model.overrides.{name}": str(value) for name, value in overrides.items()}
    arguments |= {"trainer.max_epochs": STEPS, "trainer.check_val_every_n_epoch": STEPS, "trainer.max_steps": STEPS}
    options = [part for name, value in arguments.items() for part in (f"--{name}", value)]
    cli = run("fit", folder, config, "--model.pretrained", "false", *options, *more, schedule=schedule)
    return {name: float(value) for name, value in cli.trainer.callback_metrics.items()}


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("schedule", ["cosine", "metalr"])
@pytest.mark.parametrize(("config", "model"), [("squad_bert", BERT), ("squad_gpt2", GPT2)], ids=["bert", "gpt2"])
def test_squad(tmp_path, batch, config, model, schedule):
    short = ("--data.batch_size", "8", "--data.max_length", "192", "--data.stride", "64")
    figures = _overfit(tmp_path, config, batch, model, schedule, *short)
    if schedule == "cosine":
        assert figures["val/exact"] == figures["val/f1"] == 1.0
    assert figures["train/loss"] < (0.05 if schedule == "cosine" else 0.5)  # of the 5.3 of an even guess


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("schedule", ["cosine", "metalr"])
def test_gpt2(tmp_path, batch, schedule):
    text = ("--data.name", "null", "--data.column", "context", "--data.separator", "null")
    small = ("--data.max_length", "32", "--data.batch_size", "2", "--trainer.overfit_batches", "1")
    figures = _overfit(tmp_path, "gpt2_lm", batch, GPT2, schedule, *text, *small, "--optimizer.lr", "3e-3")
    assert figures["val/perplexity"] < (1.1 if schedule == "cosine" else 20.0)  # an even guess has 50,257
