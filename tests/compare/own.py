"""A user's own train script, and the configs and schedules that the tests give it."""

from pathlib import Path

from metalr.compare import Schedule

ROOT = Path(__file__).parents[2]
SCRIPT = "from metalr.cli import MetaLRCLI\n\nif __name__ == '__main__':\n    MetaLRCLI()\n"
CONFIG = {
    "model": {"class_path": "tests.compare.problem.Line"},
    "data": {"class_path": "tests.compare.problem.Points"},
    "trainer": {
        "accelerator": "cpu",
        "max_epochs": 3,
        "log_every_n_steps": 1,
        "enable_model_summary": False,
        "callbacks": [{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}],
    },
}
SGD = {"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 1.0}}}
STEP = {"lr_scheduler": {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 6}}}
HALVED = Schedule("halved", SGD | STEP)
LEARNED = Schedule("learned", SGD | {"trainer": {"callbacks+": [{"class_path": "metalr.MetaLRCallback"}]}})
