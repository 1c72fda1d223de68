"""The wheel, what importing it brings along, and which way imports point."""

import ast
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def python(*args: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *args], cwd=cwd, capture_output=True, text=True, env=os.environ | env, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT), cwd=folder)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_metalr_and_its_weights_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"metalr"}
    assert {
        "metalr/weights/default.safetensors",
        "metalr/weights/anytime.safetensors",
        "metalr/weights/boosting.safetensors",
        "metalr/weights/boosting_anytime.safetensors",
        "metalr/py.typed",
    } <= set(names)


def test_the_wheel_works_beside_a_foreign_models_package(wheel, tmp_path):
    """A clean environment: the wheel, torch, and packages of the user's own with the names of our collections."""
    environment = tmp_path / "env"
    python("-m", "venv", "--without-pip", str(environment), cwd=tmp_path)
    own = next((environment / "lib").glob("python*")) / "site-packages"
    zipfile.ZipFile(wheel).extractall(own)
    (own / "torch.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")  # a path line runs no other .pth file
    for name in ("models", "callbacks", "datamodules"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("mine = True\n")
    script = (
        "import torch, metalr, models, callbacks, datamodules\n"
        "assert models.mine and callbacks.mine and datamodules.mine\n"
        "model = torch.nn.Linear(3, 1)\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "meta_lr = metalr.MetaLR(optimizer, total_steps=10)\n"
        "loss = model(torch.ones(2, 3)).square().mean(); loss.backward()\n"
        "meta_lr.step(loss); optimizer.step()\n"
        "assert metalr.MetaLRCallback is not None\n"
        "print(metalr.__file__)\n"
    )
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [environment / "bin" / "python", "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(environment)


def test_importing_metalr_brings_torch_and_nothing_heavier(tmp_path):
    heavy = (
        "lightning",
        "torchvision",
        "torchmetrics",
        "sklearn",
        "jsonargparse",
        "tensorboard",
        "transformers",
        "xgboost",
        "scipy",
        "pandas",
        "matplotlib",
    )
    script = f"import sys, metalr; print([m for m in {heavy} if m in sys.modules])"
    assert python("-c", script, cwd=tmp_path).strip() == "[]"


def imports(path: Path) -> set[str]:
    """Modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_metalr_imports_none_of_the_collections():
    for path in (ROOT / "metalr").rglob("*.py"):
        tops = {name.split(".")[0] for name in imports(path)}
        assert not tops & {"models", "datamodules", "callbacks", "benchmarks", "tests", "train"}, path


def test_controller_and_meta_do_not_stand_on_each_other():
    above = ("metalr.lightning.callback", "metalr.integrations", "metalr.cli.lightning_cli", "metalr.schedules")
    for path in (ROOT / "metalr" / "meta").rglob("*.py"):
        assert not any(name.startswith(("metalr.core.controller", *above)) for name in imports(path)), path
    for name in ("signals", "sample", "features", "law", "policy", "direction", "controller"):
        below = imports(ROOT / "metalr" / f"{name}.py")
        assert not any(module.startswith(("metalr.meta", *above)) for module in below), name
