import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.func import vmap

from metalr import LRPolicy
from metalr.meta import Component, HeldOutTask, InnerTraining, NetworkTask, TaskDistribution, rollout
from metalr.meta.architectures import IGNORED, MLP, ConvNet, Transformer, _augmented, _product, cross_entropy
from metalr.meta.compilation import compiled_folder
from metalr.meta.families import (
    AugmentedImageTasks,
    AutoencoderTasks,
    ConvNetTasks,
    DropoutTasks,
    FineTuningTasks,
    LargeBatchTasks,
    MaskedTransformerTasks,
    MLPTasks,
    QuadraticTasks,
    RecurrentTasks,
    RegressionTasks,
    SentenceTasks,
    TabularTasks,
    TransformerTasks,
)
from metalr.meta.hyperparameters import PRIORS, Hyperparameters
from metalr.meta.optimizers import MuonWithAdamW, orthogonalised
from metalr.meta.recurrent import Recurrent
from metalr.meta.rollout import LOG_RATIO_RANGE

FAMILIES = [
    MLPTasks,
    DropoutTasks,
    MaskedTransformerTasks,
    FineTuningTasks,
    AutoencoderTasks,
    ConvNetTasks,
    AugmentedImageTasks,
    TransformerTasks,
    SentenceTasks,
    TabularTasks,
    QuadraticTasks,
    RecurrentTasks,
    RegressionTasks,
    LargeBatchTasks,
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_network_of_the_pool_has_a_finite_loss_and_gradient(family):
    made = family(train_sizes=(40,), valid_size=20)
    for net, _ in made.pool:
        train, valid = made.data(net, 2, 40, generator())
        theta = net.initialise(2, generator()).requires_grad_()
        for split, count in ((train, 40), (valid, 20)):
            assert split.inputs.shape[:2] == split.targets.shape[:2] == (2, count)
        losses = vmap(net.flat_loss)(theta, *train.all())
        (grad,) = torch.autograd.grad(losses.sum(), theta)
        assert bool((losses > 0).all())
        assert bool(torch.isfinite(grad).all())
        assert float(grad.norm()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_tasks_can_be_learned(family):
    """From the usual rate, the reference schedule brings the validation loss down on average over instances."""
    train_size = 4096 if family is SentenceTasks else 256  # a vocabulary of 1,500 takes more than a few sentences
    task = family(train_sizes=(train_size,), valid_size=64).sample(6, generator(1))
    hyper = PRIORS["adam"].sample(6, generator(), decades=0.01)
    hyper = hyper._replace(lr=torch.full((6, 1), 1e-2))
    policy = LRPolicy()
    result = rollout(task, InnerTraining("adam", hyper, 60), policy.function())
    assert float(result.curve[-1].mean()) < -0.01


def test_the_hidden_tokens_alone_count_in_the_loss():
    family = MaskedTransformerTasks(train_sizes=(200,), valid_size=40)
    net, _ = family.pool[0]
    train, _ = family.data(net, 3, 200, generator())
    hidden = train.inputs == net.vocabulary
    assert bool((hidden == (train.targets != IGNORED)).all())
    assert int(hidden.sum(-1).min()) >= 1
    assert 0.1 < float(hidden.float().mean()) < 0.4
    assert int(train.targets[hidden].max()) < net.vocabulary
    # The other tokens do not count: with other targets there, the loss is the same.
    theta = net.initialise(3, generator())
    others = torch.where(hidden, train.targets, IGNORED)
    visible = torch.where(hidden, IGNORED, train.inputs)
    losses = [vmap(net.flat_loss)(theta, train.inputs, targets) for targets in (train.targets, others, visible)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.allclose(losses[0], losses[2], rtol=1e-3)


DROPPING = [MLP(dropout=0.25), Transformer(dropout=0.25), Transformer(task="masked", dropout=0.25)]


@pytest.mark.parametrize("net", DROPPING)
def test_dropout_takes_units_out_of_training_alone(net):
    theta = net.initialise(1, generator())[0]
    if isinstance(net, Transformer):
        inputs = torch.randint(net.vocabulary, (6, net.length + (net.task == "causal")), generator=generator())
        targets = inputs
    else:
        inputs, targets = torch.randn(6, net.inputs, generator=generator()), torch.randint(net.outputs, (6,))
    plain = replace(net, dropout=0.0)
    noise = torch.rand(6, net.noise_size, generator=generator())
    assert plain.noise_size == 0 < net.noise_size
    assert torch.equal(net.flat_loss(theta, inputs, targets), plain.flat_loss(theta, inputs, targets))
    trained = [net.flat_training_loss(theta, inputs, targets, each) for each in (noise, noise, noise.flip(0))]
    assert torch.equal(*trained[:2])
    assert not torch.equal(*trained[1:])
    assert not torch.allclose(trained[0], net.flat_loss(theta, inputs, targets), rtol=1e-5)
    if isinstance(net, MLP):  # where all units are dropped, inputs do not count; kept ones are scaled up
        dropped = [net.flat_training_loss(theta, seen, targets, 0.0 * noise) for seen in (inputs, inputs.flip(0))]
        assert torch.equal(*dropped)
        doubled = replace(net, depth=1, dropout=0.5)
        one = doubled.unflatten(doubled.initialise(1, generator())[0])
        logits = doubled.logits(one, inputs, torch.ones(6, doubled.noise_size))
        assert torch.allclose(logits, 2.0 * doubled.logits(one, inputs), atol=1e-5)


def test_augmented_images_are_mirrored_and_shifted_by_a_pixel():
    """By hand: mirrored for the first number from a half on, moved down and right for the others from two thirds."""
    net = ConvNet(side=4, widths=(4,), augmented=True)
    image = torch.arange(16.0).view(1, 4, 4, 1)
    still = torch.tensor([[0.2, 0.5, 0.5]])
    assert net.noise_size == 3
    assert torch.equal(_augmented(image, still), image)
    assert torch.equal(_augmented(image, torch.tensor([[0.5, 0.5, 0.5]])), image.flip(2))
    down = torch.tensor([[0.2, 0.1, 0.5]])  # the first three rows, below one of zeros
    assert torch.equal(_augmented(image, down)[0, :, :, 0], F.pad(image[0, :3, :, 0], (0, 0, 1, 0)))
    left = torch.tensor([[0.2, 0.5, 0.9]])
    assert torch.equal(_augmented(image, left)[0, :, :, 0], F.pad(image[0, :, 1:, 0], (0, 1)))
    theta, labels = net.initialise(1, generator())[0], torch.tensor([3])
    moved = net.flat_training_loss(theta, image, labels, down)
    assert torch.allclose(moved, net.flat_loss(theta, _augmented(image, down), labels))
    assert not torch.allclose(moved, net.flat_loss(theta, image, labels))
    plain = replace(net, augmented=False)
    assert torch.allclose(plain.flat_training_loss(theta, image, labels, down), plain.flat_loss(theta, image, labels))


def test_a_pair_of_runs_drops_the_same_units():
    """So that nothing but their rates sets them apart."""
    task = DropoutTasks(sources=["clusters"], train_sizes=(64,), valid_size=16).sample(2, generator())
    policy = LRPolicy()
    inner = InnerTraining("adam", PRIORS["adam"].sample(2, generator(), 1.0), 12)
    run = rollout(task, inner, policy.function(), copies=2)
    assert torch.equal(*run.curve.chunk(2, dim=1))
    assert torch.equal(run.curve, rollout(task, inner, policy.function(), copies=2).curve)
    other = rollout(task, replace(inner, batch_seed=1), policy.function(), copies=2)
    assert not torch.equal(run.curve, other.curve)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")
@pytest.mark.parametrize("shape", [(5, 12, 7), (3, 4, 9), (4, 1, 6)])
def test_muons_directions_are_orthogonal_and_torchs(shape):
    """Singular values within Jordan's band, and torch.optim.Muon's update to bfloat16's precision."""
    matrices = torch.randn(shape, generator=generator())
    made = orthogonalised(matrices)
    values = torch.linalg.svdvals(made)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    for matrix, own in zip(matrices, made, strict=True):
        parameter = torch.nn.Parameter(torch.zeros_like(matrix))
        parameter.grad = matrix.clone()
        torch.optim.Muon([parameter], lr=1.0, weight_decay=0.0, adjust_lr_fn=None).step()
        scale = max(1.0, shape[1] / shape[2]) ** 0.5
        assert torch.allclose(-parameter.detach(), scale * own, atol=0.03)


def test_muon_trains_the_matrices_in_the_middle_and_adamw_the_rest():
    names = ("token", "position", "qkv0", "out0", "up0", "ub0", "down0", "db0", "head")
    shapes = Transformer(layers=1).shapes
    assert tuple(shapes) == names
    chosen = MuonWithAdamW().for_tensors(shapes).orthogonal
    assert {name for name, muon in zip(names, chosen, strict=True) if muon} == {
        "position",
        "qkv0",
        "out0",
        "up0",
        "down0",
    }
    assert MuonWithAdamW().for_tensors(MLP(depth=1).shapes).orthogonal == (True, False, True, False)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_recurrent_networks_are_torchs(cell):
    net = Recurrent(vocabulary=11, length=6, width=5, layers=2, cell=cell)
    params = net.unflatten(torch.randn(net.size, generator=generator()))
    reference = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell](5, 5, num_layers=2, batch_first=True)
    for i in range(2):
        bias = torch.zeros_like(params[f"b{i}"])
        if cell == "gru":
            bias[10:] = params[f"n{i}"]  # of the new state, inside the reset
        own = {"weight_ih": params[f"x{i}"].T, "weight_hh": params[f"h{i}"].T, "bias_ih": params[f"b{i}"]}
        for name, value in (own | {"bias_hh": bias}).items():
            getattr(reference, f"{name}_l{i}").data.copy_(value)
    x = torch.randn(3, 6, 5, generator=generator(1))
    states = net.states(params, 1, net.states(params, 0, x))
    assert torch.allclose(states, reference(x)[0], atol=1e-5)


@pytest.mark.parametrize("classes", [0, 3])
def test_a_recurrent_network_predicts_tokens_or_the_class(classes):
    """Its loss on what it has to predict; a causal one does not see the token that it predicts."""
    net = Recurrent(vocabulary=11, length=6, width=5, classes=classes)
    params = net.unflatten(net.initialise(1, generator())[0])
    tokens = torch.randint(11, (4, 6 + (classes == 0)), generator=generator(1))
    targets = torch.randint(3, (4,), generator=generator(2))
    states = net.states(params, 0, params["token"][tokens if classes else tokens[:, :-1]])
    logits = (states[:, -1] if classes else states.flatten(0, 1)) @ params["head"] + params["bias"]
    expected = torch.nn.functional.cross_entropy(logits, targets if classes else tokens[:, 1:].flatten())
    assert float(net.loss(params, tokens, targets)) == pytest.approx(float(expected), rel=1e-5)


def test_the_cross_entropy_is_torchs():
    logits = 5.0 * torch.randn(40, 7, generator=generator(), dtype=torch.float64)
    logits.requires_grad_()
    targets = torch.randint(7, (40,), generator=generator())
    targets[::3] = IGNORED
    values = [f(logits, targets) for f in (cross_entropy, torch.nn.functional.cross_entropy)]
    assert float(values[0]) == pytest.approx(float(values[1]), rel=1e-9)
    gradients = [torch.autograd.grad(value, logits)[0] for value in values]
    assert torch.allclose(*gradients, atol=1e-9)


@pytest.mark.slow
def test_regression_asks_for_high_rates():
    """The best of seven rates of Adam under the reference schedule is 0.03 or 0.1 for most instances."""
    family, instances = RegressionTasks(train_sizes=(512,)), 6
    rates = torch.tensor([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0])
    best = []
    for net, batch_size in family.pool:
        train, valid = family.data(net, instances, 512, generator())
        task = NetworkTask(net, net.initialise(instances, generator()), train, valid, batch_size)
        hyper = Hyperparameters.of(rates.repeat_interleave(instances)[:, None], 0.9, 0.999)
        inner = InnerTraining("adam", hyper, 200)
        runs = rollout(task.select(torch.arange(instances).repeat(len(rates))), inner, LRPolicy().function())
        best += rates[runs.curve[-1].view(len(rates), instances).argmin(0)].tolist()
    assert sum(0.02 < rate < 0.2 for rate in best) > 0.6 * len(best)
    assert min(best) > 0.005


@pytest.mark.parametrize("columns", [1, 10, 16, 40])
def test_narrow_products_are_products(columns):
    x, weight = torch.randn(3, 20, 30, generator=generator()), torch.randn(3, 30, columns, generator=generator())
    assert torch.allclose(vmap(_product)(x, weight), x @ weight, atol=1e-5)


def test_other_units_leave_the_networks_as_functions():
    """The loss stays to rounding, the parameters do not; a run at an optimizer's rate goes another way."""
    task = MLPTasks(sources=["clusters"], train_sizes=(64,), valid_size=16).sample(3, generator())
    other = task.reparameterised(1.5, generator(1))
    losses = [vmap(t.net.flat_loss)(t.theta * t.scale, *t.valid.all()) for t in (task, other)]
    assert torch.allclose(*losses, rtol=1e-4)
    assert float((other.theta - task.theta).abs().max()) > 0.1
    assert float(other.scale.log().abs().max()) <= 1.5 + 1e-5
    inner = InnerTraining("adam", PRIORS["adam"].sample(3, generator(), 0.01), 20)
    policy = LRPolicy()
    ends = [rollout(t, inner, policy.function()).curve[-1] for t in (task, other)]
    assert not torch.allclose(*ends, atol=1e-3)


def test_a_curriculum_grows_the_horizons_and_not_those_of_later_tasks():
    components = {"q": Component(QuadraticTasks(train_sizes=(8,), valid_size=4), horizons=(10, 1000))}
    plain, grown = TaskDistribution(components), TaskDistribution(components, curriculum=100)
    horizons = [[each.sample(i, 1).inner.total_steps for i in range(-30, 130)] for each in (plain, grown)]
    early, later = slice(30, 60), [*range(30), *range(130, 160)]
    assert max(horizons[1][early]) <= 10 * 100**0.3 + 1 < max(horizons[0][early])
    assert [horizons[1][i] for i in later] == [horizons[0][i] for i in later]
    with pytest.raises(ValueError, match="curriculum=-1"):
        TaskDistribution(components, curriculum=-1)


def test_a_task_batch_depends_on_seed_and_index_alone():
    distribution = TaskDistribution({"q": Component(QuadraticTasks()), "m": Component(MLPTasks())}, seed=3)
    first, again, other = distribution.sample(5, 4), distribution.sample(5, 4), distribution.sample(6, 4)
    assert torch.equal(first.task.theta, again.task.theta)
    assert torch.equal(first.inner.hyper.lr, again.inner.hyper.lr)
    assert (first.name, first.inner.total_steps) == (again.name, again.inner.total_steps)
    assert (first.name, other.name) == (distribution.component(5), distribution.component(6))
    assert not torch.equal(first.inner.hyper.lr, other.inner.hyper.lr)


@pytest.mark.parametrize("share", [0.0, 0.75, 1.0])
def test_a_share_of_the_task_batches_knows_its_epochs_and_all_else_is_the_same(share):
    parts = {"q": Component(QuadraticTasks(), horizons=(5, 60))}
    told, untold = (TaskDistribution(parts, seed=4, epochs_known=known) for known in (share, 0.0))
    batches = [told.sample(index, 1).inner for index in range(80)]
    known = sum(inner.epochs_known for inner in batches) / 80
    assert known == share if share in (0.0, 1.0) else abs(known - share) < 0.15
    for index in range(5):
        assert batches[index].batch_seed == untold.sample(index, 1).inner.batch_seed
        assert torch.equal(batches[index].hyper.lr, untold.sample(index, 1).inner.hyper.lr)
    with pytest.raises(ValueError, match="epochs_known=1.5"):
        TaskDistribution(parts, epochs_known=1.5)


@pytest.mark.parametrize(("known", "steps"), [(True, 640 / 32), (False, 0.0)])
def test_runs_know_the_steps_of_an_epoch(known, steps):
    task = QuadraticTasks(train_sizes=(640,)).sample(2, torch.Generator().manual_seed(0))
    task = replace(task, batch_size=32)
    inner = InnerTraining("sgd", Hyperparameters.of(torch.full((2, 1), 0.1), 0.9), 10, epochs_known=known)
    assert task.start(inner, 2, False).steps_per_epoch.tolist() == 4 * [steps]


@given(seed=st.integers(0, 1000), start=st.integers(-64, 10_000), length=st.integers(1, 64))
def test_stratified_components_are_in_proportion_among_few_task_batches(seed, start, length):
    """Between any two ends the share of a component differs from its weight's by three task batches at most."""
    parts = {"q": Component(QuadraticTasks(), weight=3.0), "m": Component(MLPTasks(), weight=1.0)}
    parts |= {"r": Component(QuadraticTasks(), weight=0.5)}
    distribution = TaskDistribution(parts, seed=seed, stratified=True)
    names = [distribution.component(index) for index in range(start, start + length)]
    for name, part in parts.items():
        assert abs(names.count(name) - length * part.weight / 4.5) < 3.0


def test_strata_choose_the_component_alone():
    """All else of a task batch stays random."""
    parts = {"q": Component(QuadraticTasks(), horizons=(10, 1000))}
    plain, stratified = TaskDistribution(parts, seed=4), TaskDistribution(parts, seed=4, stratified=True)
    horizons = [stratified.horizon(index) for index in range(20)]
    assert len(set(horizons)) > 15
    assert len({stratified._choose(i)[0].random() for i in range(20)}) == 20
    assert plain.component(3) == stratified.component(3) == "q"


def test_task_batches_follow_weights_and_horizons():
    parts = {"q": Component(QuadraticTasks(), 3, (10, 20)), "m": Component(MLPTasks(), 1, (30, 40))}
    distribution = TaskDistribution(parts, decades=4.0)
    batches = [distribution.sample(i, 2) for i in range(120)]
    share = sum(batch.name == "q" for batch in batches) / len(batches)
    assert 0.6 < share < 0.9
    for i, d in enumerate(batches):
        low, high = parts[d.name].horizons
        assert low <= d.inner.total_steps == distribution.horizon(i) <= high
        usual = PRIORS[d.inner.optimizer].usual_lr
        assert bool((d.inner.hyper.lr / usual).log10().abs().le(2.001).all())


def test_a_run_that_diverges_has_a_finite_score():
    task = QuadraticTasks(train_sizes=(64,), valid_size=16).sample(2, generator())
    hyper = PRIORS["sgd"].sample(2, generator(), 0.01)._replace(lr=torch.full((2, 1), 1e6))
    policy = LRPolicy()
    result = rollout(task, InnerTraining("sgd", hyper, 30), policy.function())
    assert result.curve[-1].tolist() == [LOG_RATIO_RANGE[1]] * 2
    assert bool(torch.isfinite(result.outer_loss()).all())


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on the CPU")
def test_compiled_and_eager_steps_agree():
    task = MLPTasks(sources=["clusters"], train_sizes=(64,), valid_size=16).sample(2, generator())
    hyper = PRIORS["adam"].sample(2, generator(), 1.0)
    policy = LRPolicy()
    run = (task, InnerTraining("adam", hyper, 8), policy.function())
    eager, compiled = rollout(*run), rollout(*run, compiled=True)
    assert torch.allclose(eager.curve, compiled.curve, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on the CPU")
def test_tasks_with_few_and_many_samples_share_their_compiled_parts(tmp_path, monkeypatch):
    """In one process, and with another of the same cache, which finds them on disk."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    hyper = PRIORS["sgd"].sample(2, generator(), 1.0)
    policy, counters = LRPolicy(), torch._dynamo.utils.counters
    torch._dynamo.reset()
    compiled, found = [], []
    for samples in (64, 96):
        counters.clear()
        task = MLPTasks(sources=["clusters"], train_sizes=(samples,), valid_size=16).sample(2, generator())
        rollout(task, InnerTraining("sgd", hyper, 3), policy.function(), compiled=True)
        compiled.append(counters["stats"]["unique_graphs"])
    torch._dynamo.reset()
    counters.clear()
    rollout(task, InnerTraining("sgd", hyper, 3), policy.function(), compiled=True)
    found.append((counters["aot_autograd"]["autograd_cache_hit"], counters["aot_autograd"]["autograd_cache_miss"]))
    assert compiled[0] > 0
    assert compiled[1] == 0
    assert found[0][0] > 0
    assert found[0][1] == 0
    assert any(tmp_path.rglob("*.so"))


def test_compiled_parts_lie_in_the_users_cache_or_where_torch_looks(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiled_folder() == tmp_path / "metalr" / "compiled"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "mine"))
    assert compiled_folder() == tmp_path / "mine"


def test_a_zero_policy_scores_zero_at_its_best_rate():
    check = HeldOutTask("q", QuadraticTasks(train_sizes=(64,), valid_size=16), "sgd", 20, instances=2, rates=3)
    score = check.score(LRPolicy(), True, torch.device("cpu"))
    assert float(score.worst) >= float(score.median) >= 0.0
    single = HeldOutTask("q", check.family, "sgd", 20, instances=2, rates=1, decades=0.0)
    assert float(single.score(LRPolicy(), True, torch.device("cpu")).worst) == pytest.approx(0.0, abs=1e-5)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="weight=0"):
        Component(MLPTasks(), weight=0)
    with pytest.raises(ValueError, match="horizons"):
        Component(MLPTasks(), horizons=(20, 10))
    with pytest.raises(ValueError, match="components"):
        TaskDistribution({})
    with pytest.raises(ValueError, match="optimizers=.*out of"):
        TaskDistribution({"m": Component(MLPTasks())}, optimizers={"sdg": 1.0})
    with pytest.raises(ValueError, match="reparameterised=2"):
        TaskDistribution({"m": Component(MLPTasks())}, reparameterised=2)
    with pytest.raises(ValueError, match="ask for 2192 of the 1797 digits"):
        MLPTasks(sources=["digits"], train_sizes=[2000]).sample(1, generator())
    with pytest.raises(ValueError, match="sources"):
        MLPTasks(sources=["nope"])
