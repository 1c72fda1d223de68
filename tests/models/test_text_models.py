"""The three text models: metrics against references, save and load, exactness under DDP, bad inputs."""

import lightning as L
import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from datamodules import GLUEDataModule, LanguageModelingDataModule, SQuADDataModule
from models import LanguageModel, QuestionAnswering, TextClassifier
from models.text_classifier import make_metric
from tests.text import (  # noqa: F401
    BERT,
    END,
    GLUE,
    GPT2,
    TINY_BERT,
    TINY_GPT2,
    datasets_cache,
    needs_data,
    small_glue,
    small_squad,
)


@pytest.fixture
def trainer(tmp_path):
    return _trainer(tmp_path)


def _trainer(folder, **arguments):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=folder, enable_model_summary=False, **quiet, **arguments)


def _classifier(path=BERT, overrides=TINY_BERT, **arguments):
    torch.manual_seed(0)
    return TextClassifier(path, pretrained=False, overrides=overrides, **arguments)


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    path = small_glue(tmp_path_factory.mktemp("glue"), "rte", "mrpc", "stsb", "mnli", "cola", "wnli")

    def data(task="wnli", **arguments):
        return GLUEDataModule(task, path, num_workers=0, **arguments)

    return data


@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_those_of_scikit_learn_and_scipy(seed):
    generator = np.random.default_rng(seed)
    labels, predictions = generator.integers(0, 2, (2, 200))
    pair = torch.tensor(predictions), torch.tensor(labels)
    assert make_metric("accuracy", 2)(*pair) == pytest.approx(accuracy_score(labels, predictions))
    assert make_metric("f1", 2)(*pair) == pytest.approx(f1_score(labels, predictions))
    assert make_metric("matthews", 2)(*pair) == pytest.approx(matthews_corrcoef(labels, predictions), abs=1e-6)
    labels, predictions = generator.integers(0, 3, (2, 200))
    pair = torch.tensor(predictions), torch.tensor(labels)
    assert make_metric("f1", 3)(*pair) == pytest.approx(f1_score(labels, predictions, average="macro"))
    scores = generator.normal(size=200).round(1)  # with ties
    values = (scores + generator.normal(size=200)).round(1)
    pair = torch.tensor(values), torch.tensor(scores)
    assert make_metric("pearson", 1)(*pair) == pytest.approx(pearsonr(values, scores)[0], abs=1e-5)
    assert make_metric("spearman", 1)(*pair) == pytest.approx(spearmanr(values, scores)[0], abs=1e-5)


@needs_data
@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("rte", {"val/loss", "val/accuracy"}),
        ("mrpc", {"val/loss", "val/accuracy", "val/f1"}),
        ("stsb", {"val/loss", "val/pearson", "val/spearman"}),
        ("mnli", {"val/loss", "val/accuracy", "val_mismatched/loss", "val_mismatched/accuracy"}),
        ("cola", {"val/loss", "val/matthews"}),
    ],
)
def test_the_task_decides_labels_and_metrics(tmp_path, task, names, glue):
    trainer, model, data = _trainer(tmp_path), _classifier(), glue(task)
    before = list(model.parameters())
    trainer.validate(model, data, verbose=False)
    assert set(trainer.callback_metrics) == names
    batch = next(iter(data.val_dataloader()[0]))
    assert model(batch).shape == ((32,) if task == "stsb" else (32, data.num_labels))
    assert all(one is other for one, other in zip(before, model.parameters(), strict=True))  # an optimizer holds them


@needs_data
def test_logged_accuracy_is_scikit_learns_on_the_predictions(trainer, glue):
    model, data = _classifier(), glue("mrpc")
    trainer.test(model, data, verbose=False)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    predictions = torch.cat(trainer.predict(model, data)).argmax(-1)
    labels = torch.cat([batch["labels"] for batch in data.predict_dataloader()[0]])
    assert logged["test/accuracy"] == pytest.approx(accuracy_score(labels, predictions))
    assert logged["test/f1"] == pytest.approx(f1_score(labels, predictions))


