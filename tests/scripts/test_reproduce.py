import argparse
import csv
import json
import shlex
import shutil
import sys

import pytest
import torch

import train
import train_da
from scripts.reproduce import __main__ as reproduce
from scripts.reproduce import earlier_runs, rows
from scripts.reproduce import preset as presets
from tests.helpers.forked import forked_child
from utils.training.checkpoint import read_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_networks")

TINY = ["--crop-size", 64, 64, "--batch-size", 2, "--workers", 0]
TINY += ["--device", "cpu", "--precision", "fp32"]


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


@pytest.mark.parametrize("preset", presets.preset_names())
def test_every_command_is_one_that_its_script_takes(preset, capsys):
    """The training scripts parse every command of every preset."""
    reproduce.main(
        arguments("some where/g", "c", "out", "--preset", preset, "--dry-run", "--seeds", 0, 3)
    )
    commands = [shlex.split(line)[1:] for line in capsys.readouterr().out.splitlines()]
    scripts = [command[0] for command in commands]
    assert scripts.count("eval.py") == sum(
        row.scored * (1 if row.single_seed else 2) for row in presets.preset_argument(preset).rows
    )
    for script, *words in commands:
        if script != "eval.py":
            args = {"train.py": train, "train_da.py": train_da}[script].parse_arguments(words)
            assert args.seed in (0, 3)
            assert str(args.output) == f"out/seed{args.seed}"


def test_rows_share_everything_but_the_method():
    """Rows of one table differ in nothing else."""
    preset = presets.preset_argument("small")
    values = {"gta5": "g", "cityscapes": "c", "steps": 9, "twice_steps": 18, "output": "o"}
    parsed = []
    for row in preset.rows:
        script, *words = rows.row_commands(preset, row, 0, values, ["19"], [])[0]
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
    monkeypatch.setattr(rows, "run_child", forked_child)
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
    records = list(csv.DictReader((tmp_path / "out/tables.csv").open()))
    scores = json.loads((tmp_path / "out/seed1/source-only.json").read_text())["rows"][0]
    assert [(row["row"], row["seed"]) for row in records] == [
        ("source-only", "0"),
        ("source-only", "1"),
    ]
    assert float(records[1]["miou"]) == scores["miou"]
    assert float(records[1]["iou car"]) == scores["iou"][13]
    assert (
        "light LAB-ADA; strong; oracle" in (tmp_path / "out/report.html").read_text()
    )  # not trained yet
    before = (tmp_path / "out/seed0/source-only/last.pt").stat().st_mtime_ns
    capsys.readouterr()
    reproduce.main(args)
    assert "$ python" not in capsys.readouterr().out
    assert (tmp_path / "out/seed0/source-only/last.pt").stat().st_mtime_ns == before


def test_a_row_that_fails_says_so_and_keeps_the_others(
    gta5_root, cityscapes_root, tmp_path, monkeypatch
):
    monkeypatch.setattr(rows, "run_child", forked_child)
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
    with pytest.raises(ChildProcessError, match="Fix its cause"):
        reproduce.main(args)
    assert (tmp_path / "out/seed0/start/last.pt").exists()


def test_a_stopped_row_is_not_scored(tmp_path, monkeypatch):
    """A checkpoint that is not finished ends the comparison."""
    monkeypatch.setattr(rows, "run_command", lambda command, **_: None)
    monkeypatch.setattr(rows, "read_checkpoint", lambda path: {"finished": False})
    with pytest.raises(ChildProcessError, match="stopped before its end"):
        rows.run_row([["train.py"], ["eval.py"]], tmp_path / "row")


def test_unknown_rows_are_named(capsys):
    with pytest.raises(SystemExit):
        arguments("g", "c", "o", "--rows", "magic")
    assert "no row 'magic'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("beyond", "'beyond' is now called 'extended'"),
        ("magic", "expected one of demo, extended"),
        ("absent.toml", "no preset 'absent.toml'"),
    ],
)
def test_unknown_presets_are_named(preset, message, capsys):
    """An old name ends with the new one, an unknown one with the names that exist."""
    with pytest.raises(SystemExit):
        arguments("g", "c", "o", "--preset", preset)
    assert message in capsys.readouterr().err


