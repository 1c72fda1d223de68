"""Whether a rate for each layer pays: factors by group beside the global policy, constant ones and learned ones.

    OMP_NUM_THREADS=1 python -m benchmarks.layer_rates

Every network is split into its layers (embeddings, attention, feed-forward, convolutions, recurrent matrices, the head,
adapters; vectors are one group). A run's rate of group g is the global policy's, times exp(d_g):

    d_g(t) = centred(d_g(t-1) + bound_t / 2 * tanh(action_g)),    |d_g| <= 3 nats,

with a mean over groups of zero, so that a network of one group is trained as by the global policy alone. `action_g` is
the output of one small network, the same for every group, that reads the global policy's features and the group's own,
each relative to the whole: update over parameters, alignment, share of the gradient and its trend, travel, size, d_g.

1. Constant factors by kind of group (--constants), on top of the global policy: what a prior by kind would bring.
2. Three arms of one budget, all from the shipped `default`: the global policy goes on alone; with the groups' network;
   with the groups' network that also knows the group's kind. Scored on fresh instances, pairs against the first arm.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev

import torch
from jsonargparse import auto_cli
from torch import Tensor, nn
from tqdm import tqdm

from metalr import LRPolicy
from metalr.core.features import FEATURES
from metalr.core.policy import PolicyFunction
from metalr.core.update_rule import clock_table
from metalr.meta import Component, HeldOutTask, Hyperparameters, InnerTraining, TaskDistribution
from metalr.meta.action_es import hold_blocks
from metalr.meta.batched_decision import RunConstants, RunState, decide_part
from metalr.meta.distribution import mix_seed
from metalr.meta.estimator import squashed
from metalr.meta.families import (
    AutoencoderTasks,
    ConvNetTasks,
    DropoutTasks,
    MaskedTransformerTasks,
    MLPTasks,
    PretrainedLanguageTasks,
    PretrainedSceneTasks,
    RecurrentTasks,
    RegressionTasks,
    SentenceTasks,
    TabularTasks,
    TransformerTasks,
)
from metalr.meta.net import Net
from metalr.meta.rollout import LOG_RATIO_RANGE, curve_weights

Row = dict[str, str]

KINDS = ("embedding", "matrix", "vector", "head", "adapter")
OWN = ("update", "alignment", "gradient", "gradient_trend", "travel", "size", "factor")
BOUND = 3.0
ARMS = ("global", "groups_kind")


@dataclass(frozen=True)
class Groups:
    """Holds how a network's n parameters are cut: (n, G) one-hot, the number of elements (G,), kinds (G, K)."""

    names: tuple[str, ...]
    member: Tensor
    index: Tensor
    count: Tensor
    kinds: Tensor


def kind_of(name: str, shape: tuple[int, ...], last: str) -> str:
    """Tells the kind of a tensor by its name and shape."""
    if name.endswith((".A", ".B")):
        return "adapter"
    if len(shape) == 1:
        return "vector"
    if name in ("token", "position", "table"):
        return "embedding"
    return "head" if name == last else "matrix"


def groups_of(net: Net, fine: bool = False) -> Groups:
    """Cuts a network: by kind and layer, or every tensor by itself."""
    shapes = net.shapes
    matrices = [name for name, shape in shapes.items() if len(shape) > 1]
    names: dict[str, int] = {}
    index: list[Tensor] = []
    kinds: list[str] = []
    for name, shape in shapes.items():
        kind = kind_of(name, shape, matrices[-1])
        layer = "".join(c for c in name if c.isdigit())
        group = {
            "adapter": f"adapter{layer}",
            "vector": "vectors",
            "embedding": name,
            "head": "head",
        }.get(kind)
        if kind == "matrix":
            part = name.rstrip("0123456789")
            group = f"attention{layer}" if part in ("qkv", "out") else f"mlp{layer}" if part in ("up", "down") else name
        group = name if fine else str(group)
        if group not in names:
            names[group] = len(names)
            kinds.append(kind)
        index.append(torch.full((math.prod(shape),), names[group]))
    flat = torch.cat(index)
    member = torch.nn.functional.one_hot(flat, len(names)).float()
    kind_rows = torch.nn.functional.one_hot(torch.tensor([KINDS.index(k) for k in kinds]), len(KINDS)).float()
    return Groups(tuple(names), member, flat, member.sum(0), kind_rows)


