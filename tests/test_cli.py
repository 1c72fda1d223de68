"""Every YAML of the core through the real CLI, in this process."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.selection import LAST_RUNS
from metalr import LRPolicy
from metalr.cli import MetaLRCLI
from metalr.meta.pretraining_recipes import DEFAULT
from metalr.meta.starts import VARIABLE, Starts, StartsFolder
from tests.pages import expanded

ROOT = Path(__file__).parents[1]
SCHEDULES = sorted(path.stem for path in (ROOT / "configs" / "schedule").glob("*.yaml"))
META = ROOT / "configs" / "meta"
RUNS = sorted(path.stem for path in META.glob("*.yaml") if path.stem != "base")
SHIPPED = {
    "default": {
        **{"default": 420, "default_long": 150, "default_small_data": 100, "default_pretrained": 140},
        **{"default_wide": 100, "default_wide_more": 50, "default_wide_fine": 150},
    },
    "anytime": {"anytime": 300, "anytime_broad": 300, "anytime_annealed": 50},
    "boosting": {"boosting": 120, "boosting_more": 150, "boosting_validated": 25},
    "boosting_anytime": {"boosting_anytime": 90, "boosting_anytime_more": 90},
}
"""Runs that made each shipped policy, and the meta-step of the best policy of each, which the next started from."""
NEXT = {"default_wide_long"}
"""Runs that are to go on from a shipped policy."""
FEW = (
    '--data.init_args.components={"m": {"family": {"class_path": "metalr.meta.families.MLPTasks"}, "horizons": [5, 5]}}'
)
"""A mixture of short runs in place of a config's own."""
FEW_HELDOUT = (
    '--data.init_args.heldout=[{"name": "q", "total_steps": 6, "instances": 1, "rates": 2, '
    '"family": {"class_path": "metalr.meta.families.QuadraticTasks"}}]'
)
"""One short held-out task in place of a config's own."""


def configs_of(run: str) -> list[str]:
    """The merged files of a meta-training, from the command in its own file."""
    (command,) = re.findall(r"^#   python train.py fit (--config=\S+)$", meta_file(run).read_text(), flags=re.MULTILINE)
    return expanded(command)


def meta_file(name: str) -> Path:
    return META / f"{name}.yaml"


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


@pytest.mark.slow
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


def test_a_warm_up_begins_as_low_as_the_trainers_horizon_says(run, tmp_path):
    configs = ["--config=configs/digits.yaml", "--config=configs/schedule/linear_warmup.yaml"]
    run("fit", *configs, "--lr_scheduler.warmup=0.5", "--trainer.max_epochs=2", "--trainer.limit_train_batches=4")
    rates = scalars(tmp_path / "digits" / "version_0", "lr-SGD")
    assert rates == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.075, 0.05, 0.025])


@pytest.mark.slow
def test_any_fit_can_be_inspected(run, tmp_path):
    configs = [f"--config=configs/{name}.yaml" for name in ("digits", "schedule/metalr", "inspect")]
    cli = run("fit", *configs, "--trainer.max_steps=3", "--trainer.val_check_interval=3")
    assert len(scalars(Path(cli.trainer.log_dir), "contribution/loss_noise")) == 3
    assert len(scalars(Path(cli.trainer.log_dir) / "table", "val/loss")) == 1
    pictures = MetaLRCLI(args=["inspect", str(tmp_path / "digits")]).pictures
    assert [path.name for path in pictures] == ["decisions.png", "features.png", "responses.png"]


@pytest.mark.slow
def test_a_meta_training_can_be_inspected(run, tmp_path):
    family = {"family": {"class_path": "metalr.meta.families.QuadraticTasks"}}
    data = {"components": {"q": family | {"horizons": [5, 5]}}}
    data["heldout"] = [family | {"name": "q", "total_steps": 6, "instances": 1, "rates": 2}]
    configs = ["--config=examples/meta_training.yaml", "--config=configs/inspect_meta.yaml"]
    smaller = ["--model.init_args.estimator.init_args.pairs=2", "--model.init_args.support_batches=1"]
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
        run("fit", "--config=examples/meta_training.yaml", *scheduler, "--trainer.max_steps=1")


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


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_every_meta_training(run, name):
    smaller = ["--model.init_args.estimator.init_args.pairs=2", "--model.init_args.compiled=false", FEW, FEW_HELDOUT]
    bounds = ["--trainer.max_steps=2", "--trainer.val_check_interval=2"]
    smaller.append("--model.init_args.support_batches=1")
    if "init_from" in meta_file(name).read_text():  # what another run makes
        smaller.append("--model.init_args.init_from=null")
    cli = run("fit", *configs_of(name), *smaller, *bounds)
    policy = LRPolicy.load(Path(cli.trainer.log_dir) / "policy.safetensors")
    assert policy.anytime is ("anytime" in name)
    assert len(scalars(Path(cli.trainer.log_dir), "outer_loss/m")) == 2
    assert len(scalars(Path(cli.trainer.log_dir), "heldout")) >= 1


