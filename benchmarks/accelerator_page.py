"""Makes docs/accelerator.md of what `bash benchmarks/accelerator.sh` measured.

    python -m benchmarks.accelerator_page [--results results/accelerator] [--page docs/accelerator.md]

A part that was not measured, or only in its reduced version (--smoke), has no figures on the page.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]

HEAD = """# On an accelerator

What `MetaLR` does and costs on a GPU, and how to measure it on your own:

```bash
make accelerator-bundle                # on a machine with a network and METALR_DATA: data, weights, packages
bash benchmarks/accelerator.sh         # on the one with the GPU, which needs no network: all parts, nine minutes
bash benchmarks/accelerator.sh cost    # or some of them: right, cost, captured, workloads, meta
python -m benchmarks.accelerator_page  # makes this page of results/accelerator
```

{devices}
"""

SMOKE = "Each part writes its figures as it goes, and resumes when rerun. `--smoke` runs a reduced version on a CPU. "

NOWHERE = (
    "**No part has been measured yet**: no figure of this project comes from a GPU so far. What follows says what each "
    "part measures; what needs no GPU is tested on the CPU."
)

NOT_MEASURED = "Not measured yet."


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def _cells(*values: object) -> str:
    return "| " + " | ".join(str(value) for value in values) + " |"


def _table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> list[str]:
    head = list(head)
    return [_cells(*head), "|" + "---|" * len(head), *(_cells(*row) for row in rows)]


def _right(rows: list[Row]) -> list[str]:
    passed = sum(row["outcome"] == "passed" for row in rows)
    others = [row for row in rows if row["outcome"] != "passed"]
    lines = [f"{passed} of {len(rows)} tests passed."]
    if others:
        lines += ["", *_table(("test", "outcome", "why"), ((r["test"], r["outcome"], r["why"]) for r in others))]
    return lines


def _cost(rows: list[Row]) -> list[str]:
    times = [row for row in rows if row["what"] == "time"]
    lines = _table(
        ("load", "rate", "ms a step", "ratio", "kernels a step"),
        ((r["title"], r["arm"], f"{r['ms']:.2f}", f"{r['ratio']:.4f}", r["kernels"]) for r in times),
    )
    peaks = [row for row in rows if row["what"] == "memory"]
    if peaks:
        lines += ["", "Peak of the device's memory, with a tensor rate:", ""]
        lines += _table(
            ("load", "none, MB", "learned, MB", "ratio"),
            (
                (r["title"], f"{r['without']:.0f}", f"{r['learned']:.0f}", f"{r['learned'] / r['without']:.4f}")
                for r in peaks
            ),
        )
    return lines


def _captured(rows: list[Row]) -> list[str]:
    apart = [row for row in rows if row["what"] == "rates"]
    times = [row for row in rows if row["what"] == "time"]
    lines = _table(
        ("network", "rate", "step", "ms"),
        (
            (
                r["title"],
                "learned" if r["learned"] else "none",
                "one graph" if r["graph"] else "ordinary",
                f"{r['ms']:.3f}",
            )
            for r in times
        ),
    )
    for row in apart:
        lines += [
            "",
            f"{row['title']}: over {row['steps']} steps the rates of the replayed graph differ from those of ordinary "
            f"steps by {row['largest_difference']:.1e} at most (relative).",
        ]
    return lines


def _workloads(rows: list[Row]) -> list[str]:
    return _table(
        ("workload", "schedule", "initial rate", "validation loss", "accuracy", "steps", "seconds"),
        (
            (
                row["title"],
                row["schedule"],
                f"{row['rate']:.2g}",
                f"{row['loss']:.4f}",
                f"{row['accuracy']:.4f}",
                row["steps"],
                f"{row['seconds']:.1f}",
            )
            for row in sorted(rows, key=lambda row: (row["title"], row["schedule"] != "learned"))
        ),
    )


def _meta(rows: list[Row]) -> list[str]:
    steps = [row for row in rows if row["what"] == "inner steps"]
    lines = _table(
        ("runs", "hidden units", "compiled", "inner steps/s", "share of the limit", "first step, s"),
        (
            (
                row["runs"],
                row["width"],
                "yes" if row["compiled"] else "no",
                f"{row['steps_a_second']:,.0f}",
                f"{row['share_of_limit']:.2f}",
                f"{row['first_seconds']:.0f}",
            )
            for row in steps
        ),
    )
    for row in rows:
        if row["what"] == "meta-training":
            lines += ["", f"The meta-training continued from meta-step {row['before']} to {row['after']}."]
    return lines


SECTIONS: dict[str, tuple[str, str, Callable[[list[Row]], list[str]]]] = {
    "right": (
        "Correctness",
        """The tests that are marked `gpu` (`make test-gpu`): mixed precision with a fused AdamW and a GradScaler,
        bfloat16, rates that are tensors, a compiled model and optimizer, captured steps, FSDP2 and NCCL on one
        device, an exact resume, the rates of the CPU beside those of the GPU, and a step in which any wait for
        the device is an error.""",
        _right,
    ),
    "cost": (
        "Overhead",
        """A step with a learned rate against one without, interleaved, and what a step gives to the device to do:
        kernels, copies and fills. The goal is a ratio of at most 1.01. With a rate that is a float the host
        waits for the device once a step; with a tensor it never does, and `torch.compile` makes a few kernels
        of the decision.""",
        _cost,
    ),
    "captured": (
        "Captured",
        """Forward and backward pass, decision and update in one CUDA graph. With tensor rates the step is counted
        on the device, like that of torch's `capturable` optimizers; [what a step
        costs](cost.md#on-an-accelerator) has an example.""",
        _captured,
    ),
    "workloads": (
        "The real workloads",
        """MiniLM on SST-2 by two published recipes, and ResNet-18 and ResNet-50 on a subset of CIFAR-10, with the
        data on the device and each step in one graph. The learned schedule begins at the recipe's rate and at a
        tenth of it; linear with warm-up and cosine at three times it, at it, and at a third.""",
        _workloads,
    ),
    "meta": (
        "Meta-training",
        """Inner steps a second of a small perceptron, with policy and features in the loop; the goal is 1,000,000
        with 32 hidden units. The limit is what the same operations take as products of two 1024 x 1024 matrices
        in single precision. For the rest of its time the part continues a meta-training of the bundle, and
        brings its checkpoint back.""",
        _meta,
    ),
}
"""Title, what is measured, and how its rows are shown."""