class GroupNet(nn.Module):
    """Maps the global features and a group's own to its action; zero before training."""

    def __init__(self, known: int, with_kind: bool, seed: int) -> None:
        super().__init__()
        self.with_kind = with_kind
        width = known + len(OWN) + (len(KINDS) if with_kind else 0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1)
            )
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, rows: Tensor) -> Tensor:
        """Computes actions (...,) from rows (..., width)."""
        return self.layers(rows)[..., 0]


def _log(x: Tensor) -> Tensor:
    return x.clamp_min(1e-30).log()


@dataclass
class GroupedRollout:
    """Runs and their records."""

    curve: Tensor
    steps: list[int]
    initial: Tensor
    features: list[Tensor] = field(default_factory=list)
    finite: list[Tensor] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)
    factors: Tensor | None = None

    def outer_loss(self, final_weight: float) -> Tensor:
        """As `Rollout.outer_loss`."""
        return curve_weights(len(self.curve), final_weight) @ self.curve


@torch.no_grad()
def rollout(
    task,
    inner: InnerTraining,
    policy: PolicyFunction,
    *,
    group_net: GroupNet | None = None,
    constants: dict[str, float] | None = None,
    copies: int = 1,
    evaluations: int = 10,
    compiled: bool = False,
    record: bool = False,
    action_noise: Tensor | None = None,
    group_noise: Tensor | None = None,
    fine: bool = False,
) -> GroupedRollout:
    """As `metalr.meta.rollout`, with the groups' factors."""
    runs = task.start(inner, copies, compiled)
    groups = groups_of(task.net, fine)
    count = len(groups.names)
    total = copies * len(task)
    state = RunState.empty(total, task.device)
    const = RunConstants(runs.is_sgd, runs.elements, runs.initial_lr, runs.weight_structure)
    decide, table = decide_part(compiled), clock_table(inner.total_steps, inner.anytime)
    stops = sorted({max(1, round(inner.total_steps * (i + 1) / evaluations)) for i in range(evaluations)})
    initial = runs.validate()
    result = GroupedRollout(torch.empty(0), stops, initial)
    d = torch.zeros(total, count)
    if constants is not None:
        by_kind = torch.tensor([math.log(constants.get(kind, 1.0)) for kind in KINDS])
        d = (groups.kinds @ by_kind).expand(total, count).clone()
    active = group_net is not None and count > 1
    kinds = groups.kinds.expand(total, count, len(KINDS))
    size = (groups.count / groups.count.sum()).log().expand(total, count)
    fast = slow = first = None
    cos_mean = torch.zeros(total, count)
    cos_square = torch.zeros(total, count) + 1e-12
    curve = []
    zero = torch.zeros(total)
    for t in range(inner.total_steps):
        measured, row = runs.measure(), table[t]
        noise = zero if action_noise is None else action_noise[t]
        state, made = decide(policy, state, measured, const, row, noise, None)
        if active:
            grad, theta, u = runs._grad, runs.theta, runs.buffers.direction
            g2, w2, u2 = (x.square() @ groups.member for x in (grad, theta, u))
            gu = (grad * u) @ groups.member
            v2 = (theta - runs._origin).square() @ groups.member
            share = 0.5 * (_log(g2) - _log(g2.sum(1, keepdim=True)) - size)
            middle, slow_w = float(row[5]), float(row[6])
            wm, ws = 1 / min(t + 1, middle), 1 / min(t + 1, slow_w)
            cos = gu / (g2 * u2).sqrt().clamp_min(1e-30)
            cos_mean += wm * (cos - cos_mean)
            cos_square += wm * (cos.square() - cos_square)
            fast = share.clone() if fast is None else fast + wm * (share - fast)
            first = share if first is None else first
            certainty = cos_mean / (cos_square + 1e-12).sqrt()
            relative = 0.5 * (_log(u2) - _log(w2)) if t else torch.zeros_like(size)
            whole = 0.5 * (_log(u2.sum(1)) - _log(w2.sum(1)))[:, None] if t else torch.zeros_like(size)
            travel = 0.5 * (_log(v2) - _log(w2)) if t else torch.zeros_like(size)
            travel_all = 0.5 * (_log(v2.sum(1)) - _log(w2.sum(1)))[:, None] if t else torch.zeros_like(size)
            own = torch.stack(
                (
                    0.4 * (relative - whole),
                    certainty - certainty.mean(1, keepdim=True),
                    0.5 * share,
                    fast - first,
                    0.4 * (travel - travel_all),
                    0.3 * size,
                    d,
                ),
                dim=-1,
            ).clamp(-3, 3)
            own = torch.nan_to_num(own)
            parts = [made.features[:, None, :].expand(-1, count, -1), own]
            if group_net.with_kind:
                parts.append(kinds)
            rows = torch.cat(parts, -1)
            action = group_net(rows)
            if group_noise is not None:
                action = action + group_noise[t]
            change = 0.5 * float(row[3]) * torch.tanh(action)
            d = torch.where(made.finite[:, None], (d + change).clamp(-BOUND, BOUND), d)
            d = d - d.mean(1, keepdim=True)
            if record:
                result.rows.append(rows)
        if record:
            result.features.append(made.features)
            result.finite.append(made.finite)
        factors = d.exp()[:, groups.index]
        lr = made.lr[:, None] * factors
        corrections = runs._optimizer.corrections(runs._hyper, runs._counts[runs.step])
        runs.theta, buffers = runs._update(runs.theta, runs._grad, runs.buffers, runs._hyper, corrections, lr)
        runs.buffers = buffers._replace(direction=buffers.direction * factors)
        runs.step += 1
        if runs.step in stops:
            ratio = torch.log(runs.validate() / initial)
            curve.append(torch.nan_to_num(ratio, nan=LOG_RATIO_RANGE[1]).clamp(*LOG_RATIO_RANGE))
    result.curve, result.factors = torch.stack(curve), d
    return result


