"""SQuAD's windows on real paragraphs: offsets, answers, overlap, unanswerable questions."""

from itertools import pairwise

import pytest
import torch

from datamodules.hub import load
from datamodules.squad import SQuADDataModule
from datamodules.squad_windows import cut_windows
from tests.text import BERT, END, GPT2, SQUAD, datasets_cache, needs_data, small_squad  # noqa: F401

each_tokenizer = pytest.mark.parametrize(("tokenizer", "pad"), [(BERT, None), (GPT2, END)], ids=["bert", "gpt2"])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_squad(tmp_path_factory.mktemp("squad"), train=32)


def _data(path, tokenizer=BERT, pad_token=None, **arguments):
    return SQuADDataModule(path, tokenizer=tokenizer, pad_token=pad_token, num_workers=0, **arguments)


def _cut(rows, data, training, **lengths):
    lengths = {"max_length": 384, "stride": 128, "max_question": 64} | lengths
    return cut_windows(rows[:], list(range(len(rows))), data.tokenizer, training, **lengths)


@needs_data
def test_counts_of_the_real_data():
    assert len(load(SQUAD, None, "train")) == 4719
    validation = load(SQUAD, None, "validation")
    assert len(validation) == 11873
    assert sum(not answers["text"] for answers in validation["answers"]) == 5945


@needs_data
@each_tokenizer
@pytest.mark.parametrize("lengths", [{}, {"max_length": 100, "stride": 40, "max_question": 30}])
def test_answers_are_found_in_the_windows_that_hold_them(tokenizer, pad, lengths):
    rows = load(SQUAD, None, "train").select(range(1000, 1200))
    data = _data(SQUAD, tokenizer, pad)
    training, evaluation = _cut(rows, data, True, **lengths), _cut(rows, data, False, **lengths)
    found, inexact = set(), 0
    spans = zip(training["start_positions"], training["end_positions"], training["null_positions"], strict=True)
    for (row, _), offsets, (start, end, null) in zip(evaluation["windows"], evaluation["offsets"], spans, strict=True):
        answers, context = rows[row]["answers"], rows[row]["context"]
        inside = offsets[offsets[:, 0] >= 0]
        if not answers["text"]:
            assert start == end == null
            continue
        first, last = answers["answer_start"][0], answers["answer_start"][0] + len(answers["text"][0])
        held = inside[0, 0] <= first and last <= inside[-1, 1]
        assert held == (start != null)
        if held:
            found.add(row)
            text = context[offsets[start][0] : offsets[end][1]]
            assert answers["text"][0] in text
            inexact += text != answers["text"][0]  # an answer that ends inside a token
    assert found == {i for i, answers in enumerate(rows["answers"]) if answers["text"]}
    assert inexact < 0.03 * len(found)


@needs_data
@each_tokenizer
def test_windows_cover_a_long_context_and_overlap(tokenizer, pad):
    rows = load(SQUAD, None, "validation").select(range(40))
    data = _data(SQUAD, tokenizer, pad)
    cut = _cut(rows, data, False, max_length=96, stride=32, max_question=40)
    for row in range(len(rows)):
        windows = [
            (number, offsets[offsets[:, 0] >= 0])
            for (source, number), offsets in zip(cut["windows"], cut["offsets"], strict=True)
            if source == row
        ]
        assert [number for number, _ in windows] == list(range(len(windows)))
        assert len(windows) > 1
        for (_, one), (_, other) in pairwise(windows):
            assert one[-32:].tolist() == other[:32].tolist()
        covered = {i for _, offsets in windows for first, last in offsets for i in range(first, last)}
        context = rows[row]["context"]
        assert all(i in covered or context[i].isspace() for i in range(len(context)))
    assert max(map(len, cut["input_ids"])) <= 96


@needs_data
def test_null_positions(small):
    bert, gpt2 = _data(small), _data(small, GPT2, END)
    for data, at in ((bert, 0), (gpt2, -1)):
        data.setup("validate")
        row = data.windows["validation"][0]
        special = {0: data.tokenizer.cls_token_id, -1: data.tokenizer.eos_token_id}[at]
        assert row["input_ids"][row["null_positions"]] == special
        assert row["null_positions"] == (0 if at == 0 else len(row["input_ids"]) - 1)
    ids = gpt2.windows["validation"][0]["input_ids"]
    assert ids.count(gpt2.tokenizer.eos_token_id) == 2  # after the question, and after the context


@needs_data
@each_tokenizer
def test_batches(small, tokenizer, pad):
    data = _data(small, tokenizer, pad, batch_size=8)
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    length = batch["input_ids"].shape[1]
    assert batch["attention_mask"].shape == (8, length)
    assert all(batch[name].shape == (8,) for name in ("start_positions", "end_positions", "null_positions"))
    assert (batch["start_positions"] <= batch["end_positions"]).all()
    batch = next(iter(data.val_dataloader()))
    assert batch["offsets"].shape == (*batch["input_ids"].shape, 2)
    assert batch["offsets"].dtype == batch["windows"].dtype == torch.int64
    outside = batch["offsets"][..., 0] < 0
    assert outside[batch["attention_mask"] == 0].all()  # padding
    context = data.examples[0]["context"]
    first, last = batch["offsets"][0][~outside[0]][[0, -1]].tolist()
    assert (first[0], last[1]) == (0, len(context))
    assert data.unanswerable


@needs_data
def test_version_1_is_all_answerable(tmp_path):
    from tests.text import write_dataset

    rows = load(SQUAD, None, "train").filter(lambda row: len(row["answers"]["text"]) > 0).select(range(8))
    data = _data(write_dataset(tmp_path, {"train": rows, "validation": rows}))
    data.setup("fit")
    assert not data.unanswerable
    assert all(row["start_positions"] > 0 for row in data.windows["train"])


@needs_data
def test_a_question_that_is_too_long_is_cut(tmp_path):
    rows = load(SQUAD, None, "train").select(range(3)).map(lambda row: {"question": "why " * 500})
    cut = _cut(rows, _data(SQUAD), True)
    assert max(map(len, cut["input_ids"])) <= 384
    assert cut["input_ids"][0].index(102) == 65  # [CLS], 64 tokens, [SEP]


@pytest.mark.parametrize("lengths", [{"stride": 400}, {"max_length": 64}, {"stride": -1}])
def test_lengths_that_leave_no_room(lengths):
    with pytest.raises(ValueError, match=r"stride=.*must be from 0 to .*max_length"):
        SQuADDataModule(**lengths)


@needs_data
def test_other_data_is_refused():
    from tests.text import GLUE

    with pytest.raises(ValueError, match="has no column id, context, question, answers; it has sentence, label"):
        _data(GLUE, name="cola").prepare_data()