def measured(folder: Path) -> dict[str, dict[str, Any]]:
    """Reads the parts that a GPU has measured, by name; those of --smoke mean nothing, and are left out."""
    found = {}
    for name in SECTIONS:
        path = folder / f"{name}.json"
        if path.is_file():
            content = json.loads(path.read_text())
            if not content["smoke"] and content["rows"]:
                found[name] = content
    return found


def page(parts: dict[str, dict[str, Any]]) -> str:
    """Writes the page of what was measured."""
    names = sorted({f"{part['device']} (torch {part['torch']})" for part in parts.values()})
    where = f"Measured on: {', '.join(names)}." if names else NOWHERE
    lines = [HEAD.format(devices=_filled(SMOKE + where))]
    for name, (title, text, show) in SECTIONS.items():
        lines += [f"## {title}", "", _filled(text), ""]
        if name in parts:
            lines += [f"On {parts[name]['device']}:", "", *show(parts[name]["rows"]), ""]
        else:
            lines += [NOT_MEASURED, ""]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Writes docs/accelerator.md."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--results", type=Path, default=Path("results/accelerator"))
    parser.add_argument("--page", type=Path, default=Path("docs/accelerator.md"))
    given = parser.parse_args()
    given.page.write_text(page(measured(given.results)))


if __name__ == "__main__":
    main()
