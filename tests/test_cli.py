"""Every YAML of the core through the real CLI, in this process."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from metalr import LRPolicy
from metalr.cli import MetaLRCLI

ROOT = Path(__file__).parents[1]
SCHEDULES = sorted(path.stem for path in (ROOT / "configs" / "schedule").glob("*.yaml"))
META = sorted(path.stem for path in (ROOT / "configs" / "meta").glob("*.yaml"))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)

    def run(command: str, *args: str) -> MetaLRCLI:
        common = [f"--trainer.logger.init_args.save_dir={tmp_path}", "--trainer.enable_progress_bar=false"]
        return MetaLRCLI(args=[command, *args, *common])

    return run


def scalars(folder: Path, tag: str) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [event.value for event in events.Scalars(tag)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_digits_with_every_schedule(run, tmp_path, schedule):
    configs = ["--config=configs/digits.yaml", f"--config=configs/schedule/{schedule}.yaml"]
    cli = run("fit", *configs, "--trainer.max_epochs=2", "--trainer.limit_train_batches=4")
    assert cli.trainer.global_step == 8
    rates = scalars(tmp_path / "digits" / "version_0", "metalr/lr" if schedule == "metalr" else "lr-SGD")
    assert len(rates) == 8
    assert len(set(rates)) == {"constant": 1, "step": 3}.get(schedule, 8)
    if schedule != "metalr":
        assert rates[0] == pytest.approx(0.1)


def test_any_fit_can_be_inspected(run, tmp_path):
    configs = [f"--config=configs/{name}.yaml" for name in ("digits", "schedule/metalr", "inspect")]
    cli = run("fit", *configs, "--trainer.max_steps=3", "--trainer.val_check_interval=3")
    assert len(scalars(Path(cli.trainer.log_dir), "contribution/loss_noise")) == 3
    assert len(scalars(Path(cli.trainer.log_dir) / "table", "val/loss")) == 1
    pictures = MetaLRCLI(args=["inspect", str(tmp_path / "digits")]).pictures
    assert [path.name for path in pictures] == ["decisions.png", "features.png", "responses.png"]


def test_a_meta_training_can_be_inspected(run, tmp_path):
    family = {"family": {"class_path": "metalr.meta.families.QuadraticTasks"}}
    data = {"components": {"q": family | {"horizons": [5, 5]}}}
    data["heldout"] = [family | {"name": "q", "total_steps": 6, "instances": 1, "rates": 2}]
    configs = ["--config=configs/meta/small.yaml", "--config=configs/inspect_meta.yaml"]
    smaller = ["--model.init_args.estimator.init_args.pairs=2", "--model.init_args.support_draws=1"]
    bounds = ["--trainer.max_steps=2", "--trainer.val_check_interval=2", "--trainer.num_sanity_val_steps=0"]
    given = [f"--data.init_args.{name}={json.dumps(value)}" for name, value in data.items()]
    cli = run("fit", *configs, *smaller, *bounds, *given)
    assert len(scalars(Path(cli.trainer.log_dir), "gradient_norm/q")) == 2
    pictures = MetaLRCLI(args=["inspect", str(tmp_path / "meta_small")]).pictures
    assert [path.name for path in pictures] == ["responses.png", "responses_over_time.png", "fixed_tasks.png"]


def test_any_fit_can_be_a_row_of_the_table(run):
    configs = [f"--config=configs/{name}.yaml" for name in ("digits", "schedule/cosine", "table")]
    cli = run("fit", *configs, "--trainer.max_steps=3", "--trainer.val_check_interval=3")
    assert len(scalars(Path(cli.trainer.log_dir) / "table", "val/loss")) == 1


def test_a_scheduler_without_an_optimizer_is_refused(run):
    scheduler = ["--lr_scheduler=metalr.schedules.HorizonLR", "--lr_scheduler.shape=cosine"]
    with pytest.raises(ValueError, match="HorizonLR without an optimizer: give optimizer, too"):
        run("fit", "--config=configs/meta/small.yaml", *scheduler, "--trainer.max_steps=1")


def test_what_was_fitted_can_be_tested_and_predicted(run, tmp_path):
    config = "--config=configs/digits.yaml"
    cli = run("fit", config, "--trainer.max_epochs=3")
    best = cli.trainer.checkpoint_callback.last_model_path
    assert Path(best).is_relative_to(tmp_path)
    tested = run("test", config, f"--ckpt_path={best}").trainer.callback_metrics
    assert float(tested["test/accuracy"]) > 0.8
    assert float(tested["test/top5"]) >= float(tested["test/accuracy"])
    run("predict", config, f"--ckpt_path={best}")


def test_the_mlp_takes_the_convnets_place(run):
    network = '--model.init_args.network={"class_path": "models.MLP", "init_args": {"hidden": [32]}}'
    cli = run("fit", "--config=configs/digits.yaml", network, "--trainer.max_steps=2")
    assert sum(p.numel() for p in cli.model.parameters()) == 64 * 32 + 32 + 32 * 10 + 10


@pytest.mark.parametrize("name", META)
def test_every_meta_training(run, tmp_path, name):
    smaller = ["--model.init_args.estimator.init_args.pairs=2", "--model.init_args.compiled=false"]
    bounds = ["--trainer.max_steps=2", "--trainer.val_check_interval=2", "--trainer.limit_val_batches=1"]
    smaller.append("--model.init_args.support_draws=1")
    if "init_from" in (ROOT / "configs" / "meta" / f"{name}.yaml").read_text():  # goes on from what another run makes
        smaller.append(f"--model.init_args.init_from={name.partition('_')[0]}")
    few = '{"m": {"family": {"class_path": "metalr.meta.families.MLPTasks"}, "horizons": [5, 5]}}'
    cli = run("fit", f"--config=configs/meta/{name}.yaml", *smaller, *bounds, f"--data.init_args.components={few}")
    policy = LRPolicy.load(Path(cli.trainer.log_dir) / "policy.safetensors")
    assert policy.anytime is ("anytime" in name)
    assert len(scalars(Path(cli.trainer.log_dir), "outer_loss/m")) == 2
    assert len(scalars(Path(cli.trainer.log_dir), "heldout")) >= 1


@pytest.mark.parametrize("name", ["default", "anytime"])
def test_a_broad_meta_training_is_annealed(run, name):
    configs = [f"--config=configs/meta/{name}_broad.yaml", "--config=configs/meta/last/anneal.yaml"]
    smaller = ["--model.init_args.estimator.init_args.pairs=2", "--model.init_args.compiled=false"]
    smaller += ["--trainer.max_steps=2", "--trainer.val_check_interval=2", "--data.init_args.heldout=[]"]
    few = '{"m": {"family": {"class_path": "metalr.meta.families.MLPTasks"}, "horizons": [5, 5]}}'
    start = f"--model.init_args.init_from={name}"
    cli = run("fit", *configs, *smaller, start, f"--data.init_args.components={few}")
    (rate,) = cli.trainer.optimizers[0].param_groups
    assert 0 < rate["lr"] < 6e-4  # its own start, on the way to zero
    assert cli.model.final_weight == {"default": 0.75, "anytime": 0.5}[name]
    assert cli.model.policy.anytime is (name == "anytime")


def test_the_whole_configuration_is_kept_beside_the_logs(run, tmp_path):
    run("fit", "--config=configs/digits.yaml", "--trainer.max_steps=1")
    kept = (tmp_path / "digits" / "version_0" / "config.yaml").read_text()
    assert "models.ImageClassifier" in kept
    assert "seed_everything: 0" in kept


def test_a_horizon_schedule_needs_an_end(run):
    configs = ["--config=configs/digits.yaml", "--config=configs/schedule/cosine.yaml"]
    with pytest.raises(ValueError, match="HorizonLR needs the length of the run"):
        run("fit", *configs, "--trainer.max_epochs=-1")


def test_shipped_weights_are_what_their_config_makes():
    """The shipped files are of the architecture and mode of the configs that made them."""
    for name in ("default", "anytime", "boosting", "boosting_anytime"):
        stored = load_file(ROOT / "metalr" / "weights" / f"{name}.safetensors").items()
        shapes = {k: tuple(v.shape) for k, v in stored if not k.startswith("support.")}
        policy = LRPolicy.load(name)
        assert policy.support.is_bounded
        assert shapes == {k: tuple(v.shape) for k, v in policy.state_dict().items()}
        assert policy.hidden == (64, 32)
        assert torch.nn.utils.parameters_to_vector(policy.parameters()).abs().max() < 100