@needs_data
def test_gpt2_does_not_see_the_padding(glue):
    data = glue(tokenizer=GPT2, pad_token=END)
    data.setup("validate")
    model = _classifier(GPT2, TINY_GPT2).eval()
    model.network.config.pad_token_id = data.tokenizer.pad_token_id
    batch = next(iter(data.val_dataloader()[0]))
    length = int(batch["attention_mask"][0].sum())
    alone = {name: value[:1, :length] for name, value in batch.items() if name != "labels"}
    torch.testing.assert_close(model(batch)[0], model(alone)[0])


def _fit(folder, model, data, **arguments):
    model.configure_optimizers = lambda: torch.optim.Adam(model.parameters(), 1e-2)
    trainer = _trainer(folder, max_steps=2, num_sanity_val_steps=0, **arguments)
    trainer.fit(model, data)
    trainer.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


@needs_data
@pytest.mark.parametrize("task", ["stsb", "wnli"])
def test_a_saved_model_tests_the_same(tmp_path, trainer, task, glue):
    model, data = _classifier(), glue(task, batch_size=8)
    checkpoint = _fit(tmp_path, model, data, limit_val_batches=0)
    (before,) = trainer.test(model, data, verbose=False)
    loaded = TextClassifier.load_from_checkpoint(checkpoint)
    assert loaded.network.config.num_labels == data.num_labels
    (after,) = _trainer(tmp_path).test(loaded, glue(task, batch_size=8), verbose=False)
    assert before == after
    (again,) = _trainer(tmp_path).test(_classifier(), data, ckpt_path=checkpoint, verbose=False)
    assert before == again