@dataclass(frozen=True)
class Budget:
    """Sets the size of the comparison."""

    meta_steps: int = 60
    batches: int = 2
    pairs: int = 16
    sigma: float = 0.4
    decisions: int = 128
    group_decisions: int = 32
    lr: float = 3e-3
    final_weight: float = 0.75
    seeds: int = 2
    instances: int = 6
    compiled: bool = True


def mixture(seed: int) -> TaskDistribution:
    """Makes the mixture: kinds of networks in equal shares, split into layers."""
    starts = {"starts": ["post_48x6", "post_32x5"], "tuned": ["full", "full", "adapter"], "batch_sizes": [16]}
    components = {
        "mlp": Component(MLPTasks(train_sizes=(512, 1536)), 2.0, (60, 300)),
        "regression": Component(RegressionTasks(train_sizes=(512, 2048)), 1.0, (60, 300)),
        "dropout": Component(DropoutTasks(train_sizes=(512, 1536)), 0.7, (60, 300)),
        "convnet": Component(ConvNetTasks(train_sizes=(512, 2048)), 1.0, (60, 200)),
        "transformer": Component(TransformerTasks(train_sizes=(1024, 4096)), 1.5, (60, 200)),
        "masked": Component(MaskedTransformerTasks(train_sizes=(1024, 4096)), 0.7, (60, 200)),
        "sentence": Component(SentenceTasks(train_sizes=(2048, 8192)), 0.8, (60, 200)),
        "recurrent": Component(RecurrentTasks(train_sizes=(1024, 4096)), 0.8, (60, 200)),
        "tabular": Component(TabularTasks(train_sizes=(512, 2048)), 1.2, (60, 300)),
        "pretrained": Component(PretrainedLanguageTasks(**starts), 0.8, (60, 150)),
        "scenes": Component(PretrainedSceneTasks(tuned=["full", "full", "adapter"]), 0.8, (60, 200)),
    }
    return TaskDistribution(components, optimizers={"sgd": 2, "adam": 4}, seed=seed)


