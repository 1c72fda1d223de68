"""Commands as a shell reads them: one command with exactly its arguments, whatever they hold."""

import os
import shlex
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metalr.compare.shell import REFERENCE, command_line, expand, references

NASTY = st.text(st.sampled_from("ab =/.'\"\\$`!#&|;<>(){}[]*?~\n\tNAME_é"), max_size=20)
ANY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
REFERRING = st.lists(NASTY | st.sampled_from(["$METALR_DATA", "${METALR_DATA}"]), max_size=5).map("".join)
ARGUMENTS = st.lists(NASTY | ANY | REFERRING, max_size=5)


@given(ARGUMENTS)
@example(['--data.path=$METALR_DATA"; touch x; echo "'])
@example(["--a=$METALR_DATA`touch x`", ""])
def test_what_is_shown_is_one_command_with_exactly_these_arguments(arguments):
    assert shlex.split(command_line(arguments)) == arguments


@settings(max_examples=40, deadline=None)
@given(st.lists(REFERRING, min_size=1, max_size=3))
@example(['--data.path=$METALR_DATA/a"; touch x; echo "', "$(touch x)", "`touch x`", "$HOME1"])
def test_a_shell_reads_the_references_and_nothing_else(tmp_path_factory, arguments):
    """A real shell gives the arguments that `fit` is given; a value is never split or read again."""
    folder = tmp_path_factory.mktemp("shell")
    environment = {"METALR_DATA": "/my data/$(touch y)", "PATH": os.environ["PATH"]}
    script = "for each in " + command_line(arguments) + "; do printf '%s\\0' \"$each\"; done"
    shown = subprocess.run(["sh", "-c", script], cwd=folder, env=environment, capture_output=True, check=True)
    found = shown.stdout.decode().split("\0")[:-1]
    names = [name for name in references(arguments) if name != "METALR_DATA"]  # unset: empty in a shell
    assert list(folder.iterdir()) == []
    if not names:
        assert found == [REFERENCE.sub(lambda _: environment["METALR_DATA"], argument) for argument in arguments]


def test_references_stay_readable(monkeypatch):
    shown = command_line(["python", "train.py", "--data.path=$METALR_DATA/adult", "--name=a b"])
    assert shown == """python train.py --data.path="$METALR_DATA"/adult '--name=a b'"""
    assert references(["--a=${B}/$A", "$A", "$(C)"]) == ["A", "B"]
    monkeypatch.setenv("METALR_DATA", "/data")
    assert expand(["--data.path=${METALR_DATA}/adult"]) == ["--data.path=/data/adult"]


def test_what_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("FOLDER", raising=False)
    with pytest.raises(ValueError, match="FOLDER is not set: export FOLDER="):
        expand(["--a=$FOLDER"])
