"""Draws the pictures of README and docs anew, all from generated streets: out of the folder of a
finished demo run.

methods.png (image, ground truth, each method), transfer.jpg (the LAB color transfer) and
curves.svg (the score along the way where it was logged, else the loss).
docs/images/carla_scores.png is of real frames' scores and has its own command: docs/results.md.
"""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

from utils.files import output_folder
from utils.options.parser import new_parser, user_errors_without_traceback

EPILOG = """examples:
  python -m scripts.draw_documentation checkpoints/demo
  a run whose curves are scores, with three seeds as bands:
    python -m scripts.reproduce --preset demo --seeds 0 1 2 --gta5 demo_data/gta5 --cityscapes demo_data/cityscapes --output checkpoints/streets \\
        -- --cityscapes demo_data/cityscapes --validate-every 50
"""
STREETS = 5
CURVES = ("curves_val_miou.svg", "curves_loss_segmentation.svg")


def parse_arguments(argv: list[str] | None = None):
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
        help="where the pictures go",
    )
    return parser.parse_args(argv)


def run(*words: object) -> None:
    """Runs a script of ours. Raises ChildProcessError where it fails."""
    command = ["-m", *map(str, words)]
    print(f"$ python {shlex.join(command)}", flush=True)
    if subprocess.run(
        [sys.executable, *command], check=False, stdout=subprocess.DEVNULL
    ).returncode:
        raise ChildProcessError(
            "The command above failed; its message says why. No picture was changed by it."
        )


def main(args) -> None:
    note = args.folder / "comparison.json"
    if not note.is_file():
        raise FileNotFoundError(
            f"No {note}. Expected the folder of a finished demo: run ./scripts/demo.sh"
            f" {args.folder}"
        )
    plan = json.loads(note.read_text())
    if not (Path(plan["cityscapes"]).parent / "demo.json").is_file():
        raise ValueError(
            f"{args.folder} was trained on {plan['cityscapes']}, which scripts.make_demo_data did"
            " not draw. Give a demo's folder."
        )
    checkpoints = [args.folder / f"seed0/{row}/last.pt" for row in plan["rows"]]
    absent = [path for path in checkpoints if not path.is_file()]
    if absent:
        raise FileNotFoundError(
            f"No {absent[0]}. The demo is not finished: give its command again, and it goes on."
        )
    streets = sorted(Path(plan["cityscapes"]).glob("leftImg8bit/val/*/*.png"))[:STREETS]
    output_folder(args.output)

    run("scripts.summarise", args.folder)
    drawn = args.folder / "documentation"
    labels = Path(plan["cityscapes"]) / "gtFine"
    run(
        "scripts.predict",
        *streets,
        "--labels",
        labels,
        "--compare",
        *checkpoints,
        "--output",
        drawn,
    )
    roots = ("--gta5", plan["gta5"], "--cityscapes", plan["cityscapes"])
    run(
        "scripts.preview_transfer",
        *roots,
        "--rows",
        3,
        "--width",
        300,
        "--output",
        drawn / "transfer.png",
    )

    # Small enough for a page: flat colors as a palette, photographs as a JPEG.
    Image.open(drawn / "comparison.png").quantize(256).save(
        args.output / "methods.png", optimize=True
    )
    Image.open(drawn / "transfer.png").save(args.output / "transfer.jpg", quality=88)
    curves = next(args.folder / name for name in CURVES if (args.folder / name).is_file())
    shutil.copyfile(curves, args.output / "curves.svg")
    print(f"Drawn into {args.output}: methods.png, transfer.jpg, curves.svg ({curves.stem})")


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