def meta_train(arm: str, seed: int, budget: Budget, out: Path) -> tuple[LRPolicy, GroupNet | None]:
    """Makes an arm's policy, or reads it; the same task batches for all arms of a seed."""
    policy = LRPolicy.load("default").requires_grad_(True)
    group_net = None if arm == "global" else GroupNet(len(FEATURES), arm == "groups_kind", seed)
    path = out / f"{arm}-{seed}.pt"
    if path.is_file():
        stored = torch.load(path)
        policy.load_state_dict(stored["policy"])
        if group_net is not None:
            group_net.load_state_dict(stored["groups"])
        return policy.requires_grad_(False), group_net
    weights = [*policy.parameters(), *(group_net.parameters() if group_net is not None else ())]
    slow = {"params": list(policy.parameters()), "lr": budget.lr / 3}
    fast = {"params": list(group_net.parameters()), "lr": budget.lr} if group_net is not None else None
    adam = torch.optim.Adam([slow] + ([fast] if fast else []), betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, budget.meta_steps)
    distribution, began, steps = mixture(seed), time.process_time(), 0
    bar = tqdm(range(budget.meta_steps), desc=f"{arm} {seed}")
    for meta_step in bar:
        adam.zero_grad()
        losses = []
        for place in range(budget.batches):
            index = meta_step * budget.batches + place
            batch = distribution.sample(index, budget.pairs)
            loss, done = surrogate(policy, group_net, batch, (seed, index), budget)
            (loss / budget.batches).backward()
            losses.append(done)
            steps += 2 * budget.pairs * batch.inner.total_steps
        nn.utils.clip_grad_norm_(weights, 1.0)
        adam.step()
        schedule.step()
        bar.set_postfix(loss=f"{mean(losses):.3f}")
    print(f"{arm} {seed}: {steps:,} inner steps, {time.process_time() - began:.0f} core-seconds", flush=True)
    torch.save(
        {"policy": policy.state_dict(), "groups": group_net.state_dict() if group_net is not None else None}, path
    )
    return policy.requires_grad_(False), group_net


def surrogate(policy, group_net, batch, seed: Sequence[int], budget: Budget) -> tuple[Tensor, float]:
    """Makes the runs of a task batch: a loss whose gradient is ActionES's estimate, for both networks."""
    task, inner, pairs = batch.task, batch.inner, budget.pairs
    count = len(groups_of(task.net).names)
    span = hold_blocks(inner.total_steps, inner.anytime, budget.decisions)
    coarse = hold_blocks(inner.total_steps, inner.anytime, budget.group_decisions)
    generator = torch.Generator().manual_seed(mix_seed(*seed, "noise"))
    noise = torch.randn(int(span[-1]) + 1, pairs, generator=generator)[span]
    own = torch.randn(int(coarse[-1]) + 1, pairs, count, generator=generator)[coarse]
    runs = rollout(
        task,
        inner,
        policy.function(),
        group_net=group_net,
        copies=2,
        compiled=budget.compiled,
        record=True,
        action_noise=budget.sigma * torch.cat((noise, -noise), 1),
        group_noise=budget.sigma * torch.cat((own, -own), 1),
    )
    losses = runs.outer_loss(budget.final_weight).view(2, -1)
    weights = curve_weights(len(runs.curve), budget.final_weight)
    plus, minus = (weights[:, None] * runs.curve).chunk(2, 1)
    to_go = (plus - minus).flip(0).cumsum(0).flip(0)
    to_go = to_go[torch.searchsorted(torch.tensor(runs.steps), torch.arange(inner.total_steps), right=True)]
    credit = squashed(to_go, losses[0] - losses[1], "log") / (2.0 * budget.sigma * pairs)
    finite = torch.stack(runs.finite)
    lengths = span.bincount()[span][:, None]
    features = torch.stack(runs.features)
    outputs = policy(features.flatten(0, 1)).view(finite.shape)
    held = credit * noise / lengths
    loss = 0.5 * (torch.cat((held, held), 1) * finite * outputs).sum()
    if runs.rows:
        rows = torch.stack(runs.rows)
        actions = group_net(rows)
        held = credit[..., None] * own / coarse.bincount()[coarse][:, None, None]
        loss = loss + 0.5 * (torch.cat((held, held), 1) * finite[..., None] * actions).sum()
    return loss, float(losses.mean())


