"""The wheel, what importing it brings along, and which way imports point."""

import ast
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import metalr

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


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


def test_the_version_is_written_once(wheel):
    assert "version" in PROJECT["dynamic"]
    assert wheel.name == f"metalr-{metalr.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as content:
        metadata = content.read(f"metalr-{metalr.__version__}.dist-info/METADATA").decode()
    assert f"\nVersion: {metalr.__version__}\n" in metadata


@pytest.mark.slow
def test_a_checkout_works_without_an_install(tmp_path):
    """With torch and the core's other requirements, and nothing that says which version is installed."""
    script = (
        "import importlib.metadata\n"
        "def absent(name): raise importlib.metadata.PackageNotFoundError(name)\n"
        "importlib.metadata.version = absent\n"
        "import metalr; print(metalr.__version__)"
    )
    assert python("-c", script, cwd=tmp_path, PYTHONPATH=str(ROOT)).strip() == metalr.__version__


@pytest.mark.slow
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
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [environment / "bin" / "python", "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=alone,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(environment)


@pytest.mark.slow
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
    """What a file imports, anywhere in it, late and for type checking, too: modules, and names in them.

    `from metalr import cluster` imports a module by a name in another, so that both count.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: give the module's full name"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_names_that_a_file_imports_are_found(tmp_path):
    path = tmp_path / "late.py"
    path.write_text("def late():\n    from metalr import cluster\n    import tests.core\n")
    assert imports(path) == {"metalr", "metalr.cluster", "tests.core"}


LAYERS = {
    "__init__.py": {"core", "lightning"},
    "schedules.py": set(),
    "core": set(),
    "plotting": set(),
    "lightning": {"core"},
    "integrations": {"core"},
    "meta": {"core"},
    "compare": {"core", "lightning", "plotting"},
    "inspection": {"core", "lightning", "meta", "plotting"},
    "cluster": {"compare"},
    "cli": {"core", "schedules", "plotting", "lightning", "integrations", "meta", "compare", "inspection", "cluster"},
}
"""What each folder and module of metalr may import of the others."""

MODULES = sorted((ROOT / "metalr").rglob("*.py"))
assert len(MODULES) > 50


def layer(path: Path) -> str:
    return path.relative_to(ROOT / "metalr").parts[0]


def test_every_folder_of_metalr_has_its_layer_and_says_what_it_is_for():
    assert {layer(path) for path in MODULES} == set(LAYERS)
    for name in LAYERS:
        path = ROOT / "metalr" / name
        assert ast.get_docstring(ast.parse((path if path.is_file() else path / "__init__.py").read_text())), name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    """The package itself, and a class that it exports, count as what it imports."""
    for name in imports(path):
        top, _, rest = name.partition(".")
        assert top not in {*COLLECTIONS, "tests"}, name
        if top == "metalr":
            inner = rest.split(".")[0]
            needed = {inner} if {inner, f"{inner}.py"} & set(LAYERS) else LAYERS["__init__.py"]
            assert needed <= LAYERS[layer(path)] | {layer(path)}, name


COLLECTIONS = {
    "datamodules": {"metalr"},
    "models": {"datamodules", "metalr"},
    "callbacks": {"metalr"},
    "benchmarks": {"datamodules", "models", "callbacks", "metalr"},
    "train": {"datamodules", "models", "callbacks", "metalr"},
}
"""What each folder of the checkout, and `train.py`, may import of the others."""


@pytest.mark.parametrize("name", COLLECTIONS)
def test_imports_of_the_checkout_point_one_way(name):
    paths = sorted((ROOT / name).rglob("*.py")) or [ROOT / f"{name}.py"]
    for path in paths:
        tops = {each.split(".")[0] for each in imports(path)} & {*COLLECTIONS, "metalr", "tests"}
        assert tops <= COLLECTIONS[name] | {name}, path


def test_of_compare_the_command_alone_imports_the_report():
    inside = ROOT / "metalr" / "compare"
    paths = [path for path in inside.rglob("*.py") if inside / "report" not in path.parents]
    importing = [path.name for path in paths if any(n.startswith("metalr.compare.report") for n in imports(path))]
    assert importing == ["command.py"]


EXTRAS = {
    "__init__.py": (),
    "schedules.py": (),
    "core": (),
    "plotting": ("cli",),
    "lightning": ("lightning",),
    "integrations/fabric.py": ("lightning",),
    "integrations/huggingface.py": ("huggingface",),
    "integrations/xgboost.py": ("xgboost",),
    "integrations": (),
    "meta/boosting_task.py": ("xgboost",),
    "meta/families/boosted_trees.py": ("experiments",),
    "meta/families/vectors.py": ("experiments",),
    "meta/pretrain.py": ("cli",),
    "meta/ship.py": ("cli",),
    "meta": ("lightning",),
    "compare": ("cli",),
    "inspection": ("cli",),
    "cluster": ("cluster",),
    "cli": ("cli",),
}
"""The extras of pyproject.toml that a module needs beside the core's requirements: of the first entry that holds it."""

IMPORTED_AS = {"pyyaml": "yaml", "scikit-learn": "sklearn"}
"""Import names of distributions that have another."""


def packages(*extras: str) -> set[str]:
    """What the core's requirements and some extras bring, by import name."""
    requirements = list(PROJECT["dependencies"])
    for extra in extras:
        requirements += PROJECT["optional-dependencies"][extra]
    found: set[str] = set()
    for requirement in requirements:
        name, inner = re.match(r"([\w-]+)(?:\[([\w,-]+)\])?", requirement).groups()
        found |= packages(*inner.split(",")) if name == "metalr" else {IMPORTED_AS.get(name, name)}
    return found


def test_every_entry_of_the_extras_table_is_there():
    assert all((ROOT / "metalr" / name).exists() for name in EXTRAS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_module_imports_its_extra_brings(path):
    inside = path.relative_to(ROOT / "metalr")
    entry = next(name for name in EXTRAS if inside.is_relative_to(name))
    tops = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"metalr"}
    assert tops <= packages(*EXTRAS[entry])


def test_extras_that_the_texts_name_are_there():
    texts = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *MODULES, *(ROOT / "benchmarks").rglob("*.py")]
    named = {
        extra: path
        for path in texts
        for extras in re.findall(r"pip install '[^'\[]*\[([\w,-]+)\]'", path.read_text())
        for extra in extras.split(",")
    }
    assert {"lightning", "huggingface", "xgboost", "cluster", "all"} <= set(named)
    for extra, path in named.items():
        assert extra in PROJECT["optional-dependencies"], f"{path}: {extra}"


def test_no_test_imports_a_test_module():
    paths = list((ROOT / "tests").rglob("*.py"))
    assert len(paths) > 50
    for path in paths:
        for name in imports(path):
            assert not (name.startswith("tests.") and ".test_" in name), f"{path}: {name}"
