import csv
import json
import shlex
import sys

import pytest

import train
import train_da
from scripts import reproduce
from tests.helpers.forked import ForkingSubprocess
from utils.report.comparison import ComparisonRow, comparison_tables, mean_and_deviation
from utils.training.checkpoint import read_checkpoint

TINY = [
    "--crop-size",
    "64",
    "64",
    "--batch-size",
    "2",
    "--workers",
    "0",
    "--device",
    "cpu",
    "--precision",
    "fp32",
]


def arguments(gta5, cityscapes, output, *more):
    return reproduce.parse_arguments(
        [
            "--gta5",
            str(gta5),
            "--cityscapes",
            str(cityscapes),
            "--output",
            str(output),
            *map(str, more),
        ]
    )


@pytest.mark.parametrize("preset", list(reproduce.PRESETS))
def test_every_command_is_one_that_its_script_takes(preset, capsys):
    reproduce.main(
        arguments("some where/g", "c", "out", "--preset", preset, "--dry-run", "--seeds", 0, 3)
    )
    commands = [shlex.split(line)[1:] for line in capsys.readouterr().out.splitlines()]
    scripts = [command[0] for command in commands]
    assert scripts.count("eval.py") == sum(
        row.scored * (1 if row.one_seed else 2) for row in reproduce.PRESETS[preset].rows
    )
    for script, *words in commands:
        if script != "eval.py":
            args = {"train.py": train, "train_da.py": train_da}[script].parse_arguments(words)
            assert args.seed in (0, 3)
            assert str(args.output) == f"out/seed{args.seed}"


def test_rows_share_everything_but_the_method():
    preset = reproduce.PRESETS["small"]
    values = {"gta5": "g", "cityscapes": "c", "seed": 0, "steps": 1000, "twice": 2000}
    parsed = []
    for row in preset.rows:
        script, *words = reproduce.row_commands(
            preset, row, reproduce.Path("o"), values, ["19"], []
        )[0]
        parsed.append(
            vars({"train.py": train, "train_da.py": train_da}[script].parse_arguments(words))
        )
    shared = (
        "lr",
        "max_steps",
        "schedule_steps",
        "batch_size",
        "crop_size",
        "scales",
        "flip",
        "backbone",
        "backbone_weights",
        "input",
        "weight_decay",
    )
    assert len({json.dumps([str(args[name]) for name in shared]) for args in parsed}) == 1


def test_a_comparison_is_trained_scored_and_not_repeated(
    gta5_root, cityscapes_root, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(reproduce, "subprocess", ForkingSubprocess)
    command = [
        "--preset",
        "demo",
        "--steps",
        1,
        "--seeds",
        0,
        1,
        "--rows",
        "start",
        "source-only",
        "--",
        *TINY,
    ]
    args = arguments(gta5_root, cityscapes_root, tmp_path / "out", *command)
    reproduce.main(args)
    for seed in (0, 1):
        assert read_checkpoint(tmp_path / f"out/seed{seed}/start/last.pt")["finished"]
    table = (tmp_path / "out/tables.md").read_text()
    assert "| source-only |" in table
    assert "start" not in table.split("\n\n")[0]
    assert "--init" in table
    rows = list(csv.DictReader((tmp_path / "out/tables.csv").open()))
    scores = json.loads((tmp_path / "out/seed1/source-only.json").read_text())["rows"][0]
    assert [(row["row"], row["seed"]) for row in rows] == [
        ("source-only", "0"),
        ("source-only", "1"),
    ]
    assert float(rows[1]["miou"]) == scores["miou"]
    assert float(rows[1]["iou car"]) == scores["iou"][13]
    assert "light LAB-ADA; oracle" in (tmp_path / "out/report.html").read_text()  # not trained yet
    before = (tmp_path / "out/seed0/source-only/last.pt").stat().st_mtime_ns
    capsys.readouterr()
    reproduce.main(args)
    assert "$ python" not in capsys.readouterr().out
    assert (tmp_path / "out/seed0/source-only/last.pt").stat().st_mtime_ns == before


def test_a_row_that_fails_says_so_and_keeps_the_others(
    gta5_root, cityscapes_root, tmp_path, monkeypatch
):
    monkeypatch.setattr(reproduce, "subprocess", ForkingSubprocess)
    args = arguments(
        gta5_root, cityscapes_root, tmp_path / "out", "--steps", 1, "--rows", "start", "--", *TINY
    )
    reproduce.main(args)
    args = arguments(
        gta5_root,
        tmp_path / "nothing",
        tmp_path / "out",
        "--steps",
        1,
        "--rows",
        "oracle",
        "--",
        *TINY,
    )
    with pytest.raises(ChildProcessError, match="Mend its cause"):
        reproduce.main(args)
    assert (tmp_path / "out/seed0/start/last.pt").exists()


def test_a_stopped_row_is_not_scored(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "run_command", lambda command: None)
    monkeypatch.setattr(reproduce, "read_checkpoint", lambda path: {"finished": False})
    with pytest.raises(ChildProcessError, match="stopped before its end"):
        reproduce.run_row([["train.py"], ["eval.py"]], tmp_path / "row")


def test_unknown_rows_are_named(capsys):
    with pytest.raises(SystemExit):
        arguments("g", "c", "o", "--rows", "magic")
    assert "no row 'magic'" in capsys.readouterr().err


def row(name, mious):
    score = {
        "pixel_accuracy": 0.5,
        "pixel_accuracy_with_void": 0.4,
        "mean_class_accuracy": 0.3,
        "averaged": 19,
        "warnings": [],
    }
    score |= {
        "model_parameters": 12_054_042,
        "model_gmac": 25.44,
        "classes": list(range(19)),
        "iou": [0.25] * 19,
    }
    record = {
        "argv": ["train.py"],
        "git": "abc",
        "gpu": None,
        "cpu": "x",
        "torch": "2",
        "seed": 0,
        "settings": {"precision": "bf16"},
    }
    return ComparisonRow(
        name, tuple(score | {"miou": miou} for miou in mious), (record,) * len(mious)
    )


def test_tables_have_means_and_deviations_and_published_rows_only_where_asked_for():
    tables = comparison_tables([row("ours", [0.30, 0.32])], published=True)
    assert "31.00 ± 1.41" in tables["md"]
    assert "light LAB-ADA (published)" in tables["md"]
    assert r"31.00 $\pm$ 1.41" in tables["tex"]
    assert tables["tex"].count(r"\\") == 1 + 5 + 1
    both = comparison_tables(
        [row("ours", [0.30, 0.32])], published=True, class_names=[f"class {c}" for c in range(19)]
    )
    assert both["tex"].count(r"\\") == (1 + 5 + 1) + (1 + 3 + 1)
    cells = [[cell.strip() for cell in line.split("|")] for line in both["md"].splitlines()]
    assert ["light LAB-ADA (published)", "87.68", "35.40"] in [line[1:4] for line in cells]
    assert ["ours", "25.00 ± 0.00", "25.00 ± 0.00"] in [line[1:4] for line in cells]
    assert "published" not in comparison_tables([row("ours", [0.3])], published=False)["md"]
    assert mean_and_deviation([30.0]) == "30.00"


def test_python_is_the_one_that_runs_the_script(monkeypatch):
    seen = []

    class Done:
        returncode = 0

    monkeypatch.setattr(
        reproduce.subprocess, "run", lambda command, **_: seen.append(command) or Done
    )
    reproduce.run_command(["train.py"])
    assert seen == [[sys.executable, "train.py"]]
