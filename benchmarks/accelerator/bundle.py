"""What a machine without a network is given: real data, pretrained weights, and packages that it may lack.

    python -m benchmarks.accelerator.bundle --data $METALR_DATA [--checkpoint last.ckpt --configs a.yaml b.yaml]

`make accelerator-bundle` is the same. MiniLM is in half precision, with the vocabulary of SST-2 alone; the images are a
part of the CIFAR-10 subset, compressed as there.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

LIMIT = 60e6
"""Bytes of all."""

WHEELS = ("jsonargparse", "docstring-parser", "typeshed-client")
"""Packages of the configurations' parser; what torch, lightning and transformers bring is taken to be there."""

LENGTH = 64
"""Tokens of a sentence."""

IMAGES = 8_000
"""Training images, unless --images says otherwise: trained starts of a meta-training take the room of 2,500."""

CHUNK = 200
"""Samples that are evaluated at once."""

WORDS = "bert.embeddings.word_embeddings.weight"


def make(data: Path, out: Path, images: int = IMAGES) -> None:
    """Puts data, weights and packages together, anew.

    Args:
        data: folder of the real data.
        out: folder of the bundle.
        images: for training.
    """
    shutil.rmtree(out, ignore_errors=True)
    (out / "wheels").mkdir(parents=True)
    _sentences(data / "glue" / "sst2", out)
    _images(data / "cifar10" / "plain_text", out, images)
    pinned = [f"{name}=={version(name)}" for name in WHEELS]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--dest", str(out / "wheels"), *pinned], check=True)


def add_meta_training(out: Path, checkpoint: Path, configs: list[Path], starts: Path | None) -> None:
    """Adds a meta-training that goes on: its checkpoint, its configs in order, and the trained starts of its tasks."""
    folder = out / "meta"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(checkpoint, folder / "last.ckpt")
    for number, config in enumerate(configs):
        shutil.copy(config, folder / f"{number}.yaml")
    if starts is not None:
        shutil.copytree(starts, folder / "starts", dirs_exist_ok=True)


def check_size(out: Path) -> None:
    """Prints the bundle's size.

    Raises:
        SystemExit: where it is larger than `LIMIT`.
    """
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size / 1e6:.1f} MB")
    if size > LIMIT:
        raise SystemExit(f"{out} has {size / 1e6:.1f} MB, {LIMIT / 1e6:.0f} at most: leave something out")


def _sentences(folder: Path, out: Path) -> None:
    """Writes SST-2's tokens, numbered anew, and MiniLM with their embeddings alone."""
    import pandas as pd
    from transformers import AutoTokenizer

    from benchmarks.finetuning.weights import MINILM, find

    weights = find(MINILM)
    tokenizer = AutoTokenizer.from_pretrained(str(weights))
    columns: dict[str, Tensor] = {}
    for split in ("train", "validation"):
        rows = pd.read_parquet(next(folder.glob(f"{split}-*.parquet")))
        ids = tokenizer(rows["sentence"].tolist(), truncation=True, max_length=LENGTH)["input_ids"]
        columns[f"{split}_tokens"] = torch.tensor([token for row in ids for token in row])
        columns[f"{split}_lengths"] = torch.tensor([len(row) for row in ids], dtype=torch.uint8)
        columns[f"{split}_labels"] = torch.tensor(rows["label"].to_numpy(), dtype=torch.uint8)
    first = torch.tensor([tokenizer.pad_token_id])
    used = torch.cat((first, columns["train_tokens"], columns["validation_tokens"])).unique()
    assert used[0] == tokenizer.pad_token_id == 0  # padding stays the first
    for split in ("train", "validation"):
        name = f"{split}_tokens"
        columns[name] = torch.searchsorted(used, columns[name]).to(torch.int16)
    save_file(columns, out / "sst2.safetensors")
    state = {f"bert.{name}": part for name, part in load_file(weights / "model.safetensors").items()}
    state[WORDS] = state[WORDS][used]
    halves = {name: part.half().contiguous() for name, part in state.items() if part.is_floating_point()}
    save_file(halves, out / "minilm.safetensors")
    config = json.loads((weights / "config.json").read_text())
    (out / "minilm.json").write_text(json.dumps(config | {"vocab_size": len(used)}))


def _images(folder: Path, out: Path, images: int) -> None:
    """Writes a part of the CIFAR-10 subset, each image as it is compressed there."""
    import pandas as pd

    for split, count in (("train", images), ("test", None)):
        rows = pd.read_parquet(next(folder.glob(f"{split}-*.parquet")))
        rows = rows.sample(count or len(rows), random_state=0)
        files = [each["bytes"] for each in rows["img"]]
        save_file(
            {
                "files": torch.from_numpy(np.frombuffer(b"".join(files), dtype=np.uint8).copy()),
                "sizes": torch.tensor([len(file) for file in files]),
                "labels": torch.tensor(rows["label"].to_numpy(), dtype=torch.uint8),
            },
            out / f"cifar10_{split}.safetensors",
        )