def cells(instances: int) -> Iterator[HeldOutTask]:
    """Yields the held-out tasks: kinds of the mixture in fresh instances, and autoencoders and digits beside."""
    post = {"starts": ["post_48x6"], "tuned": ["full"], "batch_sizes": [16]}
    for name, family, optimizer, steps in (
        ("autoencoder_sgd", AutoencoderTasks(), "sgd", 200),
        ("autoencoder_adam", AutoencoderTasks(), "adam", 200),
        ("digits_sgd", MLPTasks(sources=("digits",)), "sgd", 200),
        ("digits_adam", MLPTasks(sources=("digits",)), "adam", 200),
        ("mlp_adam_long", MLPTasks(train_sizes=(1536,)), "adam", 600),
        ("regression_adam", RegressionTasks(train_sizes=(2048,)), "adam", 200),
        ("tabular_adam", TabularTasks(train_sizes=(2048,)), "adam", 200),
        ("convnet_sgd", ConvNetTasks(train_sizes=(2048,)), "sgd", 150),
        ("convnet_adam", ConvNetTasks(train_sizes=(2048,)), "adam", 150),
        ("transformer_adam", TransformerTasks(train_sizes=(4096,)), "adam", 200),
        ("masked_adam", MaskedTransformerTasks(train_sizes=(4096,)), "adam", 150),
        ("sentence_adam", SentenceTasks(train_sizes=(4096,)), "adam", 150),
        ("recurrent_adam", RecurrentTasks(train_sizes=(4096,)), "adam", 150),
        ("pretrained_adam", PretrainedLanguageTasks(**post), "adam", 120),
        ("scenes_sgd", PretrainedSceneTasks(tuned=["full"]), "sgd", 150),
        ("scenes_adam", PretrainedSceneTasks(tuned=["full"]), "adam", 150),
    ):
        yield HeldOutTask(name, family, optimizer, steps, instances, rates=3, decades=3.0, seed=1001)


def run_cell(cell: HeldOutTask, policy: LRPolicy, compiled: bool, **options) -> Tensor:
    """Computes log final losses, (rates, instances), of the cell's runs."""
    generator = torch.Generator().manual_seed(mix_seed(cell.seed, cell.name))
    task = cell.family.sample(cell.instances, generator)
    task = task.select(torch.arange(cell.instances).repeat(cell.rates))
    hyper = Hyperparameters.of(cell.grid.repeat_interleave(cell.instances)[:, None], 0.9, 0.999)
    inner = InnerTraining(cell.optimizer, hyper, cell.total_steps, False, batch_seed=cell.seed)
    runs = rollout(task, inner, policy.function(), compiled=compiled, **options)
    return (runs.curve[-1] + runs.initial.log()).view(cell.rates, cell.instances)


