"""scripts/select: candidates are ranked without labels, and a clear answer comes out."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from dataset.class_set_file import load_class_set
from scripts.select import __main__ as entry
from scripts.select import candidates, judgement, measuring
from tests.conftest import scene
from tests.helpers.networks import trained_like_network, write_checkpoint
from utils.benchmark import memory
from utils.evaluation.label_free import MEASURES
from utils.report.curves import Curve
from utils.training.checkpoint import read_checkpoint, save_checkpoint

COMMON = ["--workers", "0", "--device", "cpu", "--precision", "fp32", "--pixels", "40"]


def run(*arguments):
    entry.main(entry.parse_arguments([*map(str, arguments), *COMMON]))


def write_run(folder, steps=(10, 20), last=None, seed=0, **metadata):
    """Snapshots, and a last.pt of step ``last`` if given; each has weights of its own."""
    paths = {f"step_{step:07d}.pt": step for step in steps} | ({"last.pt": last} if last else {})
    for number, (name, step) in enumerate(paths.items()):
        options = {"step": step, **metadata}
        write_checkpoint(folder / name, f"{folder.name}-step{step}", seed + number, **options)
    return folder


def spoil(path, make):
    """Changes the network of a checkpoint by ``make(network)``."""
    content, network = read_checkpoint(path), trained_like_network()
    network.load_state_dict(content["parts"]["model"])
    with torch.no_grad():
        make(network)
    kept = {key: value for key, value in content.items() if key not in ("format", "parts")}
    save_checkpoint(path, {"model": network}, **kept)


def one_class_everywhere(network):
    network.head.weight.zero_()
    network.head.bias[3] = 20


def rows_of(path) -> dict:
    return {row["name"]: row for row in json.loads(path.read_text())["candidates"]}


def test_two_runs_are_ranked_without_opening_a_label(cityscapes_root, tmp_path, capsys):
    """Every measure has its values and ranks; a network of one class comes last by InfoMax."""
    shutil.rmtree(cityscapes_root / "gtFine")
    runs = write_run(tmp_path / "a", (10, 20)), write_run(tmp_path / "b", (10,), last=20, seed=1)
    spoil(runs[0] / "step_0000020.pt", one_class_everywhere)
    result = tmp_path / "select.json"
    run(*runs, "--cityscapes", cityscapes_root, "--images", 3, "--json", result)
    said, rows = capsys.readouterr().out, rows_of(result)
    assert list(rows) == ["a-step10", "a-step20", "b-step10", "b-step20"]
    collapsed = rows["a-step20"]
    assert collapsed["ranks"]["infomax"] == 4
    assert collapsed["ranks"]["entropy"] == 1  # why entropy alone is not enough
    assert collapsed["ranks"]["shares"] == 4
    assert collapsed["class_shares"]["wall"] == 1
    for name in set(MEASURES) - {"teacher"}:
        assert all(row["values"][name] is not None for row in rows.values()), name
    assert all(row["values"]["teacher"] is None for row in rows.values())
    content = json.loads(result.read_text())
    assert content["images"] == 3
    assert (
        content["chosen"]
        == min(content["candidates"], key=lambda row: row["ranks"][content["by"]])["checkpoint"]
    )
    assert f"Use {content['chosen']}: first by" in said
    assert "4 checkpoints on 3 unlabelled images" in said
    assert "How far to trust it" in said


def test_seeds_of_one_name_are_told_apart(cityscapes_root, tmp_path):
    """All seeds of a comparison have the name of their row; reports show pictures of each."""
    files = [write_checkpoint(tmp_path / f"seed{seed}/last.pt", "a", seed) for seed in range(2)]
    result = tmp_path / "select.json"
    run(*files, "--cityscapes", cityscapes_root, "--images", 1, "--json", result)
    assert list(rows_of(result)) == [f"a ({file})" for file in files]


def test_a_run_that_still_saves_is_told_by_its_weights(cityscapes_root, tmp_path, monkeypatch):
    """The step of last.pt is that of the weights that were measured, not of an earlier save."""
    folder, sample_images = write_run(tmp_path / "a", (10,), last=20), entry.sample_images

    def saves_meanwhile(args):
        write_checkpoint(folder / "last.pt", "a", 7, step=30)
        return sample_images(args)

    monkeypatch.setattr(entry, "sample_images", saves_meanwhile)
    result = tmp_path / "select.json"
    run(folder, "--cityscapes", cityscapes_root, "--images", 1, "--json", result)
    last = json.loads(result.read_text())["candidates"][-1]
    assert (last["step"], last["values"]["last"]) == (30, 30)


def test_the_measure_can_be_chosen(cityscapes_root, tmp_path, capsys):
    """The rankings are the same; another candidate may be recommended."""
    folder = write_run(tmp_path / "a", (10, 20))
    for by, chosen in (("entropy", "step_0000010.pt"), ("last", "step_0000020.pt")):
        spoil(folder / "step_0000010.pt", one_class_everywhere)
        run(folder, "--cityscapes", cityscapes_root, "--by", by, "--images", 1)
        assert f"Use {folder / chosen}: first by" in capsys.readouterr().out


def test_an_average_is_of_the_run_of_its_snapshots(tmp_path, cityscapes_root):
    """Wherever its file lies: it is no other run, with which others could agree."""
    one = write_run(tmp_path / "runs/a", run="a", settings={"output": "runs"})
    average = write_checkpoint(
        tmp_path / "mean.pt",
        "a-average",
        5,
        run="a",
        step=20,
        settings={"output": "runs", "averaged": {"steps": [10, 20]}},
    )
    found = candidates.find_candidates([one, average])
    assert candidates.runs_of(found) == [str(one)] * 3
    result = tmp_path / "select.json"
    run(one, average, "--cityscapes", cityscapes_root, "--images", 2, "--json", result)
    assert all(row["values"]["seeds"] is None for row in rows_of(result).values())


def test_a_run_folder_gives_its_snapshots_and_last(tmp_path):
    """Not best.pt, and of a step that both hold only last.pt."""
    folder = write_run(tmp_path / "a", (10, 20), last=20)
    write_checkpoint(folder / "best.pt", "best", 9, step=10)
    files = [path.name for path in candidates.checkpoint_files(folder)]
    assert files == ["step_0000010.pt", "last.pt"]


def test_warnings_of_the_runs_are_shown(cityscapes_root, tmp_path, capsys):
    folder = write_run(tmp_path / "a", (10, 20))
    (folder / "config.json").write_text(json.dumps([{"warnings": ["step 15: sky collapses"]}]))
    run(folder, "--cityscapes", cityscapes_root, "--images", 1)
    assert "a: step 15: sky collapses" in capsys.readouterr().out


def test_scores_judge_the_measures(cityscapes_root, tmp_path, capsys):
    """From files of eval.py, whatever the name of a checkpoint's file: its run and step count."""
    folder, scores = write_run(tmp_path / "a", (10, 20), last=30), tmp_path / "scores.json"
    rows = [
        {"checkpoint": str(folder / "step_0000010.pt"), "step": 10, "miou": 0.3},
        {"checkpoint": str(folder / "step_0000020.pt"), "step": 20, "miou": 0.5},
        {"checkpoint": str(folder / "step_0000030.pt"), "step": 30, "miou": 0.1},
        {"checkpoint": str(tmp_path / "other/last.pt"), "step": 30, "miou": 0.9},
    ]
    scores.write_text(json.dumps({"rows": rows}))
    run(folder, "--cityscapes", cityscapes_root, "--images", 1, "--scores", scores)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| step ")]
    assert len(lines) == 2  # within the run, and all together
    for line in lines:
        cells = [cell.strip() for cell in line.split("|")[2:-1]]
        assert cells == ["-0.50", "10.00", "10.00", "30.00", "50.00", "3", "1"]