@needs_data
def test_weights_from_a_folder(tmp_path):
    model = _classifier()
    model.network.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    loaded = TextClassifier(str(tmp_path))
    for one, other in zip(model.parameters(), loaded.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert loaded.network.training
    assert len(TextClassifier(str(tmp_path), overrides={"num_hidden_layers": 0}).network.bert.encoder.layer) == 0


@needs_data
def test_squad_under_ddp_is_squad_on_one_process(tmp_path):
    path = small_squad(tmp_path / "data", validation=31)

    def figures(**arguments):
        torch.manual_seed(0)
        model = QuestionAnswering(BERT, False, TINY_BERT, max_answer=5)
        data = SQuADDataModule(path, batch_size=4, max_length=96, stride=16, max_question=40, num_workers=0)
        trainer = _trainer(tmp_path, **arguments)
        trainer.test(model, data, verbose=False)
        if trainer.world_size == 1:  # the data of two processes is theirs
            assert len(data.windows["validation"]) % 2 == 1  # so that a sampler repeats one
        return {name: float(value) for name, value in trainer.callback_metrics.items()}

    assert figures(devices=2, strategy="ddp_fork") == pytest.approx(figures(devices=1))


@needs_data
@pytest.mark.parametrize(
    ("path", "pad", "overrides"), [(BERT, None, TINY_BERT), (GPT2, END, TINY_GPT2)], ids=["bert", "gpt2"]
)
def test_question_answering_saves_tests_and_answers(tmp_path, path, pad, overrides):
    def data():
        return SQuADDataModule(folder, pad_token=pad, batch_size=8, num_workers=0)

    folder = small_squad(tmp_path / "data")
    model = QuestionAnswering(path, False, overrides)
    checkpoint = _fit(tmp_path, model, data(), limit_val_batches=0)
    module = data()
    trainer = _trainer(tmp_path)
    (before,) = trainer.test(model, module, verbose=False)
    loaded = QuestionAnswering.load_from_checkpoint(checkpoint)
    (after,) = _trainer(tmp_path).test(loaded, data(), verbose=False)
    assert before == after
    answers = model.answers(trainer.predict(model, module), module.examples)
    assert [answer.row for answer in answers] == list(range(40))
    texts = [answer.text(-1e9) for answer in answers]
    assert set(texts) == {""}
    assert all(answer.texts[0] in row["context"] for answer, row in zip(answers, module.examples, strict=True))


@needs_data
@pytest.mark.parametrize(("threshold", "version", "left"), [(-1e9, 2, 1.0), (1e9, 2, 0.0), (-1e9, 1, 0.0)])
def test_the_null_threshold_decides_what_is_answered(tmp_path, monkeypatch, threshold, version, left):
    """Below all odds nothing is answered, above all of them everything, as always in version 1.1 of the data."""
    monkeypatch.setattr(SQuADDataModule, "unanswerable", version == 2)
    torch.manual_seed(0)  # a network at random may answer "the", which the evaluation script takes for nothing
    model = QuestionAnswering(BERT, False, TINY_BERT, null_threshold=threshold)
    data = SQuADDataModule(small_squad(tmp_path / "data"), batch_size=8, num_workers=0)
    (figures,) = _trainer(tmp_path).test(model, data, verbose=False)
    assert figures["test/no_answer"] == left
    assert (figures["test/has_answer_f1"] == 0.0) == (left == 1.0)


@pytest.mark.slow
@needs_data
def test_perplexity_is_the_exponential_of_the_mean_loss(tmp_path, glue):
    model = LanguageModel(GPT2, False, TINY_GPT2)
    data = LanguageModelingDataModule(glue().path, "wnli", "sentence1", max_length=32, num_workers=0)
    checkpoint = _fit(tmp_path, model, data, limit_val_batches=0)
    trainer = _trainer(tmp_path)
    (logged,) = trainer.test(model, data, verbose=False)
    losses = torch.cat(trainer.predict(model, data))
    assert losses.shape[1] == 31
    assert logged["test/loss"] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert logged["test/perplexity"] == pytest.approx(float(losses.mean().exp()), rel=1e-4)
    batch = next(iter(data.test_dataloader()))
    reference = model.eval().network(**batch, labels=batch["input_ids"]).loss
    torch.testing.assert_close(model._losses(batch).mean(), reference)
    (after,) = _trainer(tmp_path).test(LanguageModel.load_from_checkpoint(checkpoint), data, verbose=False)
    assert after == logged


@needs_data
def test_overrides_that_the_network_does_not_have():
    with pytest.raises(ValueError, match=r"overrides=\{'layers': 2\}: BertConfig has .*num_hidden_layers"):
        _classifier(overrides={"layers": 2})


@needs_data
def test_a_folder_without_weights():
    with pytest.raises(FileNotFoundError, match=r"holds no weights .*pretrained=False"):
        TextClassifier(BERT)
    with pytest.raises(FileNotFoundError, match=r"holds no config.json"):
        TextClassifier(GLUE)


def test_a_missing_folder_and_an_unreachable_hub():
    with pytest.raises(FileNotFoundError, match="/no/such/model"):
        TextClassifier("/no/such/model")
    with pytest.raises(ConnectionError, match=r"nobody/model.*the hub is out of reach; give a folder"):
        TextClassifier("nobody/model")


@needs_data
@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ({}, {"tokenizer": GPT2, "pad_token": END}, r"has 50257 tokens, and the network of .* has 30522"),
        ({}, {"max_length": 600}, "max_length=600: .* takes 512 tokens at most"),
        ({"metrics": ["pearson"]}, {}, "metrics='pearson' with 2 classes"),
        ({"metrics": ["accuracy"]}, {"task": "stsb"}, "metrics='accuracy' with a regression"),
    ],
)
def test_models_and_data_that_do_not_go_together(trainer, model, arguments, message, glue):
    with pytest.raises(ValueError, match=message):
        trainer.validate(_classifier(**model), glue(**arguments))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TextClassifier(metrics=["precision"]), r"metrics=\['precision'\]: choose of accuracy, f1"),
        (lambda: QuestionAnswering(n_best=0), "n_best=0"),
        (lambda: QuestionAnswering(max_answer=0), "max_answer=0"),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