def test_a_preset_of_ones_own_is_a_file(tmp_path, capsys):
    """Parts may name parts; the steps are those of the preset unless --steps is given."""
    (tmp_path / "mine.toml").write_text(
        """
        description = "one row"
        steps = 7
        parts.base = "train.py --train-on source --gta5 {gta5} {length}"
        parts.length = "--max-steps {steps}"
        rows = [{ name = "my row", command = "{base} --lr 0.1" }]
        """
    )
    reproduce.main(arguments("g", "c", "out", "--preset", tmp_path / "mine.toml", "--dry-run"))
    train_command, evaluation = capsys.readouterr().out.splitlines()
    assert "--gta5 g --max-steps 7 --lr 0.1 --seed 0" in train_command
    assert "out/seed0/my-row/last.pt --cityscapes c" in evaluation


def test_a_preset_extends_another(tmp_path, capsys):
    """Parts are replaced, shared flags added, rows of the same name replaced, new ones come last.

    A chain of files is followed, each relative to its own folder.
    """
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/first.toml").write_text(
        """
        base = "imagenet"
        common = "--momentum 0.8"
        parts = { target_data = "--target {cityscapes} --target-layout folders" }
        """
    )
    (tmp_path / "second.toml").write_text(
        """
        base = "folder/first.toml"
        steps = 7
        evaluation = "--tta flip"
        parts = { target_images = "" }
        rows = [{ name = "mine", command = "{source}" }, { name = "strong", command = "{source}" }]
        """
    )
    rows_before = [row.name for row in presets.preset_argument("imagenet").rows]
    preset = presets.preset_argument(str(tmp_path / "second.toml"))
    assert [row.name for row in preset.rows] == [*rows_before, "mine"]
    words = ["--rows", "oracle", "strong", "--dry-run", "--preset", tmp_path / "second.toml"]
    reproduce.main(arguments("g", "c", "out", *words))
    oracle, evaluation, strong, _ = capsys.readouterr().out.splitlines()
    assert "--fusion-channels 128" in oracle
    assert "--max-steps 7 " in oracle
    assert "--momentum 0.8 --train-on target --target c --target-layout folders" in oracle
    assert "--train-on source --gta5 g --seed" in strong
    assert "--tta flip" in evaluation


def test_a_base_that_cannot_be_is_refused(tmp_path):
    """A circle of files, and a file that is not there."""
    for name, base in (("a", "b.toml"), ("b", "a.toml"), ("c", "d.toml")):
        (tmp_path / f"{name}.toml").write_text(f'base = "{base}"')
    for name, message in (("a", "extends itself"), ("c", "No preset")):
        with pytest.raises(argparse.ArgumentTypeError, match=message):
            presets.preset_argument(str(tmp_path / f"{name}.toml"))


def test_parts_may_stand_in_every_command(tmp_path, capsys):
    """In the shared arguments and in those of scoring, which also know the data sets."""
    (tmp_path / "mine.toml").write_text(
        """
        description = "one row"
        common = "{looks}"
        evaluation = "--list {cityscapes}/{scored}"
        parts = { looks = "--jitter 0.8", scored = "val.txt" }
        rows = [{ name = "a", command = "train.py --train-on source --gta5 {gta5}" }]
        """
    )
    reproduce.main(arguments("g", "c d", "out", "--preset", tmp_path / "mine.toml", "--dry-run"))
    training, evaluation = capsys.readouterr().out.splitlines()
    assert "train.py --jitter 0.8 --train-on" in training
    assert "--list 'c d/val.txt'" in evaluation