def test_two_checkpoints_have_no_rank_correlation():
    """A dash stands for what is not defined, here as in all tables."""
    found = [
        candidates.Candidate(
            Path(f"a/{step}.pt"), {"name": "a", "step": step, "settings": {}}, {"last": step}
        )
        for step in (1, 2)
    ]
    miou = {candidate.key: 0.1 * candidate.step for candidate in found}
    table = judgement.judgement_table(found, miou)
    assert re.search(r"^\| step +\| +- \| +20\.00 \|", table, re.MULTILINE)
    assert "nan" not in table


def test_a_file_beside_a_run_has_scores_of_its_own(cityscapes_root, tmp_path, monkeypatch):
    """Also of the same step; where fewer than two are scored it is said before any prediction."""
    folder, scores = write_run(tmp_path / "a", (10,), last=20), tmp_path / "scores.json"
    shutil.copy(folder / "step_0000010.pt", folder / "step_0000010-adabn.pt")
    files = [folder / name for name in ("step_0000010.pt", "step_0000010-adabn.pt", "last.pt")]
    rows = [
        {"checkpoint": str(file), "step": step, "miou": miou}
        for file, step, miou in zip(files, (10, 10, 20), (0.3, 0.5, 0.4), strict=True)
    ]
    scores.write_text(json.dumps({"rows": rows}))
    found, miou = candidates.find_candidates(files), judgement.read_miou([scores])
    assert [miou[candidate.key] for candidate in found] == [0.3, 0.5, 0.4]
    monkeypatch.setattr(entry, "predict_sample", lambda *given: pytest.fail("it was predicted"))
    moved = folder.rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="which name .*/a .*the first candidate is .*/moved"):
        run(moved, "--cityscapes", cityscapes_root, "--images", 1, "--scores", scores)


