"""From a run to a SavedModel that takes text: what it answers, how it is published, and what is refused."""

import json
import os
import re
import shutil
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the operations that a session needs)

from apps.translate.__main__ import APP
from pipelines.cli import main
from pipelines.export.versions import existing
from pipelines.runs import Run
from pipelines.training.checkpoints import Checkpoints, Progress

TEXTS = ["The dog sleeps.", "A small cat sees the old house.", "Two big dogs."]


@pytest.fixture(scope="module")
def talkative(trained, tmp_path_factory):
    """The tiny run with noise on its weights: it has learnt to say nothing, and now says much, to each text its own."""
    run = Run(shutil.copytree(trained[0], tmp_path_factory.mktemp("runs") / "talkative"))
    task = APP.task()(run.read_config(APP), run)
    task.load()
    model = task.build_model()
    variables = {
        "averages": [v.value for v in model.trainable_variables],
        "state": [v.value for v in model.non_trainable_variables],
    }
    checkpoints = Checkpoints(run.checkpoints)
    checkpoints.restore(variables, checkpoints.steps()[-1])
    rng = np.random.default_rng(0)
    for variable in variables["averages"]:
        variable.assign_add(rng.normal(0, 0.7, variable.shape))
    checkpoints.save(variables, Progress(step=99, best_step=99))
    return run.path


@pytest.fixture(scope="module")
def exported(talkative, command, tmp_path_factory):
    """The versions' directory with version 1, and what the export printed."""
    output = tmp_path_factory.mktemp("saved_models")
    code, out, err = command("export", "--run-dir", talkative, "--output", output)
    assert code == 0, err
    return output / "translate", out


@pytest.fixture(scope="module")
def ask(exported):
    """Asks a signature through the session loader, as TensorFlow Serving does."""
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], str(exported[0] / "1")).signature_def

    def ask(texts, signature="serving_default"):
        fetches = {name: tensor.name for name, tensor in signatures[signature].outputs.items()}
        return session.run(fetches, {signatures[signature].inputs["text"].name: np.array(texts, object)})

    yield ask
    session.close()


def test_it_is_checked_and_published(exported, talkative):
    base, out = exported
    assert "all of which TensorFlow Serving runs; answers as recorded: explain 1 times, serving_default 2 times" in out
    assert re.search(rf"{base / '1'}: \d+\.\d MB", out)
    assert [found.name for found in base.iterdir()] == ["1"]
    files = {str(found.relative_to(base / "1")) for found in (base / "1").rglob("*") if found.is_file()}
    assert files >= {"saved_model.pb", "fingerprint.pb", "variables/variables.index"}
    assert "assets.extra/tf_serving_warmup_requests" in files
    origin = json.loads((base / "1" / "assets.extra" / "origin.json").read_text())
    assert origin["run"] == talkative.name and origin["steps"] == [99] and origin["options"]["search"]["beam"] == 4


def test_it_answers_as_predict_does(ask, talkative, command):
    _, out, _ = command("predict", "--run-dir", talkative, "--json", *TEXTS)
    rows = [json.loads(line) for line in out.splitlines()]
    found = ask(TEXTS)
    assert found.keys() == {"translation", "score"}
    assert [text.decode() for text in found["translation"]] == [row["text"] for row in rows]
    assert len({row["text"] for row in rows}) == len(TEXTS)
    np.testing.assert_allclose(found["score"], [row["score"] for row in rows], atol=2e-4)


def test_a_batch_is_as_good_as_its_rows_one_by_one(ask):
    together = ask([*TEXTS, "", "very " * 60])
    for row, text in enumerate([*TEXTS, ""]):
        alone = ask([text])
        assert alone["translation"][0] == together["translation"][row]
        np.testing.assert_allclose(alone["score"][0], together["score"][row], atol=1e-4)
    assert together["translation"][3] == b""
    assert ask([])["translation"].shape == (0,)


def test_texts_that_the_model_cannot_take(ask):
    with pytest.raises(tf.errors.InvalidArgumentError, match="more pieces than the model takes .*; split it"):
        ask(["a dog. " * 300])
    assert ask([b"\xff\xfe \x00"])["translation"].shape == (1,)


def test_the_explanation_is_the_translation_and_where_it_came_from(ask):
    found = ask(TEXTS, "explain")
    translation = ask(TEXTS)["translation"]
    np.testing.assert_array_equal(found["translation"], translation)
    for row, text in enumerate(translation):
        tokens = [token.decode() for token in found["translation_tokens"][row] if token]
        source = [token.decode() for token in found["source_tokens"][row] if token]
        assert "".join(tokens).replace("</s>", "").replace("\u2581", " ").strip() == text.decode()
        assert "".join(source) == "\u2581" + TEXTS[row].replace(" ", "\u2581") + "</s>"
        attention = found["attention"][row]
        np.testing.assert_allclose(attention[: len(tokens), : len(source)].sum(-1), 1.0, atol=1e-4)
        assert not attention[len(tokens) :].any() and not attention[:, len(source) :].any()


def export(trained, output, *flags):
    """In this process, which spares TensorFlow's start."""
    main(APP, ["export", "--run-dir", str(trained[0]), "--output", str(output), "--beam", "1", *flags])


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        export(*arguments)
    err = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and err.startswith("error: ") and "\n" not in err
    return err


