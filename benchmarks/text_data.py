"""Measures rows a second of the text data modules, beside a plain loop and beside a training step.

    python -m benchmarks.text_data --data $METALR_DATA

`module` is the training loader of the data module (tokens from the cache, shuffled, padded to each batch's longest
row), `plain` a loop that tokenises and pads the same rows in order with the tokenizer alone, `step` a training step
of a two-layer BERT or GPT-2 on the same batches. It also prints the seconds that tokenising SST-2 takes the first
time, and a second time with a fresh data module. All is CPU time of one core, so that other work on the machine does
not count.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

from benchmarks.data import rate
from datamodules import GLUEDataModule, LanguageModelingDataModule, SQuADDataModule
from datamodules.text import TextDataModule
from models import LanguageModel, QuestionAnswering, TextClassifier
from models.transformer import TransformerModule

BERT_SIZE = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512}
GPT2_SIZE = {"n_layer": 2, "n_embd": 128, "n_head": 2}


def workloads(data: Path, workers: int) -> dict[str, tuple[TextDataModule, TransformerModule, tuple[str, ...]]]:
    """Makes each data module, a small model for it, and the columns that a plain loop tokenises."""
    bert, gpt2 = str(data / "tokenizers/bert-base-uncased"), str(data / "tokenizers/gpt2")
    glue = GLUEDataModule("sst2", str(data / "glue"), bert, num_workers=workers)
    squad = SQuADDataModule(str(data / "squad_v2"), tokenizer=bert, num_workers=workers)
    text = LanguageModelingDataModule(
        str(data / "squad_v2"), "resplit", "context", gpt2, max_length=128, num_workers=workers
    )
    return {
        "sst2": (glue, TextClassifier(bert, False, BERT_SIZE), ("sentence",)),
        "squad": (squad, QuestionAnswering(bert, False, BERT_SIZE), ("question", "context")),
        "text": (text, LanguageModel(gpt2, False, GPT2_SIZE), ("context",)),
    }


def _rows(batch: dict[str, Any]) -> int:
    return len(batch["input_ids"])


def plain(module: TextDataModule, columns: tuple[str, ...]) -> Iterable[dict[str, Any]]:
    """Yields batches that the tokenizer alone makes."""
    tokenizer, rows, size = module.tokenizer, module._rows("train"), module.batch_size
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    for i in range(0, len(rows) - size, size):
        batch = rows[i : i + size]
        texts = (batch[column] for column in columns)
        yield tokenizer(*texts, truncation=True, max_length=module.max_length, padding=True, return_tensors="pt")


def stepped(batches: Iterable[dict[str, Any]], model: TransformerModule) -> Iterable[dict[str, Any]]:
    """Yields the batches, each after a training step."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    model.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    for batch in batches:
        optimizer.zero_grad()
        model.training_step(batch, 0).backward()
        optimizer.step()
        yield batch


def main(data: Path, batches: int = 100, workers: int = 0) -> None:
    """Prints the table.

    Args:
        data: folder of the real data, METALR_DATA.
        batches: number of batches to time.
        workers: number of workers of each loader.
    """
    from datasets import config, disable_progress_bars

    disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        config.HF_DATASETS_CACHE = Path(folder)
        print(f"{'rows/s':8}{'module':>10}{'plain':>10}{'ratio':>8}{'step':>10}")
        for name, (module, model, columns) in workloads(data, workers).items():
            module.prepare_data()
            module.setup("fit")
            delivered = rate(module.train_dataloader(), batches, _rows)
            alone = rate(plain(module, columns), batches, _rows)
            trained = rate(stepped(module.train_dataloader(), model), batches // 5, _rows)
            print(f"{name:8}{delivered:10.0f}{alone:10.0f}{delivered / alone:8.1f}{trained:10.0f}")
        config.HF_DATASETS_CACHE = Path(folder, "again")
        for which in ("first", "second"):
            module = workloads(data, workers)["sst2"][0]
            start = time.process_time()
            module.prepare_data()
            print(f"tokenising SST-2, {which} time: {time.process_time() - start:.1f} s")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
