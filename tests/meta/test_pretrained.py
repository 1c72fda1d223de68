"""Trained starts: what is on disk, what the tasks sample, and that a rate that destroys costs the run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metalr.meta import InnerTraining, NetworkTask, Transformer
from metalr.meta.adapters import Adapted
from metalr.meta.families import PretrainedLanguageTasks, PretrainedSceneTasks
from metalr.meta.families.pretrained import TUNED
from metalr.meta.hyperparameters import PRIORS, Hyperparameters
from metalr.meta.languages import PARTS, Language, moods, split_words
from metalr.meta.network_runs import batch_indices
from metalr.meta.pretrain import make
from metalr.meta.pretraining_recipes import TINY, LanguageRecipe
from metalr.meta.starts import VARIABLE, StartsFolder, default_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny set, made once."""
    path = tmp_path_factory.mktemp("starts")
    make(StartsFolder(path), TINY)
    return path


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(task: NetworkTask, lr: float, steps: int) -> Tensor:
    """Validation losses after Adam with linear decay."""
    hyper = Hyperparameters.of(torch.ones(len(task), 1), 0.9, 0.999)
    runs = task.start(InnerTraining("adam", hyper, steps), copies=1, compiled=False)
    for step in range(steps):
        runs.measure()
        runs.update(torch.full((len(task),), lr * (1.0 - step / steps)))
    return runs.validate()


@pytest.mark.parametrize("family", [PretrainedLanguageTasks, PretrainedSceneTasks])
@pytest.mark.parametrize("tuned", TUNED)
def test_a_draw_depends_on_the_generator_alone_and_starts_finite(family: type, tuned: str, folder: Path) -> None:
    drawn = family(folder, tuned=[tuned])
    one, again, other = (drawn.sample(3, generator(seed)) for seed in (5, 5, 6))
    for name in ("theta", "scale", "frozen"):
        assert torch.equal(getattr(one, name), getattr(again, name))
    assert torch.equal(one.train.inputs, again.train.inputs)
    assert one.theta.shape != other.theta.shape or not torch.equal(one.theta, other.theta)
    assert one.theta.shape == (3, one.net.size)
    hyper = PRIORS["adam"].sample(3, generator(), 1.0)
    assert torch.isfinite(one.start(InnerTraining("adam", hyper, 5), 2, False).validate()).all()


@pytest.mark.slow
def test_what_pretraining_taught_cannot_be_learned_from_the_samples_and_is_lost_at_a_high_rate(folder: Path) -> None:
    family = PretrainedLanguageTasks(folder, tuned=["full"], train_sizes=(120, 120), batch_sizes=(16,))
    task = family.sample(6, generator(1))
    fresh = replace(task, theta=task.net.initialise(6, generator()), scale=torch.ones_like(task.scale))
    right = min(trained(task, lr, 100).mean() for lr in (1e-3, 3e-3))
    assert right < 0.85 * min(trained(fresh, lr, 100).mean() for lr in (3e-4, 1e-3, 3e-3, 1e-2))
    assert right < 0.85 * trained(task, 0.1, 100).mean()


def test_validation_has_other_words_than_training_of_every_kind() -> None:
    language = Language.sample(2, 96, 2, generator())
    first, second = split_words(language, 0.3, generator())
    assert not (first & second).any()
    topic, mood = torch.randint(2, (2, 200), generator=generator()), moods((2, 200), generator())
    words = [language.write(topic, mood, 8, generator(), allowed) for allowed in (first, second)]
    content = language.part < 3
    for p in range(2):
        seen, asked = (set(w[p].flatten().tolist()) & set(content[p].nonzero().flatten().tolist()) for w in words)
        assert seen
        assert asked
        assert not seen & asked


def test_feeling_by_hand() -> None:
    part = torch.tensor([[0, 1, 4, 3]])
    valence = torch.tensor([[1, -1, 0, 0]])
    grammar = torch.full((1, PARTS, PARTS), 1 / PARTS)
    language = Language(part, torch.zeros(1, 4).long(), valence, torch.ones(1, 4), grammar, 1)
    sentences = torch.tensor([[[0, 0, 3], [2, 0, 1], [2, 1, 0], [0, 2, 0]]])
    assert language.feeling(sentences).tolist() == [[2, -2, 2, 0]]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_an_adapter_is_trained_as_by_torch_with_the_rest_frozen(optimizer: str, folder: Path) -> None:
    task = PretrainedLanguageTasks(folder, tuned=["adapter"], head_gain=(1.0, 1.0)).sample(1, generator(2))
    assert isinstance(task.net, Adapted)
    net = task.net
    names = {**net.shapes, **net.frozen_shapes}
    values = net.unflatten(torch.cat((task.theta, task.frozen), 1)[0])
    params = {name: values[name].double().clone().requires_grad_(name in net.shapes) for name in names}
    own = [params[name] for name in net.shapes]
    adam = torch.optim.Adam(own, lr=0.01, betas=(0.9, 0.999))
    real = adam if optimizer == "adam" else torch.optim.SGD(own, lr=0.01, momentum=0.9)
    inner = InnerTraining(optimizer, Hyperparameters.of(torch.full((1, 1), 0.01, dtype=torch.float64), 0.9, 0.999), 6)
    double = replace(task, theta=task.theta.double(), scale=task.scale.double(), frozen=task.frozen.double())
    runs = double.start(inner, copies=1, compiled=False)
    size, samples = task.batch_size, task.train.inputs.shape[1]
    batches = batch_indices(inner, instances=1, samples=samples, batch_size=size)
    for _ in range(6):
        inputs, targets = task.train.batch(next(batches))
        merged = {name: params[name] for name in net.net.shapes}
        for name in net.adapted:
            merged[name] = params[name] + params[f"{name}.A"] @ params[f"{name}.B"]
        real.zero_grad()
        net.net.loss(merged, inputs[0], targets[0]).backward()
        norm = torch.cat([p.detach().flatten() for p in own]).norm()
        torch.testing.assert_close(runs.measure().param_norm[0], norm)
        real.step()
        runs.update(torch.full((1,), 0.01, dtype=torch.float64))
    mine = net.unflatten(torch.cat((runs.theta, double.frozen), 1)[0])
    for name in names:
        torch.testing.assert_close(mine[name], params[name].detach(), rtol=1e-5, atol=1e-8)