def test_what_is_scored_is_recorded_with_its_spaces(tmp_path):
    """comparison.json has the list that the evaluation command has."""
    (tmp_path / "mine.toml").write_text(
        """
        description = "one row"
        evaluation = "--list {cityscapes}/val.txt"
        rows = [{ name = "a", command = "train.py --train-on source --gta5 {gta5}" }]
        """
    )
    words = ["--preset", tmp_path / "mine.toml"]
    reproduce.write_comparison(arguments("g", "c d", tmp_path / "out", *words))
    assert json.loads((tmp_path / "out/comparison.json").read_text())["list"] == "c d/val.txt"


def test_an_image_is_left_out_of_a_row_only(capsys):
    """Not every row has it: after -- it would end those that do not."""
    with pytest.raises(SystemExit):
        arguments("g", "c", "o", "--", "--leave-out", "00003")
    assert "row's own command" in capsys.readouterr().err


@pytest.mark.parametrize("flag", [("--seed", 3), ("--name=x",), ("--output", "p"), ("--resume",)])
def test_what_differs_by_row_is_not_given_to_all(flag, capsys):
    """A --seed after -- would make equal runs of all seeds, with a standard deviation of 0."""
    with pytest.raises(SystemExit):
        arguments("g", "c", "o", "--", *flag)
    assert "after -- would be that of all rows and seeds" in capsys.readouterr().err