CONSTANTS: dict[str, dict[str, float]] = {
    "embedding x 3": {"embedding": 3.0},
    "embedding x 10": {"embedding": 10.0},
    "embedding x 10, rest x 0.6": {"embedding": 10.0, **dict.fromkeys(("matrix", "vector", "head"), 0.6)},
    "vector x 3": {"vector": 3.0},
    "vector x 10": {"vector": 10.0},
    "head x 0.3": {"head": 0.3},
    "head x 3": {"head": 3.0},
    "matrix x 2": {"matrix": 2.0},
    "matrix x 0.5": {"matrix": 0.5},
}


def constants(budget: Budget, out: Path) -> None:
    """Prints constant factors by kind over the global policy alone, cell by cell."""
    policy = LRPolicy.load("default")
    rows = []
    for cell in tqdm(list(cells(budget.instances)), desc="constants"):
        base = run_cell(cell, policy, budget.compiled).mean(0)
        for name, factors in CONSTANTS.items():
            gain = run_cell(cell, policy, budget.compiled, constants=factors).mean(0) - base
            rows.append({"cell": cell.name, "factors": name, "ratio": f"{math.exp(gain.mean()):.4f}"})
    with (out / "constants.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    names = list(dict.fromkeys(row["cell"] for row in rows))
    print("| factors | " + " | ".join(names) + " | mean |")
    for name in CONSTANTS:
        found = [float(row["ratio"]) for row in rows if row["factors"] == name]
        print(f"| {name} | " + " | ".join(f"{x:.3f}" for x in found) + f" | {math.exp(mean(map(math.log, found))):.3f} |")


def learned(budget: Budget, out: Path) -> None:
    """Makes the arms and compares them on the same fresh instances."""
    rows: list[Row] = []
    for seed in range(budget.seeds):
        made = {arm: meta_train(arm, seed, budget, out) for arm in ARMS}
        for cell in tqdm(list(cells(budget.instances)), desc="tests"):
            base = None
            for arm, (policy, group_net) in made.items():
                for fine in (False, True) if arm != "global" else (False,):
                    final = run_cell(cell, policy, budget.compiled, group_net=group_net, fine=fine).mean(0)
                    base = final if base is None else base
                    for instance, (value, other) in enumerate(zip(final.tolist(), base.tolist(), strict=True)):
                        rows.append(
                            {
                                "seed": str(seed),
                                "arm": arm + ("_by_tensor" if fine else ""),
                                "cell": cell.name,
                                "instance": str(instance),
                                "log_final": f"{value:.5f}",
                                "log_over_global": f"{value - other:.5f}",
                            }
                        )
        with (out / "learned.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        report(rows)


def report(rows: Sequence[Row]) -> None:
    """Prints ratios by cell, and the geometric mean over cells with its 95 % interval."""
    arms = [arm for arm in dict.fromkeys(row["arm"] for row in rows) if arm != "global"]
    for seed in dict.fromkeys(row["seed"] for row in rows):
        for arm in arms:
            by_cell: dict[str, list[float]] = {}
            for row in rows:
                if row["seed"] == seed and row["arm"] == arm:
                    by_cell.setdefault(row["cell"], []).append(float(row["log_over_global"]))
            means = [mean(values) for values in by_cell.values()]
            middle, half = mean(means), 1.96 * stdev(means) / len(means) ** 0.5
            text = " ".join(f"{name} {math.exp(mean(values)):.3f}" for name, values in by_cell.items())
            print(f"seed {seed} {arm}: {math.exp(middle):.3f} ({math.exp(middle - half):.3f} to "
                  f"{math.exp(middle + half):.3f}); {text}", flush=True)


def main(out: Path = Path("results/layer_rates"), part: str = "all", budget: Budget = Budget()) -> None:
    """Runs a part, "constants" or "learned", or both."""
    torch.set_flush_denormal(True)
    out.mkdir(parents=True, exist_ok=True)
    if part in ("all", "constants"):
        constants(budget, out)
    if part in ("all", "learned"):
        learned(budget, out)


if __name__ == "__main__":
    auto_cli(main)