def test_new_adapters_leave_the_network_what_it_was() -> None:
    net = Transformer(task="classify", classes=3, norm="post")
    theta = net.initialise(2, generator())
    adapted = Adapted(net, ("head",), ("qkv0", "up0"), 2)
    own, frozen = adapted.divide(theta, generator())
    inputs, targets = torch.randint(16, (4, 12), generator=generator()), torch.tensor([0, 1, 2, 0])
    for run in range(2):
        merged = adapted.flat_loss(torch.cat((own[run], frozen[run])), inputs, targets)
        torch.testing.assert_close(merged, net.flat_loss(theta[run], inputs, targets))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"trained": ("nose",)}, "nose"),
        ({"adapted": ("head",)}, "different names"),
        ({"trained": ()}, "name a tensor"),
        ({"rank": 0}, "rank=0"),
    ],
)
def test_adapters_refuse_what_is_not_there(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Adapted(Transformer(task="classify", classes=2), **wrong)  # type: ignore[arg-type]


def test_pretraining_goes_on_where_it_was_interrupted_and_makes_the_same_again(folder: Path, tmp_path: Path) -> None:
    again = StartsFolder(tmp_path)
    make(again, TINY[:1])
    written = (tmp_path / "tiny_post.safetensors").stat().st_mtime_ns
    make(again, TINY[:2])
    assert (tmp_path / "tiny_post.safetensors").stat().st_mtime_ns == written
    assert set(again.manifest()) == {"tiny_post", "tiny_conv"}
    assert torch.equal(again.read("tiny_conv").theta, StartsFolder(folder).read("tiny_conv").theta)
    entry = again.manifest()["tiny_post"]
    assert sum(entry["loss_after"]) < 0.95 * sum(entry["loss_before"])


def test_a_damaged_file_another_version_and_no_folder_are_refused_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="python -m metalr.meta.pretrain --out"):
        PretrainedLanguageTasks(tmp_path / "nowhere")
    recipe = TINY[0]
    assert isinstance(recipe, LanguageRecipe)
    make(StartsFolder(tmp_path), [replace(recipe, steps=2)])
    file, manifest = tmp_path / "tiny_post.safetensors", tmp_path / "manifest.json"
    whole = bytearray(file.read_bytes())
    whole[-1] ^= 1
    file.write_bytes(whole)
    with pytest.raises(ValueError, match="damaged.*python -m metalr.meta.pretrain"):
        PretrainedLanguageTasks(tmp_path)
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"version": 99}))
    with pytest.raises(ValueError, match="version 99, needed is"):
        PretrainedLanguageTasks(tmp_path)
    manifest.write_text("{")
    with pytest.raises(ValueError, match="no manifest"):
        PretrainedLanguageTasks(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"tuned": ["nose"]}, "tuned="),
        ({"train_sizes": (10, 5)}, "train_sizes="),
        ({"head_gain": (0.0, 1.0)}, "head_gain="),
        ({"starts": ["nose"]}, "no nose"),
    ],
)
def test_families_refuse_what_cannot_be_drawn(wrong: dict[str, object], match: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=match):
        PretrainedLanguageTasks(folder, **wrong)  # type: ignore[arg-type]


def test_the_folder_comes_from_the_environment_or_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    assert default_folder() == tmp_path / "metalr" / "starts"
    monkeypatch.setenv(VARIABLE, str(tmp_path / "own"))
    assert default_folder() == tmp_path / "own"


def test_tables_of_another_size_leave_a_post_norm_network_what_it_is(folder: Path) -> None:
    starts = StartsFolder(folder).read("tiny_post")
    task = PretrainedLanguageTasks(folder, tuned=["full"]).sample(1, generator(3))
    net = task.net
    params = net.unflatten(task.theta[0] * task.scale[0])
    originals = torch.func.vmap(starts.net.unflatten)(starts.theta)
    sizes = [float((params["token"] / token[: net.shapes["token"][0]]).mean()) for token in originals["token"]]
    ratios = [(params["token"] / token[: net.shapes["token"][0]]).std() for token in originals["token"]]
    chosen = min(range(len(sizes)), key=lambda i: float(ratios[i]))
    assert 1.0 <= sizes[chosen] <= 12.0
    same = params | {name: originals[name][chosen][: len(params[name])] for name in ("token", "position")}
    inputs, targets = task.valid.inputs[0], task.valid.targets[0]
    torch.testing.assert_close(net.loss(params, inputs, targets), net.loss(same, inputs, targets), rtol=1e-2, atol=1e-3)
    assert F.cosine_similarity(params["token"].flatten(), originals["token"][chosen][:-1].flatten(), dim=0) > 0.999
