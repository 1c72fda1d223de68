"""The README's code runs and its commands are real."""

import re
import shlex

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from metalr.cli import MetaLRCLI
from tests.conftest import random_policy
from tests.pages import ROOT, Small, blocks

README = ROOT / "README.md"
COMMANDS = [line for block in blocks(README, "bash") for line in block.splitlines()]


def test_the_python_blocks_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    random_policy().save(tmp_path / "mine.safetensors")
    model = torch.nn.Linear(4, 3)
    names = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        "criterion": torch.nn.functional.cross_entropy,
        "loader": DataLoader(TensorDataset(torch.randn(40, 4), torch.randint(3, (40,))), batch_size=8),
        "lightning_module": Small(),
        "path_of_a_policy": tmp_path / "mine.safetensors",
    }
    assert len(blocks(README)) == 4
    for block in blocks(README):
        exec(compile(block, "README.md", "exec"), names)
    assert "step_size" in capsys.readouterr().out
    assert names["trainer"].global_step == 15


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python train.py fit")])
def test_the_train_commands_run(command, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    args = shlex.split(command)[2:]
    bounds = ["--trainer.max_steps=2", f"--trainer.logger.init_args.save_dir={tmp_path}"]
    if "meta_training" in command:
        bounds += ["--model.init_args.estimator.init_args.pairs=2", "--trainer.limit_val_batches=0"]
        few = '{"m": {"family": {"class_path": "metalr.meta.families.MLPTasks"}, "horizons": [5, 5]}}'
        bounds.append(f"--data.init_args.components={few}")
    assert MetaLRCLI(args=[*args, *bounds]).trainer.global_step == 2


def test_every_make_command_is_a_target():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make (\w+)", "\n".join(COMMANDS), flags=re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_every_file_that_the_readme_names_is_there():
    paths = re.findall(r"\]\(([^)#:]+)\)|(?:--config |python )(\S+\.(?:yaml|py))", README.read_text())
    assert len(paths) > 20
    for path in paths:
        name = next(part for part in path if part)
        assert (ROOT / name).exists(), name