ROWS = """
description = ""
rows = [{{ name = "{}", command = "train.py {}" }}, {{ name = "{}", command = "train.py {}" }}]
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('parts.mine = "a"\ndescription = ""\nrows = []', "no command names the part 'mine'"),
        ('evaluation = 5\ndescription = ""\nrows = []', "is no preset"),
        ('evaluation = "--list {steps}"\ndescription = ""\nrows = []', r"names \{steps\}"),
        ("rows = [", "is no TOML file"),
        ('description = ""', "is no preset"),
        ('description = ""\nrows = [{ name = "a", command = "", seeds = 1 }]', "seeds"),
        ('description = ""\nrows = [{ name = "a", command = "{gta}" }]', r"names \{gta\}"),
        ('description = ""\nrows = [{ name = "a", command = "{steps}" }]', "without a default"),
        (
            'description = ""\nrows = [{ name = "a", command = "{gta5" }]',
            "Expected names in braces",
        ),
        ('description = ""\nrows = []', "has no rows"),
        ('description = ""\nrows = [{ name = "a", command = "" }]', "Expected train.py or"),
        (
            'description = ""\nrows = [{ name = "a", command = "eval.py a" }]',
            "Expected train.py or",
        ),
        (
            'description = ""\nrows = [{ name = "a", command = "train.py \'a" }]',
            "No closing quotation",
        ),
        (
            'description = ""\nrows = [{ name = 5, command = "train.py" }]',
            "name = 5. Expected a text",
        ),
        ('description = ""\nsteps = "9"\nrows = []', "steps = '9'. Expected a whole number"),
        (ROWS.format("a/b", "", "c", ""), "without / and"),
        (ROWS.format("A + b", "", "a-b", ""), "'A \\+ b' and 'a-b' have the same folder"),
        (ROWS.format("a", "--init {output}/b/last.pt", "b", ""), "move that row up"),
        (ROWS.format("a", "", "b", "").replace("rows", "steps = 5\nrows"), "no command names"),
        (ROWS.format("a", "", "a", "").replace("rows", 'base = "demo"\nrows'), "two rows 'a'"),
        (ROWS.format("a", "--seed=3", "b", ""), "gives --seed, which scripts.reproduce adds"),
    ],
)
def test_a_faulty_preset_is_refused(tmp_path, text, message):
    """The error names the field or the placeholder that is not known."""
    (tmp_path / "faulty.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        presets.read_preset(tmp_path / "faulty.toml")


def test_steps_without_effect_are_refused(capsys):
    """The rows of the paper take their steps from the recipe."""
    with pytest.raises(SystemExit):
        arguments("g", "c", "o", "--preset", "paper", "--steps", 5)
    assert "take their steps from the recipes" in capsys.readouterr().err


def test_python_is_the_one_that_runs_the_script(monkeypatch):
    seen = []
    monkeypatch.setattr(rows, "run_child", lambda command, quiet: seen.append(command) or (0, None))
    rows.run_command(["train.py"])
    assert seen == [[sys.executable, "train.py"]]


DEMO = presets.preset_argument("demo")
VALUES = {"gta5": "g", "cityscapes": "c", "steps": 1, "twice_steps": 2}


def finished_row(folder, training=()):
    """The commands of source-only, and a run folder with scores as these leave them."""
    values = VALUES | {"output": folder}
    row = next(row for row in DEMO.rows if row.name == "source-only")
    commands = rows.row_commands(DEMO, row, 0, values, ["19"], list(training))
    run = folder / row.folder
    run.mkdir(parents=True, exist_ok=True)
    return commands, run


OWN = """
description = "own classes"
common = "--class-set town.toml"
evaluation = "EVALUATION"
rows = [{ name = "lr-2.5e-4", command = "train.py --train-on source --gta5 {gta5}" }]
"""


@pytest.mark.parametrize("evaluation", ["--tta flip", "--classes flat"])
def test_a_preset_of_other_classes(tmp_path, evaluation):
    """Classes of Cityscapes are never asked for; those of the preset stay, --classes wins.

    The file may begin with the mark that Windows' editors write.
    """
    file = tmp_path / "own.toml"
    file.write_text(OWN.replace("EVALUATION", evaluation), encoding="utf-8-sig")
    preset = presets.preset_argument(str(file))
    values = VALUES | {"output": tmp_path}
    words = [preset, preset.rows[0], 0, values]
    _, evaluate = rows.row_commands(*words, None, [])
    assert evaluate[4:-2] == evaluation.split()
    _, evaluate = rows.row_commands(*words, ["human"], [])
    assert earlier_runs.flags_of(evaluate)["--classes"] == ["human"]


def test_scores_of_earlier_versions_are_kept(tmp_path):
    """They were made with --classes 19, which is all classes; fewer are scored again."""
    scores = tmp_path / "scores.json"
    for now, before, kept in (
        ([], ["--classes", "19"], True),
        (["--classes", "19"], [], True),
        ([], ["--classes", "19", "road"], False),
        (["--classes", "carla13"], ["--classes", "19"], False),
    ):
        start = ["eval.py", "a.pt", "--cityscapes", "c"]
        scores.write_text(json.dumps({"argv": [*start, *before, "--json", "s"]}))
        assert earlier_runs.is_scored([*start, *now, "--json", "s"], scores) == kept


def test_scores_of_a_row_whose_name_has_a_dot(tmp_path, monkeypatch):
    """They are found where the row's command writes them."""
    preset = presets.Preset("p", "", (presets.Row("lr-2.5e-4", "train.py --lr 2.5e-4"),))
    values = VALUES | {"output": tmp_path}
    commands = rows.row_commands(preset, preset.rows[0], 0, values, None, [])
    run = tmp_path / "lr-2.5e-4"
    run.mkdir()
    (run / "config.json").write_text("[]")
    (tmp_path / "lr-2.5e-4.json").write_text(json.dumps({"argv": commands[1]}))
    monkeypatch.setattr(rows, "run_command", pytest.fail)
    rows.run_row(commands, run)


def test_rows_bring_those_that_they_begin_from():
    """--rows ADA trains the common start, too."""
    assert rows.needed_rows(DEMO, ["ADA"]) == {"ADA", "start"}
    assert rows.needed_rows(DEMO, ["oracle"]) == {"oracle"}
    assert rows.needed_rows(DEMO, None) == {row.name for row in DEMO.rows}