@pytest.mark.slow
def test_a_model_in_half_precision(flags, tmp_path, capsys):
    run = tmp_path / "run"
    try:
        main(APP, ["train", "--run-dir", str(run), *flags, "--precision=mixed_bfloat16", "--max-steps=12"])
        export((run,), tmp_path, "--beam", "3")  # checked against its own answers
    finally:
        keras.config.set_dtype_policy("float32")
    assert "answers as recorded: explain 1 times, serving_default 2 times" in capsys.readouterr().out
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        path = str(tmp_path / "translate" / "1")
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], path).signature_def
        for signature in (signatures["serving_default"], signatures["explain"]):
            types = {tf.as_dtype(tensor.dtype) for tensor in signature.outputs.values()}
            assert types == {tf.string, tf.float32}
            feeds = {signature.inputs["text"].name: np.array([], object)}
            found = session.run({name: tensor.name for name, tensor in signature.outputs.items()}, feeds)
            assert all(len(value) == 0 for value in found.values())


def test_int8_weights_answer_as_predict_does_with_them(talkative, tmp_path, capsys):
    export((talkative,), tmp_path, "--quantize", "int8")
    assert "weights rounded to int8" in capsys.readouterr().out
    main(APP, ["predict", "--run-dir", str(talkative), "--beam=1", "--quantize=int8", "--json", *TEXTS])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    path = tmp_path / "translate" / "1"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(path)).signature_def["serving_default"]
        fetches = {name: tensor.name for name, tensor in signature.outputs.items()}
        found = session.run(fetches, {signature.inputs["text"].name: np.array(TEXTS, object)})
    assert [text.decode() for text in found["translation"]] == [row["text"] for row in rows]
    np.testing.assert_allclose(found["score"], [row["score"] for row in rows], atol=2e-4)
    stored = tf.train.load_checkpoint(str(path / "variables" / "variables")).get_variable_to_dtype_map()
    assert tf.int8 in stored.values()
    assert json.loads((path / "assets.extra" / "origin.json").read_text())["options"]["quantize"] == "int8"
    with pytest.raises(SystemExit) as stop:
        export((talkative,), tmp_path, "--quantize", "int4")
    assert stop.value.code == 2 and "int4" in capsys.readouterr().err


def test_versions_follow_each_other_and_old_ones_go(exported, trained, tmp_path, capsys):
    shutil.copytree(exported[0], tmp_path / "translate")
    export(trained, tmp_path, "--keep", "1", "--average", "2")
    assert [*existing(tmp_path / "translate")] == [2]
    assert re.search(r"step \d+, mean of 2 checkpoints from step \d+", capsys.readouterr().out)
    assert "2: exists; choose another --version" in refused(capsys, trained, tmp_path, "--version", "2")
    assert [*existing(tmp_path / "translate")] == [2]


def test_a_run_without_a_checkpoint(trained, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    assert "no checkpoint yet; train longer" in refused(capsys, (run,), tmp_path)
    assert not (tmp_path / "translate").exists()


def test_more_checkpoints_than_there_are(trained, tmp_path, capsys):
    err = refused(capsys, trained, tmp_path, "--average", "50")
    assert "--average 50: " in err and "or train with --keep-checkpoints 50" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("ro", "read-only file system; choose a path that can be written"),
        ("size=600k", "no space left on device; free"),
    ],
)
def test_a_disk_that_cannot_be_written(trained, tmp_path, capsys, options, complaint):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no right to mount")
    try:
        assert complaint in refused(capsys, trained, disk)
        assert list(disk.rglob("*")) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_explain_draws_a_picture_a_text(trained, tmp_path, capsys):
    flags = ["explain", "--run-dir", str(trained[0]), "--output", str(tmp_path), "--on-bad-example", "skip"]
    main(APP, [*flags, TEXTS[0], "", "Ein Straßenhund / läuft?"])
    out, err = capsys.readouterr()
    assert "skipped 1 of 3 rows: 2" in err
    files = sorted(found.name for found in tmp_path.iterdir())
    assert files == ["0001-the-dog-sleeps.png", "0003-ein-straßenhund-läuft.png"]
    assert str(tmp_path / files[0]) in out.splitlines()
    picture = tf.io.decode_png((tmp_path / files[0]).read_bytes()).numpy()
    assert picture.shape[2] == 3 and len(np.unique(picture)) > 20
    main(APP, [*flags[:3], TEXTS[0]])
    assert (trained[0] / "explain" / files[0]).exists()


def test_n_best(talkative, capsys):
    flags = ["predict", "--run-dir", str(talkative), "--n-best=3", "--beam=5", TEXTS[0]]
    main(APP, [*flags, "--json"])
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    scores = [answer["score"], *(other["score"] for other in answer["others"])]
    texts = {answer["text"], *(other["text"] for other in answer["others"])}
    assert len(scores) == 3 and scores == sorted(scores, reverse=True) and len(texts) >= 2
    main(APP, flags)
    assert capsys.readouterr().out.splitlines() == [answer["text"], *(other["text"] for other in answer["others"])]
