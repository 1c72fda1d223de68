"""Every YAML of the image and table workloads through the real CLI, in this process, on real data."""

import pytest

from metalr.cli import MetaLRCLI
from tests.real import DATA, ROOT, datasets_cache, needs_data, small_cifar10  # noqa: F401

SCHEDULES = sorted(path.stem for path in (ROOT / "configs" / "schedule").glob("*.yaml"))
SMALL = {
    "cifar10_resnet50": ("cifar10", "--data.batch_size=4"),
    "cifar10_efficientnet_b0": ("cifar10", "--data.batch_size=4"),
    "imagenet_resnet50": ("imagenet", "--data.batch_size=2", "--data.resolution=64"),
    "imagenet_efficientnet_b0": ("imagenet", "--data.batch_size=2", "--data.resolution=64"),
    "adult_xgboost": ("adult", "--trainer.val_check_interval=1"),
    "adult_mlp": ("adult",),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Data sets by name; of CIFAR-10 the first images alone, since every fit decodes all of them."""
    return {
        "adult": DATA / "adult",
        "imagenet": DATA / "imagenet",
        "cifar10": small_cifar10(tmp_path_factory.mktemp("cifar10")),
    }


@pytest.fixture
def fit(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(config, schedule, *args):
        folder, *small = SMALL[config]
        small += [] if config.startswith("adult") else ["--data.num_workers=0"]
        paths = [f"--config={ROOT}/configs/{name}.yaml" for name in (config, f"schedule/{schedule}")]
        limits = ["--trainer.max_steps=2", "--trainer.limit_val_batches=1", "--trainer.num_sanity_val_steps=0"]
        quiet = [f"--trainer.logger.init_args.save_dir={tmp_path}", "--trainer.enable_progress_bar=false"]
        return MetaLRCLI(args=["fit", *paths, f"--data.path={folders[folder]}", *small, *limits, *quiet, *args])

    return run


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("config", SMALL)
def test_two_steps_of_each_workload_with_the_learned_schedule(fit, config):
    cli = fit(config, "metalr", "--trainer.limit_train_batches=2")
    assert cli.trainer.global_step == 2
    assert "train/loss" in cli.trainer.callback_metrics


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name != "metalr"])
@pytest.mark.parametrize("config", SMALL)
def test_every_other_schedule(fit, config, schedule):
    # The learned one has run with the network of the config: here a smaller one will do.
    smaller = ["--model.network.init_args.architecture=resnet18"] if config.endswith("resnet50") else []
    cli = fit(config, schedule, "--trainer.enable_model_summary=false", *smaller)
    assert cli.trainer.global_step == 2
    (monitor,) = [c for c in cli.trainer.callbacks if type(c).__name__ == "LearningRateMonitor"]
    assert monitor.lrs


@pytest.mark.slow
@needs_data
def test_boosted_trees_end_after_their_rounds(fit):
    cli = fit("adult_xgboost", "cosine", "--trainer.max_steps=-1", "--model.n_estimators=3")
    assert cli.trainer.global_step == 3
    assert cli.model.booster.num_boosted_rounds() == 3
    assert cli.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-6)  # cosine's end, after 3
