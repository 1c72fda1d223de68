"""GLUE's own TSV, CSV files with the hub's columns, and SQuAD's own JSON; and what is said of other files."""

import json

import pytest

from datamodules.glue import TASKS, GLUEDataModule
from datamodules.official import FOLDERS, glue_tables
from datamodules.squad import SQuADDataModule
from tests.text import BERT, datasets_cache, needs_data  # noqa: F401

OWN = {
    "cola": "gj04\t1\t\tOur friends won't buy this.\ngj04\t0\t*\tThey drank the pub.\n",
    "sst2": 'sentence\tlabel\nhide "new\t0\nthat loves\t1\n',
    "mrpc": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tOne\tAnother\n0\t7\t8\tOne\tTwo\n",
    "stsb": "index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\tOne\tAnother\t3.250\n1\tnews\tOne\tTwo\t0.0\n",
    "qqp": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tWhy?\tHow?\t0\n2\t2\t3\tWhy?\tWhy so?\t1\n",
    "mnli": "index\tsentence1\tsentence2\tl1\tgold_label\n0\tOne\tTwo\tx\tneutral\n1\tOne\tOne\tx\tentailment\n",
    "qnli": "index\tquestion\tsentence\tlabel\n0\tWho?\tHim.\tentailment\n1\tWho?\tThere.\tnot_entailment\n",
    "rte": "index\tsentence1\tsentence2\tlabel\n0\tOne\tTwo\tnot_entailment\n1\tOne\tOne\tentailment\n",
    "wnli": "index\tsentence1\tsentence2\tlabel\n0\tOne\tTwo\t1\n1\tOne\tOne\t0\n",
}
LABELS = {"cola": [1, 0], "sst2": [0, 1], "mrpc": [1, 0], "stsb": [3.25, 0.0], "qqp": [0, 1], "mnli": [1, 0]}
LABELS |= {"qnli": [0, 1], "rte": [1, 0], "wnli": [1, 0]}


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        stem, _, suffix = name.rpartition("_")
        folder.joinpath(f"{stem}.{suffix}").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize("task", OWN)
def test_glues_own_files(tmp_path, task, inner):
    """The folder of all tasks, or the task's."""
    dev = [name.replace("validation", "dev") for name in TASKS[task].validation]
    write(tmp_path / FOLDERS[task], train_tsv=OWN[task], **{f"{name}_tsv": OWN[task] for name in dev})
    data = GLUEDataModule(task, path=str(tmp_path if inner else tmp_path / FOLDERS[task]), tokenizer=None)
    for split in ("train", *TASKS[task].validation):
        rows = data._rows(split)
        assert rows["label"][:] == LABELS[task]
        assert set(rows.column_names) == {*TASKS[task].columns, "label", "idx"}
        assert all(isinstance(rows[0][column], str) and rows[0][column] for column in TASKS[task].columns)


@needs_data
def test_csv_with_the_hubs_columns_is_trained_on(tmp_path):
    table = 'sentence,label\n"a fine, fine film",1\nawful,0\n'
    write(tmp_path, train_csv=table, validation_csv=table, test_csv='sentence\n"who knows"\n')
    data = GLUEDataModule("sst2", path=str(tmp_path), tokenizer=BERT, batch_size=2, num_workers=0)
    data.prepare_data()
    data.setup("fit")
    data.setup("predict")
    assert sorted(next(iter(data.train_dataloader()))["labels"].tolist()) == [0, 1]
    assert data._rows("train")[0]["sentence"] == "a fine, fine film"
    assert data._rows("test")["label"][:] == [-1]


def test_tables_that_are_something_else(tmp_path):
    write(tmp_path, train_csv="text,label\na,1\n")
    with pytest.raises(ValueError, match=r"train.csv has no column sentence; it has text, label: rename its columns"):
        GLUEDataModule("sst2", path=str(tmp_path))._rows("train")
    write(tmp_path, train_csv="sentence\na\n")
    with pytest.raises(ValueError, match="has no column label"):
        GLUEDataModule("sst2", path=str(tmp_path))._rows("train")
    write(tmp_path, train_csv="sentence,label\na,good\n")
    with pytest.raises(ValueError, match=r"row 0: label 'good': give one of negative, positive, or its number from 0"):
        GLUEDataModule("sst2", path=str(tmp_path))._rows("train")
    write(tmp_path, train_csv="sentence,label\na,positive\n")
    with pytest.raises(ValueError, match="has no file of split 'validation'; it has train"):
        GLUEDataModule("sst2", path=str(tmp_path))._rows("validation")
    assert glue_tables(tmp_path / "nothing", "sst2", ("sentence",), ()) is None


def document(answers=True) -> dict:
    paragraph = {
        "context": "Normans gave their name to Normandy.",
        "qas": [
            {"id": "1", "question": "To what?", "answers": [{"text": "Normandy", "answer_start": 27}]},
            {"id": "2", "question": "When?", "answers": [], "is_impossible": True},
        ],
    }
    if not answers:
        del paragraph["qas"][1]["answers"]
    return {"version": "v2.0", "data": [{"title": "Normans", "paragraphs": [paragraph]}]}


@needs_data
def test_squads_own_json(tmp_path):
    text = json.dumps(document())
    write(tmp_path, **{"train-v2.0_json": text, "dev-v2.0_json": text})
    data = SQuADDataModule(str(tmp_path), tokenizer=BERT, batch_size=2, num_workers=0)
    data.prepare_data()
    data.setup("fit")
    assert data.unanswerable
    rows = data._rows("train")
    assert rows[0]["answers"] == {"text": ["Normandy"], "answer_start": [27]}
    assert rows["id"][:] == ["1", "2"]
    batch = next(iter(data.train_dataloader()))
    assert batch["input_ids"].shape[0] == 2


def test_files_of_another_kind_are_refused_with_the_layouts_to_give(tmp_path):
    write(tmp_path, train_json='{"sentence": "a", "label": 1}')
    with pytest.raises(ValueError, match=r"name='sst2': BuilderConfig .* or for GLUE train.csv and validation.csv"):
        GLUEDataModule("sst2", path=str(tmp_path))._rows("train")


def test_json_that_was_cut_off_is_named(tmp_path):
    write(tmp_path, **{"train-v1.1_json": json.dumps(document())[:-5]})
    with pytest.raises(ValueError, match=r"train-v1.1.json is not JSON \(.*\): download it again"):
        SQuADDataModule(str(tmp_path))._rows("train")


def test_json_that_is_something_else(tmp_path):
    write(tmp_path, **{"train-v2.0_json": json.dumps(document(answers=False))})
    with pytest.raises(ValueError, match=r"train-v2.0.json is not SQuAD's JSON: .*answers.* is missing; give data"):
        SQuADDataModule(str(tmp_path))._rows("train")
