"""Which checkpoint of a folder a run goes on from."""

import os

import pytest
import torch

from metalr.cli.checkpoints import newest_whole


def write(path, value: int, age: int):
    torch.save({"value": torch.full((1000,), value)}, path)
    os.utime(path, (1e9 - age, 1e9 - age))


def test_the_newest_one_is_taken(tmp_path):
    assert newest_whole(tmp_path) is None
    (tmp_path / "deep").mkdir()
    write(tmp_path / "b.ckpt", 1, age=10)
    write(tmp_path / "deep" / "a.ckpt", 2, age=5)
    assert newest_whole(tmp_path) == tmp_path / "deep" / "a.ckpt"


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_one_is_reported_and_passed_over(tmp_path, damage, caplog):
    write(tmp_path / "old.ckpt", 1, age=10)
    write(tmp_path / "new.ckpt", 2, age=5)
    data = bytearray((tmp_path / "new.ckpt").read_bytes())
    if damage == "flipped":
        data[data.index(b"\x02\x00\x00\x00\x00\x00\x00\x00") + 1] ^= 0xFF
    kept = {"truncated": data[: len(data) // 2], "flipped": data, "empty": b""}[damage]
    (tmp_path / "new.ckpt").write_bytes(kept)
    assert newest_whole(tmp_path) == tmp_path / "old.ckpt"
    assert "new.ckpt is damaged" in caplog.text
    assert (tmp_path / "new.ckpt").is_file()
