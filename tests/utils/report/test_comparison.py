import json
import math
import re
import shutil
from pathlib import Path

import pytest

from tests.helpers.records import run_record, score_row
from utils.report import comparison
from utils.report.comparison import (
    Table,
    commands_of,
    comparison_tables,
    hardware_of,
    mean_and_deviation,
    protocol_text,
    revisions_of,
    table_2,
)
from utils.report.scored_rows import ComparisonRow, read_rows, starts_of

CLASS_NAMES = [f"class {c}" for c in range(19)]


def row(name: str, mious: list[float]) -> ComparisonRow:
    scores = tuple(score_row(miou) for miou in mious)
    return ComparisonRow(name, scores, tuple((run_record(seed),) for seed in range(len(mious))))


def test_means_and_deviations():
    """The sample standard deviation over the seeds; a single seed has none."""
    assert mean_and_deviation([30.0, 32.0]) == "31.00 ± 1.41"
    assert mean_and_deviation([30.0]) == "30.00"
    assert mean_and_deviation([]) == "-"


def test_published_rows_are_added_only_on_request():
    rows = [row("ours", [0.30, 0.32])]
    tables = comparison_tables(rows, published=True)
    assert "31.00 ± 1.41" in tables["md"]
    assert "light LAB-ADA (published)" in tables["md"]
    assert r"31.00 $\pm$ 1.41" in tables["tex"]
    assert tables["tex"].count(r"\\") == 1 + 5 + 1
    assert "published" not in comparison_tables(rows, published=False)["md"]


def test_class_names_add_table_1():
    both = comparison_tables([row("ours", [0.30, 0.32])], True, CLASS_NAMES)
    assert both["tex"].count(r"\\") == (1 + 5 + 1) + (1 + 3 + 1)
    cells = [[cell.strip() for cell in line.split("|")] for line in both["md"].splitlines()]
    assert ["light LAB-ADA (published)", "87.68", "35.40"] in [line[1:4] for line in cells]
    assert ["ours", "25.00 ± 0.00", "25.00 ± 0.00"] in [line[1:4] for line in cells]


def test_the_number_of_seeds_can_be_left_out():
    """The table of eval.py has one seed a row; the other columns are the same."""
    full, short = (table_2([row("ours", [0.3])], True, seeds=seeds) for seeds in (True, False))
    column = full.header.index("seeds")
    assert short.header == [*full.header[:column], *full.header[column + 1 :]]
    for line, longer in zip(short.lines, full.lines, strict=True):
        assert line == [*longer[:column], *longer[column + 1 :]]


def test_an_undefined_score_is_a_dash():
    """A class, or a whole split, without pixels has NaN as its score."""
    nothing = ComparisonRow("ours", (score_row(float("nan"), iou=[float("nan")] * 19),))
    assert table_2([nothing], published=False).lines[0][1] == "-"
    assert nothing.class_values(0) == []


def test_the_number_of_classes_is_that_of_all_seeds():
    """A seed that predicts a class which is not there has one class more in its mean."""
    seeds = (score_row(0.3) | {"averaged": 18}, score_row(0.3) | {"averaged": 17})
    table = table_2([ComparisonRow("ours", seeds)], published=False)
    assert table.lines[0][table.header.index("classes")] == "17, 18"


def test_columns_have_different_names():
    header = table_2([row("ours", [0.3])], published=False).header
    assert len(set(header)) == len(header)


def test_rows_of_other_images_are_refused(tmp_path):
    """The error names both files."""
    for seed, images in ((0, 500), (1, 250)):
        run = tmp_path / f"seed{seed}/ada"
        run.mkdir(parents=True)
        (run / "config.json").write_text(json.dumps([run_record(seed)]))
        content = {"images": images, "split": "val", "classes": ["road"], "rows": [score_row()]}
        run.with_suffix(".json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"seed0/ada.json.* 500 .*seed1/ada.json on 250 "):
        read_rows(tmp_path, {"ada": "ADA"})


def test_any_name_is_latex():
    """Signs that LaTeX reserves are escaped in names of rows."""
    table = Table(["row"], [[r"lr^2 #1 {a} ~b $d \c 5%_x&y"]])
    row = comparison._latex(table).splitlines()[4]
    bare = re.sub(r"\\text\w+{}|\\[#%&_${}]|\\\\$", "", row)
    assert not set(bare) & set("^#{}~$\\%&_")


def test_undefined_scores_are_left_out(tmp_path):
    """JSON has null for the IoU of a class that does not occur; older files have NaN."""
    seeds = Path(__file__).parents[3] / "docs/scores/beyond/seed0"
    name = sorted(seeds.glob("*.json"))[0].stem
    content = json.loads((seeds / f"{name}.json").read_text())
    shutil.copytree(seeds / name, tmp_path / "seed0" / name)
    for undefined in (None, math.nan):
        content["rows"][0]["iou"][0] = content["rows"][0]["mean_class_accuracy"] = undefined
        (tmp_path / f"seed0/{name}.json").write_text(json.dumps(content))
        (found,) = read_rows(tmp_path, {name: name})
        assert found.class_values(0) == found.values("mean_class_accuracy") == []
        assert len(found.class_values(1)) == len(found.values("miou")) == 1


def test_the_scored_checkpoint_is_named():
    """A best.pt, which was chosen with labels, does not pass for the last checkpoint."""
    for file, text in (("last.pt", "last checkpoint"), ("best.pt", "best.pt")):
        score = score_row(0.5) | {"checkpoint": f"runs/ours/{file}"}
        assert protocol_text([ComparisonRow("ours", (score,))]).startswith(f"{text}, full")


def test_a_continued_run_is_of_all_that_trained_it():
    """Its first command and further ones that differ, each revision and machine; not starts that
    trained nothing of what was scored: killed before they saved, or after the scored step.
    """

    def start(first_step, git, *words, **changed):
        argv = ["train.py", "--name", "a", *words]
        return run_record(argv=argv, first_step=first_step, git=git, **changed)

    records = [
        start(0, "one", gpu="A100"),
        start(4, "killed", "--resume"),
        start(4, "two", "--resume", gpu="H100"),
        start(6, "two", "--max-steps", "9", "--resume", gpu="H100"),
        start(9, "ended at once", "--resume"),
    ]
    starts = starts_of(records, 9)
    assert commands_of(starts) == [
        "python train.py --name a",
        "python train.py --name a --max-steps 9 --resume",
    ]
    assert revisions_of(starts) == "one, two"
    assert hardware_of(starts) == "A100, torch 2, bf16; H100, torch 2, bf16"
    assert starts_of(records, 4) == (records[0],)
    assert starts_of([run_record()], 9) == (run_record(),)  # of before first_step was recorded
