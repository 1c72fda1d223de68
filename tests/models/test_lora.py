"""Adapters in a text classifier, and pretrained weights with a head of their own."""

import lightning as L
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2ForSequenceClassification

from models import LoRA, TextClassifier
from tests.text import TINY_BERT, TINY_GPT2

SMALL = {"vocab_size": 50, "pad_token_id": 0}


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> str:
    """A tiny BERT with a head of three outputs, as a folder."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(**TINY_BERT, **SMALL, num_labels=3)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("gpt2")
    GPT2ForSequenceClassification(GPT2Config(**TINY_GPT2, **SMALL)).save_pretrained(folder)
    return str(folder)


def batch(labels: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 50, (8, 6), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(8) % labels}


def trained(model: TextClassifier) -> set[str]:
    return {name.removeprefix("network.") for name, value in model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize(("path", "layer", "head"), [("bert", "query", "classifier."), ("gpt2", "c_attn", "score.")])
def test_the_adapters_and_the_head_are_trained_and_nothing_else_moves(path, layer, head, request):
    model = TextClassifier(request.getfixturevalue(path), lora=LoRA(rank=3, targets=[layer]))
    names = trained(model)
    assert sum("lora_" in name for name in names) == 2  # one layer, an A and a B
    assert {name for name in names if "lora_" not in name} == {
        name for name, _ in model.network.named_parameters() if name.startswith(head)
    }
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    for _ in range(2):  # B starts at zero, so that A has no gradient at first
        optimizer.zero_grad()
        data = batch(model.network.config.num_labels)
        torch.nn.functional.cross_entropy(model(data), data["labels"]).backward()
        optimizer.step()
    moved = {name for name, value in model.named_parameters() if not value.equal(before[name])}
    assert moved == {f"network.{name}" for name in names}


def test_adapters_start_as_the_network_without_them(bert):
    plain, adapted = (TextClassifier(bert, lora=lora).eval() for lora in (None, LoRA()))
    torch.testing.assert_close(plain(batch()), adapted(batch()))


def test_a_head_is_resized_beside_adapters_and_a_checkpoint_is_read_back(bert, tmp_path):
    model = TextClassifier(bert, lora=LoRA(rank=2, targets=["value"]))
    held = list(model.parameters())
    model.resize(5)
    assert model(batch()).shape == (8, 5)
    assert all(one is other for one, other in zip(held, model.parameters(), strict=True))
    trainer = L.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    again = TextClassifier.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert trained(again) == trained(model)
    torch.testing.assert_close(again.eval()(batch()), model.eval()(batch()))


def test_the_heads_own_number_of_labels_is_taken_unless_another_is_given(bert):
    assert TextClassifier(bert)(batch()).shape == (8, 3)
    with pytest.raises(ValueError, match=r"its weights have other shapes .* num_labels=2 .*: leave these out"):
        TextClassifier(bert, num_labels=2)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (
            {"targets": ["nope"]},
            r"targets=\['nope'\] does not go with BertForSequence.* dense, key, query, value: name",
        ),
        ({"targets": ["classifier"]}, r"targets=\['classifier'\] adapts classifier, the head"),
        ({"targets": []}, r"targets=\[\] adapts no layer"),
        ({"rank": 0}, "rank=0"),
        ({"dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_adapters_that_cannot_be(bert, lora, message):
    with pytest.raises(ValueError, match=message):
        TextClassifier(bert, lora=lora)


def test_without_peft_the_remedy_is_named(bert, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ImportError, match=r"lora needs peft: pip install '.\[experiments\]'"):
        TextClassifier(bert, lora=LoRA())