def test_what_is_asked_is_compared_with_what_is_there(tmp_path, monkeypatch):
    """Other steps and arguments are refused; other scoring is scored again; places may change."""
    (train_words, evaluate), run = finished_row(tmp_path / "a")
    (run / "config.json").write_text(json.dumps([{"argv": train_words}]))
    run.with_suffix(".json").write_text(json.dumps({"argv": evaluate}))
    commands = []
    monkeypatch.setattr(rows, "run_command", lambda words, **_: commands.append(words))
    monkeypatch.setattr(rows, "read_checkpoint", lambda path: {"finished": True})
    rows.run_row([train_words, evaluate], run)
    assert not commands
    other = [word if word != "1" else "3" for word in train_words]
    with pytest.raises(FileExistsError, match=r"--max-steps: 1 -> 3"):
        rows.run_row([other, evaluate], run)
    more = finished_row(tmp_path / "a", ["--lr", "1e-3"])[0]
    with pytest.raises(FileExistsError, match=r"--lr: 2e-2 -> 1e-3"):
        rows.run_row(more, run)
    precise = finished_row(tmp_path / "a", ["--device", "cpu", "--workers", "0"])[0]
    rows.run_row(precise, run)
    assert not commands
    (run / "last.pt").touch()
    rescored = [*evaluate, "--precision", "fp32"]
    rows.run_row([train_words, rescored], run)
    assert commands == [rescored]


def test_scoring_computes_where_training_does(tmp_path):
    """--device, --precision and --workers after -- go to eval.py, too."""
    _, evaluate = finished_row(tmp_path, ["--precision", "fp32", "--lr", "1", "--device", "cpu"])[0]
    assert evaluate[-4:] == ["--precision", "fp32", "--device", "cpu"]
    assert "--lr" not in evaluate


@pytest.mark.parametrize("words", [[], ["--one-table"]])
def test_one_table_hides_what_scoring_prints(gta5_root, tmp_path, monkeypatch, words):
    """The commands and their errors are still shown; training prints as ever."""
    (train_words, evaluate), run = finished_row(tmp_path / "a")
    hidden = {}

    def run_child(command, quiet):
        hidden[command[1]] = quiet
        return 0, None

    monkeypatch.setattr(rows, "run_child", run_child)
    monkeypatch.setattr(rows, "require_same_training", lambda *_: None)
    monkeypatch.setattr(rows, "read_checkpoint", lambda path: {"finished": True})
    run.with_suffix(".json").unlink(missing_ok=True)
    args = reproduce.parse_arguments(
        ["--gta5", str(gta5_root), "--cityscapes", str(tmp_path), *words]
    )
    (run / "last.pt").unlink(missing_ok=True)
    rows.run_row([train_words, evaluate], run, args.one_table)
    assert hidden == {"train.py": False, "eval.py": bool(words)}


def saved(run, weight, **settings):
    """A run folder with a finished checkpoint of one weight."""
    run.mkdir(parents=True, exist_ok=True)
    parts = {"model": torch.nn.Parameter(torch.tensor([weight]), requires_grad=False)}
    parts = {"model": torch.nn.ParameterDict(parts)}
    save_checkpoint(run / "last.pt", parts, finished=True, settings=settings)


def test_a_row_knows_the_weights_that_it_began_from(tmp_path, monkeypatch):
    """Where these were trained anew, neither a finished nor a stopped row is kept in silence.

    The same weights in another file are the same; a start that is gone is not asked for.
    """
    commands, run = finished_row(tmp_path)
    start, trained = tmp_path / "start", []
    saved(start, 1.0)

    def train_it(words, **_):
        trained.append(words[0])
        saved(run, 5.0)
        (run / "config.json").write_text(json.dumps([{"argv": commands[0]}]))
        run.with_suffix(".json").write_text(json.dumps({"argv": commands[1]}))

    monkeypatch.setattr(rows, "run_command", train_it)
    for weight in (1.0, 1.0, None):
        if weight is None:
            (start / "last.pt").unlink()
        else:
            saved(start, weight, resume=len(trained))
        rows.run_row(commands, run, origins=[start])
    assert trained == ["train.py"]
    saved(start, 2.0)
    with pytest.raises(FileExistsError, match="trained anew"):
        rows.run_row(commands, run, origins=[start])
    run.with_suffix(".json").unlink()
    with pytest.raises(FileExistsError, match="trained anew"):
        rows.run_row(commands, run, origins=[start])
    (run / "last.pt").unlink()
    rows.run_row(commands, run, origins=[start])
    rows.run_row(commands, run, origins=[start])
    assert trained == ["train.py"] * 2