@pytest.mark.parametrize("measure", ["teacher", "seeds"])
def test_a_measure_that_no_candidate_has_is_refused(
    cityscapes_root, tmp_path, monkeypatch, measure
):
    """Before the first prediction: snapshots of one run, which had no teacher."""
    monkeypatch.setattr(entry, "predict_sample", lambda *given: pytest.fail("it was predicted"))
    folder = write_run(tmp_path / "a", (10, 20))
    with pytest.raises(ValueError, match=f"--by {measure}: .* Choose another measure"):
        run(folder, "--cityscapes", cityscapes_root, "--images", 1, "--by", measure)


def test_expected_class_shares_may_be_given(cityscapes_root, tmp_path):
    """A candidate that predicts nothing but the expected class comes first by shares."""
    folder = write_run(tmp_path / "a", (10, 20, 30))
    spoil(folder / "step_0000020.pt", one_class_everywhere)
    shares, result = tmp_path / "shares.json", tmp_path / "select.json"
    shares.write_text('{"wall": 2}')
    words = [folder, "--cityscapes", cityscapes_root, "--images", 1, "--json", result]
    run(*words, "--class-shares", shares)
    assert rows_of(result)["a-step20"]["ranks"]["shares"] == 1
    assert rows_of(result)["a-step20"]["values"]["shares"] == 0


def other_classes() -> dict:
    names = [f"class {number}" for number in range(19)]
    values = {name: [number + 1] for number, name in enumerate(names)}
    ids = {"read": "index", "ignored": [0], "classes": values}
    other = {"classes": names, "encodings": {"ids": ids}}
    return {"class_set": load_class_set("cityscapes19").as_dict() | other}


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: write_run(folder, (10,)), "there is nothing to rank"),
        (lambda folder: folder.mkdir(), "No checkpoint in"),
        (
            lambda folder: [
                write_checkpoint(folder / "step_0000010.pt", "a", 0),
                write_checkpoint(folder / "step_0000020.pt", "b", 0, **other_classes()),
            ],
            "differ in their classes",
        ),
        (
            lambda folder: [
                write_checkpoint(folder / "step_0000010.pt", "a", 0),
                write_checkpoint(
                    folder / "step_0000020.pt",
                    "b",
                    0,
                    architecture=trained_like_network().architecture | {"fusion_channels": 32},
                ),
            ],
            "differ in their architecture",
        ),
    ],
    ids=["one", "none", "classes", "architecture"],
)
def test_what_cannot_be_ranked_is_refused(cityscapes_root, tmp_path, prepare, message):
    prepare(tmp_path / "run")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(tmp_path / "run", "--cityscapes", cityscapes_root)


