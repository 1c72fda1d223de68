"""What is recorded of a run is what happened in it."""

import numpy as np
import pytest
import torch

from metalr.core.update_rule import log_reference
from metalr.inspection import MetaHistory, Recorder, Trace, store
from metalr.inspection.decimation import Decimation
from tests.inspection.runs import history, marked, recorded
from tests.problem import batches, make_run


@pytest.mark.parametrize("horizon", [True, False])
def test_a_trace_is_what_was_explained(policy, anytime_policy, horizon):
    chosen = policy if horizon else anytime_policy
    run = make_run("adam", chosen, 12 if horizon else None)
    recorder, explained = Recorder(run.meta_lr, Decimation()), []
    for batch in batches(12):
        run.train([batch])
        assert recorder.offer()
        assert not recorder.offer()  # no new decision
        explained.append(run.meta_lr.explain())
    recorder.state_dict()  # a checkpoint takes nothing away from what is to be logged
    fresh = recorder.drain()
    trace = recorder.trace
    assert len(fresh) == len(trace) == 12
    assert len(recorder.drain()) == 0
    assert trace.features == chosen.features
    np.testing.assert_allclose(trace.lr, [rates[0] for rates in run.rates], rtol=1e-5)
    reference = [1e-2 * np.exp(log_reference(t, 12 if horizon else None)) for t in range(12)]
    np.testing.assert_allclose(trace.reference, reference, rtol=1e-6)
    np.testing.assert_allclose(trace.log_multiplier, [each.log_multiplier for each in explained], atol=1e-6)
    np.testing.assert_allclose(np.diff(trace.log_multiplier), trace.change[1:], atol=1e-5)
    for row, each in enumerate(explained):
        assert trace.step[row] == each.step
        values = [(part.value, part.contribution) for part in each.features.values()]
        np.testing.assert_allclose(np.column_stack((trace.values[row], trace.contributions[row])), values, atol=1e-5)
        assert trace.constant[row] == pytest.approx(each.constant, abs=1e-5)
    assert np.all(np.abs(trace.contributions.sum(1) + trace.constant) <= trace.bound + 1e-5)
    assert np.all(trace.loss > 0)


def test_a_long_run_is_decimated_and_its_guards_are_all_counted(policy):
    run = make_run("sgd", policy, 90)
    recorder = Recorder(run.meta_lr, Decimation(8, 16))
    for index, batch in enumerate(batches(90)):
        run.train([batch], change=lambda loss, i=index: loss * float("nan") if i in (3, 41) else loss)
        recorder.offer()
        if recorder.pending == 5:
            recorder.resolve()
    recorder.resolve()
    trace = recorder.trace
    assert trace.step[:8].tolist() == list(range(8))
    assert len(trace) <= 25
    counts = trace.counts[:, trace.guards.index("non_finite")]
    assert counts[-1] == run.meta_lr.guard_counts["non_finite"] == 2
    assert counts[2] == 0
    assert counts[3] == 1


def test_a_trace_is_stored_and_read(policy, tmp_path):
    trace = marked(recorded(policy)[1].trace)
    trace.save(tmp_path / "deep" / "trace.safetensors")
    read = Trace.load(tmp_path / "deep" / "trace.safetensors")
    assert (read.features, read.guards, read.marks) == (trace.features, trace.guards, trace.marks)
    for name, array in trace.arrays.items():
        np.testing.assert_array_equal(getattr(read, name), array)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["trace.safetensors"]


def test_what_is_no_trace_is_refused(policy, tmp_path):
    (tmp_path / "junk").write_bytes(b"\x00" * 64)
    with pytest.raises(ValueError, match="junk is damaged"):
        Trace.load(tmp_path / "junk")
    policy.save(tmp_path / "policy.safetensors")
    with pytest.raises(ValueError, match=r"policy.safetensors (is damaged|holds)"):
        Trace.load(tmp_path / "policy.safetensors")


def test_a_trace_of_another_version_is_refused_in_one_line(policy, tmp_path):
    trace = recorded(policy)[1].trace
    arrays = {"nats" if name == "contributions" else name: array for name, array in trace.arrays.items()}
    words = {"features": trace.features, "guards": trace.guards, "marks": []}
    store.write(tmp_path / "old.safetensors", "metalr.trace", arrays, words)
    with pytest.raises(ValueError, match=r"old.safetensors was written by another version of metalr") as refusal:
        Trace.load(tmp_path / "old.safetensors")
    assert "contributions, nats differ" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    state = {"stride": 1, "arrays": {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}}
    recorder = Recorder(make_run("adam", policy, 90).meta_lr)
    with pytest.raises(ValueError, match="recorder's state was written by another version"):
        recorder.load_state_dict(state)


def test_a_history_of_another_version_is_refused(policy, tmp_path):
    kept = history(policy)
    arrays = {"grid": kept.grid, "step": kept.step, "curves": kept.curves, "0.marks": kept.runs[0].evaluation_steps}
    words = {"features": kept.features, "runs": ["task_a"], "runs_at": 0}
    store.write(tmp_path / "old.safetensors", "metalr.meta-history", arrays, words)
    with pytest.raises(ValueError, match=r"old.safetensors was written by another version of metalr"):
        MetaHistory.load(tmp_path / "old.safetensors")


def test_a_resumed_recorder_goes_on(policy, tmp_path):
    whole = recorded(policy)[1].trace
    run = make_run("adam", policy, 90)
    recorder = Recorder(run.meta_lr, Decimation(8, 16))
    for batch in batches(90)[:50]:
        run.train([batch])
        recorder.offer()
    torch.save({"run": run.state(), "recorder": recorder.state_dict()}, tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    resumed = make_run("adam", policy, 90, seed=3).load(state["run"])
    recorder = Recorder(resumed.meta_lr, Decimation(8, 16))
    recorder.load_state_dict(state["recorder"])
    assert not recorder.offer()  # nothing has been decided since
    for batch in batches(90)[50:]:
        resumed.train([batch])
        recorder.offer()
    recorder.finish()
    recorder.resolve()
    assert recorder.trace.step[-1] == 89
    assert recorder.trace.step.tolist() == whole.step.tolist()
    np.testing.assert_allclose(recorder.trace.contributions, whole.contributions, atol=1e-5)


def test_its_cost_is_measured(capsys):
    from benchmarks.inspection import main

    main(steps=130)
    printed = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert set(printed) == {"metalr_step_us", "left_out_us", "kept_us", "written_us", "bytes_a_decision"}
    assert 500 < float(printed["bytes_a_decision"]) < 3000
    with pytest.raises(ValueError, match="steps=3"):
        main(steps=3)
