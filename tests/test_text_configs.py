"""Each text config runs through the real CLI, on real data, with each schedule."""

import pytest

from metalr import MetaLRCallback
from tests.text import BERT, GLUE, GPT2, TINY_BERT, TINY_GPT2, datasets_cache, needs_data, small_squad  # noqa: F401
from tests.text_cli import run

SCHEDULES = ["constant", "cosine", "linear", "metalr", "step"]


@pytest.fixture(scope="module")
def squad(tmp_path_factory):
    return small_squad(tmp_path_factory.mktemp("squad"))


def _arguments(config, squad):
    name, model = (GPT2, TINY_GPT2) if "gpt2" in config else (BERT, TINY_BERT)
    data = {
        "glue": ["--data.path", GLUE, "--data.task", "wnli"],
        "squad": ["--data.path", squad],
        "gpt2": [
            *("--data.path", squad, "--data.name", "null", "--data.column", "context"),
            *("--data.separator", "null", "--data.max_length", "32"),
        ],
    }[config.partition("_")[0]]
    overrides = [part for key, value in model.items() for part in (f"--model.overrides.{key}", str(value))]
    small = ["--model.path", name, "--model.pretrained", "false", *overrides, "--data.batch_size", "4"]
    return [*data, *small, "--data.num_workers", "0"]


def _run(subcommand, folder, config, squad, *more, schedule=None):
    few = [part for kind in ("train", "val", "test", "predict") for part in (f"--trainer.limit_{kind}_batches", "2")]
    return run(subcommand, folder, config, *_arguments(config, squad), *few, *more, schedule=schedule)


CONFIGS = ["glue_bert", "glue_gpt2", "glue_minilm", "glue_minilm_lora", "squad_bert", "squad_gpt2", "gpt2_lm"]


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_two_steps(tmp_path, squad, config, schedule):
    cli = _run("fit", tmp_path, config, squad, "--trainer.max_steps", "2", schedule=schedule)
    assert cli.trainer.global_step == 2
    metric = {"glue": "val/accuracy", "squad": "val/f1", "gpt2": "val/perplexity"}[config.partition("_")[0]]
    assert metric in cli.trainer.callback_metrics
    if schedule == "linear":
        assert cli.trainer.optimizers[0].param_groups[0]["lr"] == 0.0


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize(
    ("config", "metric"),
    [("glue_bert", "loss"), ("glue_minilm_lora", "loss"), ("squad_bert", "f1"), ("gpt2_lm", "perplexity")],
)
def test_the_checkpoint_of_a_run_tests_as_it_validated(tmp_path, squad, config, metric):
    cli = _run("fit", tmp_path, config, squad, "--trainer.max_steps", "2")
    validated = float(cli.trainer.callback_metrics[f"val/{metric}"])
    checkpoint = cli.trainer.checkpoint_callback.last_model_path
    tested = _run("test", tmp_path, config, squad, "--ckpt_path", checkpoint)
    assert float(tested.trainer.callback_metrics[f"test/{metric}"]) == pytest.approx(validated, rel=1e-5)
    loaded = type(cli.model).load_from_checkpoint(checkpoint)
    assert loaded.network.config.to_dict() == cli.model.network.config.to_dict()


@pytest.mark.slow
@needs_data
def test_a_pretrained_model_is_fine_tuned_below_a_limit(tmp_path, squad):
    """By the option of docs/fine-tuning.md."""
    cli = _run("fit", tmp_path, "glue_minilm", squad, "--trainer.callbacks.max_lr=2e-4", schedule="metalr")
    (callback,) = (each for each in cli.trainer.callbacks if isinstance(each, MetaLRCallback))
    assert callback.limits.max_lr == 2e-4
    assert callback.controllers[0].last_lr[0] <= 2e-4


@pytest.mark.slow
@needs_data
def test_predict(tmp_path, squad):
    _run("predict", tmp_path, "glue_gpt2", squad, "--data.task", "rte")