def test_a_default_that_is_given_is_the_same_architecture(tmp_path):
    """--fusion-channels 19 for 19 classes is what a run without the flag has."""
    architecture = trained_like_network().architecture | {"fusion_channels": 19}
    files = [tmp_path / "step_0000010.pt", tmp_path / "step_0000020.pt"]
    write_checkpoint(files[0], "a", 0)
    write_checkpoint(files[1], "b", 0, architecture=architecture)
    assert len(candidates.find_candidates(files)) == 2


def test_a_target_without_images_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="No image at"):
        run(write_run(tmp_path / "a"), "--target", tmp_path / "empty")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"shares\.json is no JSON .* Expected class shares such as"),
        ("[]", r"shares\.json holds a list\. Expected class shares such as"),
        ('{"moon": 1}', "unknown classes moon"),
        ('{"sky": null}', r"shares\.json: sky has null\. Expected numbers"),
        ('{"sky": "abc"}', r"shares\.json: sky has the text 'abc'\. Expected numbers"),
        ('{"sky": NaN}', "sky has NaN"),
        ('{"sky": 0}', "not all"),
    ],
)
def test_wrong_class_shares_are_refused(tmp_path, content, message):
    path = tmp_path / "shares.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        measuring.read_class_shares(path, ["road", "sky"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "holds a list"),
        ('{"x": 1}', "has no rows; found x"),
        ('{"rows": [{"x": 1}]}', "its rows are not those of scored checkpoints"),
        ('{"rows": [{"checkpoint": "a.pt", "step": 1}]}', "its rows are not those"),
        ('{"rows": 3}', "its rows are not those"),
    ],
)
def test_wrong_files_of_scores_are_refused(tmp_path, content, message):
    """The error names the file, and what writes the right one."""
    path = tmp_path / "scores.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"scores\.json:? ?{message}.*eval\.py --json"):
        judgement.read_miou([path])
    with pytest.raises(FileNotFoundError, match=r"No file .*absent\.json"):
        judgement.read_miou([tmp_path / "absent.json"])


def test_a_damaged_record_of_a_run_does_not_end_a_ranking(tmp_path):
    folder = write_run(tmp_path / "a", (10,))
    (folder / "config.json").write_text("[")
    candidate = candidates.Candidate(folder / "step_0000010.pt", {})
    (warning,) = candidates.collapse_warnings([candidate])
    assert "config.json is no JSON" in warning


def test_targets_too_large_for_memory_are_refused(cityscapes_root, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 1_000_000)
    with pytest.raises(ValueError, match="Shrink it"):
        run(write_run(tmp_path / "a"), "--cityscapes", cityscapes_root)


def test_small_targets_are_ranked_on(tmp_path, capsys):
    """Images below the 32 pixels that the network takes."""
    (tmp_path / "images").mkdir()
    for number in range(2):
        Image.fromarray(scene(number, (20, 40))[0]).save(tmp_path / f"images/{number}.png")
    run(write_run(tmp_path / "a"), "--target", tmp_path / "images")
    assert "2 unlabelled images" in capsys.readouterr().out


def test_the_agreement_of_the_teacher_is_the_mean_before_a_step():
    curve = Curve([10, 100, 150, 200, 210], [0.0, 0.1, 0.5, 0.7, 0.9])
    assert measuring.teacher_agreement(curve, 200) == pytest.approx(0.6)
    assert measuring.teacher_agreement(curve, 400) is None
    assert measuring.teacher_agreement(None, 200) is None


def test_the_file_of_values_is_tested_first(cityscapes_root, tmp_path, monkeypatch):
    """A folder, and a file that is read, are refused before the first prediction."""
    folder, scores = write_run(tmp_path / "a"), tmp_path / "scores.json"
    scores.write_text('{"rows": [{"checkpoint": "a.pt", "step": 1, "miou": 0.5}]}')
    monkeypatch.setattr(entry, "predict_sample", lambda *given: pytest.fail("it was predicted"))
    words = [folder, "--cityscapes", cityscapes_root, "--scores", scores, "--json"]
    for path in (tmp_path, scores, folder / "step_0000010.pt"):
        with pytest.raises(OSError, match="Cannot write .*: it is"):
            run(*words, path)