def test_a_deleted_start_is_trained_for_unfinished_rows(tmp_path, monkeypatch):
    """Not for finished ones, which would then have begun from another network."""
    ran = []
    monkeypatch.setattr(reproduce, "run_row", lambda words, run, *_: ran.append(run.name))
    monkeypatch.setattr(reproduce, "run_command", lambda *_, **__: None)
    words = ["--gta5", "g", "--cityscapes", "c", "--steps", "1", "--output", str(tmp_path)]
    args = reproduce.parse_arguments([*words, "--rows", "source-only", "ADA"])
    seed = tmp_path / "seed0"
    values = VALUES | {"output": seed}
    for name in ("source-only", "ADA"):
        row = next(row for row in DEMO.rows if row.name == name)
        commands = rows.row_commands(DEMO, row, 0, values, None, [])
        (seed / row.folder).mkdir(parents=True)
        (seed / row.folder / "config.json").write_text("[]")
        (seed / f"{row.folder}.json").write_text(json.dumps({"argv": commands[1]}))
    reproduce.main(args)
    assert ran == ["source-only", "ada"]
    (seed / "ada.json").unlink()
    (seed / "ada/last.pt").touch()
    reproduce.main(args)  # it is only scored again, or goes on
    assert ran[2:] == ["source-only", "ada"]
    (seed / "ada/last.pt").unlink()
    reproduce.main(args)
    assert ran[4:] == ["start", "source-only", "ada"]


def test_files_of_other_rows_may_move_with_the_comparison():
    """--teachers below --output is the same file in another place; another row is another."""
    before = ["train_da.py", "--teachers", "a/seed0/strong/last.pt", "--output", "a/seed0"]
    moved = [word.replace("a/seed0", "/data/b/seed0") for word in before]
    assert not earlier_runs.changed_flags(moved, before)
    other = [word.replace("strong", "oracle") for word in moved]
    assert earlier_runs.changed_flags(other, before)


def plain(tmp_path, command, rows=""):
    """A preset of one's own with the row "a" of this command, and its file."""
    path = tmp_path / "own.toml"
    start = '[[rows]]\nname = "start"\nscored = false\ncommand = "train.py --lr 1"\n'
    path.write_text(f'description = ""\n{start}[[rows]]\nname = "a"\ncommand = "{command}"\n{rows}')
    return path


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("", "--init {output}/start/last.pt"),
        ("--init {output}/start/last.pt", ""),
        ("--init {output}/start/last.pt", "--init {output}/other/last.pt"),
    ],
)
def test_another_start_is_another_row(tmp_path, monkeypatch, before, now):
    """Refused before anything is trained, and before the record of the comparison is replaced."""
    (tmp_path / "out/seed0/other").mkdir(parents=True)

    def compare(command, *more):
        preset = plain(tmp_path, command)
        reproduce.main(arguments("g", "c", tmp_path / "out", "--preset", preset, *more))

    def write(words, **_):
        run = tmp_path / "out/seed0" / words[words.index("--name") + 1]
        saved(run, 1.0)
        (run / "config.json").write_text(json.dumps([{"argv": words}]))

    monkeypatch.setattr(rows, "run_command", write)
    monkeypatch.setattr(rows, "is_scored", lambda _command, scores: True)
    compare(f"train.py {before}")
    record = (tmp_path / "out/comparison.json").read_bytes()
    later = '[[rows]]\nname = "b"\ncommand = "train.py"\n'
    preset = plain(tmp_path, f"train.py {now}", later)
    with pytest.raises(FileExistsError, match="a was trained by another command.*--init"):
        reproduce.main(arguments("g", "c", tmp_path / "out", "--preset", preset))
    assert (tmp_path / "out/comparison.json").read_bytes() == record
    assert not (tmp_path / "out/seed0/b").exists()
    shutil.move(tmp_path / "out", tmp_path / "moved")
    preset = plain(tmp_path, f"train.py {before}")
    reproduce.main(arguments("g", "c", tmp_path / "moved", "--preset", preset))


