"""Ships a meta-trained policy: puts it among the package's weights, with a model card.

python -m metalr.meta.ship logs/meta_boosting/version_0/best.safetensors boosting --commit "$(git rev-parse HEAD)" \
    --command "python train.py fit --config=configs/meta/{base,tasks/...,heldout/...,boosting}.yaml" \
    --figures '[results/heldout.txt]' --limits "On tables of more than 3,000 rows."

`--commit` is the one that the run was made at: a later one may have other task families, and gives another policy.
"""

from __future__ import annotations

from pathlib import Path

from jsonargparse import auto_cli

from metalr.core.policy import LRPolicy
from metalr.meta.structure_prior import expect_smaller_steps

WEIGHTS = Path(__file__).parents[1] / "weights"
"""Folder of the shipped policies."""

FACTS = ("seed", "meta_steps", "inner_steps", "heldout", "heldout_fresh", "structure_prior", "command", "commit")
"""What a card says of how the policy was made; the rest are figures."""

_PAGE = """# Policy `{name}`

{purpose}

| | |
|---|---|
| made by | `{command}` |
| at commit | {commit} |
| seed | {seed} |
| meta-steps | {meta_steps} |
| inner steps | {inner_steps:,} |
| weights | {size:,}: {features} features, hidden layers {hidden}, ReLU |
| selection score | {heldout}: 0.7 median + 0.3 worst of log(final validation loss / best-tuned reference schedule), \
on the held-out instances that the run looked at |
| on fresh instances | {fresh} |
{prior}
{figures}
## Where it fails

{limits}
"""


def ship(
    source: str,
    name: str,
    *,
    command: str,
    commit: str,
    limits: str,
    figures: list[str] | None = None,
    structure_prior: float = 0.0,
    weights: Path = WEIGHTS,
) -> Path:
    """Writes `<weights>/<name>.safetensors` with its card inside, and the card as a page beside it.

    Args:
        source: policy file that a run of `MetaLearner` wrote.
        name: of the policy, as `policy=` takes it.
        command: that made the policy, from the repository's root.
        commit: of the repository, where the command was run; several with commas, one for each run of the command.
        limits: where the policy fails, in words.
        figures: files of `name: value` lines that benchmarks wrote, the first line being the command.
        structure_prior: nats by which the policy is made to take smaller steps for each unit of `weight_structure`, see
            `metalr.meta.structure_prior`; 0 for none.
        weights: folder of the shipped policies.

    Returns:
        The policy's path.

    Raises:
        FileNotFoundError: when the source or a file of figures does not exist.
        ValueError: for a policy whose support was not learned yet.
    """
    policy = LRPolicy.load(source)
    if not policy.support.is_bounded:
        raise ValueError(
            f"source={source!r}: its run has not ended, and the policy does not know yet what it was meta-trained on; "
            "wait for the end, or resume the run"
        )
    if structure_prior:
        expect_smaller_steps(policy, structure_prior)
        policy.card |= {"structure_prior": str(structure_prior)}
    policy.card |= {"command": command, "commit": commit}
    blocks = [Path(file).read_text().strip() for file in figures or []]
    for block in blocks:
        _, *lines = block.splitlines()
        policy.card |= dict(line.split(": ", 1) for line in lines)
    path = weights / f"{name}.safetensors"
    policy.save(path)
    path.with_suffix(".md").write_text(_page(policy, name, blocks, limits))
    return path


def _page(policy: LRPolicy, name: str, blocks: list[str], limits: str) -> str:
    card = policy.card
    sections = []
    for block in blocks:
        benchmark, *lines = block.splitlines()
        rows = "\n".join(f"| {key} | {value} |" for key, value in (line.split(": ", 1) for line in lines))
        sections.append(f"## `{benchmark}`\n\n| figure | value |\n|---|---|\n{rows}\n")
    with_horizon = "Sets the learning rate of a run whose number of steps is known, about a cosine reference."
    anytime = "Sets the learning rate of a run without a horizon; it keeps no reference schedule."
    return _PAGE.format(
        name=name,
        purpose=anytime if policy.anytime else with_horizon,
        command=card["command"],
        commit=", ".join(f"`{commit}`" for commit in card["commit"].split(", ")),
        seed=card["seed"],
        meta_steps=card["meta_steps"],
        inner_steps=int(card["inner_steps"]),
        size=policy.size,
        features=len(policy.features),
        hidden=" and ".join(map(str, policy.hidden)),
        heldout=card["heldout"],
        fresh=card.get("heldout_fresh", "not measured: `python -m benchmarks.selection`, then `benchmarks.cards`"),
        prior=f"| structure prior | {prior} nats |\n" if (prior := card.get("structure_prior")) else "",
        figures="\n".join(sections),
        limits=limits,
    )


if __name__ == "__main__":
    print(auto_cli(ship))