def minilm(folder: Path) -> nn.Module:
    """Loads MiniLM under a fresh head for two classes, in training mode.

    Args:
        folder: of the bundle.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model(**_config(folder), num_labels=2)
    network: nn.Module = AutoModelForSequenceClassification.from_config(config)
    state = {name: part.float() for name, part in load_file(folder / "minilm.safetensors").items()}
    missing, unknown = network.load_state_dict(state, strict=False)
    foreign = [name for name in missing if name.startswith("bert.")]
    if foreign or unknown:
        raise ValueError(f"{folder}: its weights are not MiniLM's ({foreign + unknown}): make the bundle anew")
    return network.train()


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "minilm.json").read_text())
    return config


class Sentences:
    """Holds SST-2 on a device: tokens (N, 64) and classes."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        columns = load_file(folder / "sst2.safetensors")
        self._train, self._valid = (_padded(columns, split, device) for split in ("train", "validation"))
        self.size = len(self._train[1])

    def inputs(self, index: Tensor) -> tuple[Tensor, ...]:
        """Gives tokens and their mask."""
        return _masked(self._train[0][index])

    def labels(self, index: Tensor) -> Tensor:
        """Gives the classes."""
        return self._train[1][index]

    def validation(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """Yields the validation sentences."""
        for tokens, labels in zip(*(part.split(CHUNK) for part in self._valid), strict=True):
            yield _masked(tokens), labels


def _padded(columns: dict[str, Tensor], split: str, device: torch.device) -> tuple[Tensor, Tensor]:
    rows = columns[f"{split}_tokens"].split(columns[f"{split}_lengths"].tolist())
    tokens = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    tokens = nn.functional.pad(tokens, (0, LENGTH - tokens.shape[1]))
    return tokens.to(device), columns[f"{split}_labels"].long().to(device)


def _masked(tokens: Tensor) -> tuple[Tensor, Tensor]:
    return tokens.long(), (tokens != 0).long()


class Images:
    """Holds CIFAR-10's subset on a device: normalised images (N, 3, 32, 32) and classes."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._train, self._valid = (_decoded(folder / f"cifar10_{split}.safetensors") for split in ("train", "test"))
        mean, std = self._train[0].mean((0, 2, 3), keepdim=True), self._train[0].std((0, 2, 3), keepdim=True)
        self._train, self._valid = (
            (((images - mean) / std).to(device), labels.to(device)) for images, labels in (self._train, self._valid)
        )
        self._wide = nn.functional.pad(self._train[0], (4, 4, 4, 4))
        self.size = len(self._train[1])

    def inputs(self, index: Tensor) -> tuple[Tensor, ...]:
        """Gives images, each cut out at random by up to four pixels, and mirrored or not."""
        count, side = len(index), torch.arange(32, device=index.device)
        corner = torch.randint(9, (2, count, 1), device=index.device)
        rows, columns = (
            corner[0] + side,
            corner[1] + torch.where(torch.rand(count, 1, device=index.device) < 0.5, side, side.flip(0)),
        )
        picked = self._wide[index[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        return (picked.permute(0, 3, 1, 2),)  # channels_last in memory

    def labels(self, index: Tensor) -> Tensor:
        """Gives the classes."""
        return self._train[1][index]

    def validation(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """Yields the validation images."""
        for images, labels in zip(*(part.split(CHUNK) for part in self._valid), strict=True):
            yield (images,), labels


def _decoded(path: Path) -> tuple[Tensor, Tensor]:
    """Decodes images to (N, 3, 32, 32) in [0, 1], and classes."""
    from PIL import Image

    columns = load_file(path)
    files = columns["files"].split(columns["sizes"].tolist())
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(file.numpy().tobytes()))) for file in files])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255.0, columns["labels"].long()


def main() -> None:
    """Makes the bundle."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator.bundle", description=main.__doc__)
    default = os.environ.get("METALR_DATA")
    parser.add_argument("--data", type=Path, default=default, required=default is None, help="folder of the real data")
    parser.add_argument("--out", type=Path, default=Path("dist/accelerator"))
    parser.add_argument("--images", type=int, default=IMAGES, help="for training")
    parser.add_argument("--checkpoint", type=Path, help="of a meta-training that goes on; with its --configs")
    parser.add_argument("--configs", type=Path, nargs="*", default=[], help="of the meta-training, in order")
    parser.add_argument("--starts", type=Path, help="trained starts of its tasks")
    given = parser.parse_args()
    make(given.data, given.out, given.images)
    if given.checkpoint is not None:
        add_meta_training(given.out, given.checkpoint, given.configs, given.starts)
    check_size(given.out)


if __name__ == "__main__":
    main()