def test_every_file_of_the_meta_trainings_is_merged_by_one_of_them():
    merged = {ROOT / config.removeprefix("--config=") for name in RUNS for config in configs_of(name)}
    assert merged == set((ROOT / "configs" / "meta").rglob("*.yaml"))
    assert {name for runs in SHIPPED.values() for name in runs} == set(RUNS) - NEXT


@pytest.mark.parametrize("name", SHIPPED)
def test_a_policys_selection_is_scored_on_the_held_out_tasks_of_its_last_run(name):
    """The benchmark names the files again that stand in the command of the run's own file."""
    assert [f"--config=configs/meta/{file}.yaml" for file in LAST_RUNS[name]] == configs_of(list(SHIPPED[name])[-1])


def test_the_page_names_the_runs_of_every_shipped_policy():
    page = (ROOT / "docs" / "meta-training.md").read_text()
    rows = re.findall(r"^\|.*\| `\w{7}` \| (\d) \| (\d+) of (\d+) \| `(\{\S+\}\.yaml)` \|$", page, flags=re.MULTILINE)
    runs = [(number, run, best) for made in SHIPPED.values() for number, (run, best) in enumerate(made.items(), 1)]
    assert len(rows) == len(runs)
    for (number, best, total, files), (expected, run, step) in zip(rows, runs, strict=True):
        assert (int(number), int(best)) == (expected, step)
        assert expanded(f"--config=configs/meta/{files}") == configs_of(run)
        assert yaml.safe_load(meta_file(run).read_text())["trainer"]["max_steps"] == int(total)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["anytime_annealed", "default_small_data"])
def test_a_later_run_has_a_rate_that_falls_to_zero_and_more_held_out_tasks(run, name):
    smaller = ["--model.init_args.estimator.init_args.pairs=2", "--model.init_args.compiled=false", FEW]
    start = "--model.init_args.init_from=null"
    cli = run("fit", *configs_of(name), *smaller, start, "--trainer.max_steps=2", "--trainer.limit_val_batches=0")
    (rate,) = cli.trainer.optimizers[0].param_groups
    assert 0 < rate["lr"] < {"anytime_annealed": 6e-4, "default_small_data": 1e-3}[name]
    assert cli.model.final_weight == {"anytime_annealed": 0.5, "default_small_data": 0.75}[name]
    assert len(cli.datamodule.heldout) == {"anytime_annealed": 15, "default_small_data": 13}[name]


def test_the_whole_configuration_is_kept_beside_the_logs(run, tmp_path):
    run("fit", "--config=configs/digits.yaml", "--trainer.max_steps=1")
    kept = (tmp_path / "digits" / "version_0" / "config.yaml").read_text()
    assert "models.ImageClassifier" in kept
    assert "seed_everything: 0" in kept


def test_a_horizon_schedule_needs_an_end(run):
    configs = ["--config=configs/digits.yaml", "--config=configs/schedule/cosine.yaml"]
    with pytest.raises(ValueError, match="HorizonLR needs the length of the run"):
        run("fit", *configs, "--trainer.max_epochs=-1")


@pytest.fixture(scope="module")
def untrained_starts(tmp_path_factory):
    """A folder with the networks of every recipe, as they are before any training: mixtures name them."""
    folder = StartsFolder(tmp_path_factory.mktemp("starts"))
    for recipe in DEFAULT:
        folder.write(Starts(recipe.name, recipe.net, torch.zeros(1, recipe.net.size), {}), recipe.describe(), {})
    return folder.path


class Made(MetaLRCLI):
    """Makes model and data of the merged files, and runs nothing."""

    def __init__(self, name: str) -> None:
        start = ["--model.init_args.init_from=null"] if "init_from" in meta_file(name).read_text() else []
        super().__init__(args=[*configs_of(name), *start], run=False)


@pytest.mark.slow
@pytest.mark.parametrize("shipped", SHIPPED)
def test_shipped_weights_are_what_their_configs_make(shipped, untrained_starts, monkeypatch):
    """Mode, architecture and seed are those of the last run, and the card's inner steps are those of its runs.

    A meta-step's inner steps are 2 * pairs * horizon, and the horizon of a task batch follows from the mixture, its
    weights, its horizons, its order, the curriculum and the seed: with any of them changed, the sums differ.
    """
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(VARIABLE, str(untrained_starts))
    policy = LRPolicy.load(shipped)
    steps = inner_steps = 0
    features = ()
    for name, best in SHIPPED[shipped].items():
        made = Made(name)
        features = made.config.model.init_args.features or features  # a later run reads what the one before does
        assert best % made.config.trainer.val_check_interval == 0
        assert best <= made.config.trainer.max_steps
        steps += best
        horizons = (made.datamodule.distribution.horizon(index) for index in range(best * made.model.task_batches))
        inner_steps += sum(2 * made.model.estimator.pairs * horizon for horizon in horizons)
    assert int(policy.card["meta_steps"]) == steps
    assert int(policy.card["inner_steps"]) == inner_steps
    assert int(policy.card["seed"]) == made.model.seed
    assert (policy.anytime, policy.features, policy.hidden) == (
        made.model.anytime,
        tuple(features),
        made.model.policy.hidden,
    )
    assert torch.nn.utils.parameters_to_vector(policy.parameters()).abs().max() < 100
    assert policy.support.is_bounded
