"""Draws the pictures of README and docs from the folder of a finished demo.

All show generated streets: methods.png (image, ground truth, each method), transfer.jpg (LAB color
transfer) and curves.svg (scores during training if they were logged, else the loss).
docs/images/carla_scores.png shows scores on real images; docs/research_log.md has its command.
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit(
        "error: start it in the project's folder: python -m scripts.draw_documentation"
    )

import shlex
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

from PIL import Image

from utils.files import output_folder, read_json_object
from utils.options.parser import new_parser, user_errors_without_traceback

EPILOG = """examples:
  python -m scripts.draw_documentation checkpoints/demo
  a run whose curves are scores, with the range of three seeds:
    python -m scripts.reproduce --preset demo --seeds 0 1 2 --output checkpoints/streets \\
        --gta5 demo_data/gta5 --cityscapes demo_data/cityscapes \\
        -- --cityscapes demo_data/cityscapes --validate-every 50
"""
NUM_STREETS = 5
CURVES = ("curves_val_miou.svg", "curves_loss_segmentation.svg")
"""In order of preference."""


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    parser = new_parser(__doc__, EPILOG)
    parser.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="of ./scripts/demo.sh, or of scripts.reproduce on generated streets",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("docs/images"),
        metavar="DIR",
        help="folder of the pictures",
    )
    return parser.parse_args(argv)


def run(*words: object) -> None:
    """Runs a script of this project. Raises ChildProcessError where it fails."""
    command = ["-m", *map(str, words)]
    print(f"$ python {shlex.join(command)}", flush=True)
    done = subprocess.run([sys.executable, *command], check=False, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise ChildProcessError(
            "The command above failed; its message says why. No picture was changed by it."
        )


def read_demo(folder: Path) -> tuple[Path, Path, list[Path]]:
    """The source and target roots of a demo, and the checkpoints of its rows.

    Raises FileNotFoundError where the demo is not finished, ValueError for other data sets.
    """
    record = folder / "comparison.json"
    if not record.is_file():
        raise FileNotFoundError(
            f"No {record}. Expected the folder of a finished demo: run ./scripts/demo.sh {folder}"
        )
    keys = ("gta5", "cityscapes", "rows")
    comparison = read_json_object(record, keys, "the record of scripts.reproduce")
    source, target = Path(comparison["gta5"]), Path(comparison["cityscapes"])
    if not (target.parent / "demo.json").is_file():
        raise ValueError(
            f"{folder} was trained on {target}, which scripts.make_demo_data did not draw. Give a"
            " demo's folder."
        )
    checkpoints = [folder / f"seed0/{row}/last.pt" for row in comparison["rows"]]
    absent = [path for path in checkpoints if not path.is_file()]
    if absent:
        raise FileNotFoundError(
            f"No {absent[0]}. The demo is not finished: give its command again, and it continues."
        )
    return source, target, checkpoints


def main(args: Namespace) -> None:
    source, target, checkpoints = read_demo(args.folder)
    streets = sorted(target.glob("leftImg8bit/val/*/*.png"))[:NUM_STREETS]
    output_folder(args.output)

    run("scripts.summarise", args.folder)
    drawn = args.folder / "documentation"
    compared = ["--labels", target / "gtFine", "--compare", *checkpoints, "--output", drawn]
    run("scripts.predict", *streets, *compared)
    roots = ["--gta5", source, "--cityscapes", target]
    layout = ["--rows", 3, "--width", 300, "--output", drawn / "transfer.png"]
    run("scripts.preview_transfer", *roots, *layout)

    # Small files for the pages: flat colors with a palette, photographs as JPEG.
    methods = Image.open(drawn / "comparison.png").quantize(256)
    methods.save(args.output / "methods.png", optimize=True)
    Image.open(drawn / "transfer.png").save(args.output / "transfer.jpg", quality=88)
    curves = next(args.folder / name for name in CURVES if (args.folder / name).is_file())
    shutil.copyfile(curves, args.output / "curves.svg")
    print(f"Drawn into {args.output}: methods.png, transfer.jpg, curves.svg ({curves.stem})")


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