def test_a_row_that_saved_nothing_begins_anew(tmp_path):
    """After an error in its first steps its command may be corrected."""
    commands, run = finished_row(tmp_path)
    (run / "config.json").write_text(json.dumps([{"argv": ["train.py", "--batch-size", "99"]}]))
    earlier_runs.require_same_training(commands, run)
    with pytest.raises(FileExistsError, match="another command"):
        earlier_runs.require_same_training(commands[:1], run)  # an old start: other rows hang on it


def test_a_start_that_is_no_row_is_named_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "run_command", lambda *_, **__: pytest.fail("trained"))
    preset = plain(tmp_path, "train.py --init {output}/strat/last.pt")
    args = arguments("g", "c", tmp_path / "out", "--preset", preset)
    with pytest.raises(FileNotFoundError, match="'a' begins from .*strat.*Did you mean 'start'"):
        reproduce.main(args)


@pytest.mark.parametrize("name", ["own.toml", "list.txt"])
def test_a_row_knows_the_files_that_it_was_trained_by(tmp_path, monkeypatch, name):
    """A recipe or a list that was edited makes another row; comments and moved folders do not."""
    file, run = tmp_path / name, tmp_path / "a"
    train, evaluate = ["train.py", "--recipe", str(file)], ["eval.py"]

    def write(words, **_):
        if words == train:
            saved(run, 1.0)
            (run / "config.json").write_text(json.dumps([{"argv": words}]))
        else:
            run.with_suffix(".json").write_text("{}")

    monkeypatch.setattr(rows, "run_command", write)
    file.write_text("lr = 1\n")
    rows.run_row([train, evaluate], run)
    file.write_text("lr  = 1\n" + "# why\n" * (file.suffix == ".toml"))
    rows.run_row([train, evaluate], run)
    file.write_text("lr = 2\n")
    with pytest.raises(FileExistsError, match=f"{name} had another content"):
        rows.run_row([train, evaluate], run)


def test_other_data_than_before_are_noted(tmp_path, monkeypatch, capsys):
    """The roots of a finished comparison may move; other images would not be trained on."""
    monkeypatch.setattr(reproduce, "run_row", lambda *_: None)
    preset = plain(tmp_path, "train.py")
    for source, expected in (("g", False), ("g", False), ("other", True)):
        reproduce.main(arguments(source, "c", tmp_path / "out", "--preset", preset))
        assert ("before -> now: g -> other" in capsys.readouterr().out) == expected


def test_a_single_seed_is_kept_by_a_later_start(tmp_path, monkeypatch, capsys):
    """A row with a single seed is not trained again for the seeds of a later start."""
    trained, output = [], tmp_path / "out"
    monkeypatch.setattr(reproduce, "run_row", lambda _, run, *__: trained.append(run))
    preset = plain(tmp_path, "train.py", "single_seed = true\n")

    def start(*seeds):
        trained.clear()
        reproduce.main(arguments("g", "c", output, "--preset", preset, "--seeds", *seeds))
        return [run.parent.name for run in trained if run.name == "a"]

    assert start(1, 2) == ["seed1"]
    (output / "seed1" / "a").mkdir(parents=True)
    save_checkpoint(output / "seed1" / "a" / "last.pt", {})
    assert start(0, 1) == ["seed1"]  # goes on, or is finished
    capsys.readouterr()
    assert start(0, 2) == []
    assert "which another start had: a (seed1)" in capsys.readouterr().out


def test_a_row_may_have_the_shared_arguments_alone():
    """A command that is only the script."""
    preset = presets.Preset("p", "", (presets.Row("a", "train.py"),), common="--lr 1")
    train_words, _ = rows.row_commands(
        preset, preset.rows[0], 0, VALUES | {"output": "o"}, None, []
    )
    assert train_words[:4] == ["train.py", "--lr", "1", "--seed"]
