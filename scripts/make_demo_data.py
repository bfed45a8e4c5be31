"""Draws a demo data set: streets in the layouts of GTA5 and Cityscapes, without licensed data.

    python -m scripts.make_demo_data --output DIR

writes two small data sets that every script of this project reads like the real ones:

    DIR/gta5/images/00001.png                                       source images
    DIR/gta5/labels/00001.png                                       source labels
    DIR/cityscapes/leftImg8bit/{train,val}/CITY/*_leftImg8bit.png   target images
    DIR/cityscapes/gtFine/{train,val}/CITY/*_gtFine_labelIds.png    target labels
    DIR/demo.json                                                   settings

With --scene aerial it draws a town as a drone sees it from above, in folders of no known layout:

    DIR/simulation/{photos,masks,drivable}/0001.png     source images, labels, black and white masks
    DIR/drone/photos/{train,val}/0001.png               target images
    DIR/drone/{masks,drivable}/val/0001.png             target labels, black and white masks

The source is sunny, saturated and sharp, like a game; the target is dim, greenish, soft and noisy,
like a camera. Equal settings draw equal pictures, on any number of workers. The same command given
again continues an interrupted run; a folder with other content is refused.
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.make_demo_data")

import argparse
import io
import math
import shlex
import shutil
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from dataset.demo import aerial
from dataset.demo.scene import CAMERA, GAME, MIN_SIZE, VERSION, check_size, street
from dataset.labels import LABEL_COLORS
from dataset.prepared.workers import in_processes
from utils.files import UNFINISHED, output_folder, read_json_object, write_file, write_json
from utils.options.parser import (
    available_cores,
    new_parser,
    non_negative_int,
    positive_int,
    user_errors_without_traceback,
)

SPLITS = {"source": (0, GAME), "train": (1, CAMERA), "val": (2, CAMERA)}
"""{split: (its stream of random numbers, its look)}."""
COUNTS = {"source": "source_images", "train": "target_train", "val": "target_val"}
"""{split: the setting with its number of images}."""

CITIES = {"train": ("aldenmoor", "brackwater", "corvenstadt"), "val": ("dunmerell",)}
RECORD = "demo.json"
STREETS = "streets"
AERIAL = "aerial"
FOLDERS = {
    STREETS: ("gta5/images", "gta5/labels", "cityscapes/leftImg8bit", "cityscapes/gtFine"),
    AERIAL: ("simulation", "drone"),
}
"""The folders of each scene that hold nothing else than what is drawn."""
MAX_IMAGES = 99_999


class Pair(NamedTuple):
    """One picture to draw.

    ``index`` counts from 0 within the ``split``; ``image`` and ``label`` are the files to write,
    and ``mask``, the roads in black and white.
    """

    split: str
    index: int
    image: Path
    label: Path | None
    mask: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The files that the picture has."""
        return [path for path in self[2:] if path is not None]


def pairs(output: Path, settings: dict) -> list[Pair]:
    """All pairs of the data set that ``settings`` describe, written already or not.

    ``settings``: see ``settings_of``.
    """
    pair_of = {STREETS: _street_pair, AERIAL: _aerial_pair}[settings.get("scene", STREETS)]
    numbers = {split: settings[name] for split, name in COUNTS.items()}
    return [pair_of(output, split, i) for split, count in numbers.items() for i in range(count)]


def _street_pair(output: Path, split: str, index: int) -> Pair:
    if split == "source":
        root, name = output / "gta5", f"{index + 1:05d}.png"  # GTA5 counts from 1
        return Pair(split, index, root / "images" / name, root / "labels" / name)
    root, cities = output / "cityscapes", CITIES[split]
    city = cities[index % len(cities)]
    # 19 is the frame of a sequence that Cityscapes annotates.
    name = f"{split}/{city}/{city}_{index // len(cities):06d}_000019"
    image = root / "leftImg8bit" / f"{name}_leftImg8bit.png"
    return Pair(split, index, image, root / "gtFine" / f"{name}_gtFine_labelIds.png")


def _aerial_pair(output: Path, split: str, index: int) -> Pair:
    root, name = output / "drone", f"{split}/{index + 1:04d}.png"
    if split == "source":
        root, name = output / "simulation", f"{index + 1:04d}.png"
    label, mask = root / "masks" / name, root / "drivable" / name
    if split == "train":  # a target has no labels
        label = mask = None
    return Pair(split, index, root / "photos" / name, label, mask)


def draw_pair(pair: Pair, size: tuple[int, int], seed: int, scene: str = STREETS) -> None:
    """Draws one pair and writes its files. Raises OSError with the remedy."""
    cv2.setNumThreads(1)  # the workers are the parallelism
    stream, look = SPLITS[pair.split]
    rng = np.random.default_rng([seed, stream, pair.index])
    if scene == AERIAL:
        image, mask = aerial.aerial(rng, look, size)
        pictures = [Image.fromarray(p) for p in (image, mask, aerial.drivable(mask))]
    else:
        image, label_ids = street(rng, look, size)
        pictures = [Image.fromarray(image), Image.fromarray(label_ids)]
        if pair.split == "source":
            # Mode P, as in GTA5: the colors are for viewers, the indices are labelIds.
            pictures[1].putpalette(LABEL_COLORS.tobytes())
    for path, picture in zip(pair.files, pictures, strict=False):
        png = io.BytesIO()
        # Level 6 takes twice as long and saves a few percent.
        picture.save(png, format="PNG", compress_level=3)
        write_file(path, png.getvalue())


def settings_of(args: argparse.Namespace) -> dict:
    """Settings that determine the pictures, as recorded in demo.json.

    These are all but the folder and the number of workers.
    """
    is_aerial = args.scene == AERIAL
    return {
        **({"scene": AERIAL} if is_aerial else {}),  # absent from records of older versions
        "generator_version": aerial.VERSION if is_aerial else VERSION,
        "size": list(args.size),
        "source_images": args.source_images,
        "target_train": args.target_train,
        "target_val": args.target_val,
        "seed": args.seed,
    }


def check_settings(settings: dict) -> None:
    """Raises ValueError for a size too small to draw, or a count out of range."""
    check_size(settings["size"])
    for name in COUNTS.values():
        if not 1 <= settings[name] <= MAX_IMAGES:
            flag = "--" + name.replace("_", "-")
            raise ValueError(
                f"{flag} is {settings[name]}; expected 1 to {MAX_IMAGES}, since the file names have"
                " five digits. Give a number in that range."
            )


def check_output(output: Path, settings: dict) -> None:
    """Checks that ``output`` is new, empty, or was begun with the same settings.

    Raises NotADirectoryError for a file; FileExistsError for a folder with other content, with
    other settings, or with pictures that these settings do not draw; ValueError for a damaged
    record. Nothing is changed.
    """
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(
            f"{output} is a file; expected a folder or a new name. Choose another --output."
        )
    files = output.iterdir() if output.exists() else ()
    found = {path.name for path in files if not path.name.endswith(UNFINISHED)}
    if found and RECORD not in found:
        raise FileExistsError(
            f"{output} already holds other files"
            f" ({', '.join(sorted(found)[:3])}{', ...' if len(found) > 3 else ''}); expected a new"
            " or empty folder, or a demo data set to continue. Choose another --output, or empty"
            " the folder yourself."
        )
    if not found:
        return
    remedy = "choose another --output, or delete the folder to draw it again"
    expected = f"the settings of a demo data set; {remedy}"
    recorded = read_json_object(output / RECORD, (), expected)
    if recorded != settings:
        changed = [
            f"{key} {recorded.get(key)} (now {value})"
            for key, value in settings.items()
            if recorded.get(key) != value
        ]
        raise FileExistsError(
            f"{output} holds a demo data set with other settings:"
            f" {', '.join(changed) or 'of another form'}. Expected the same settings, to continue"
            f" it. Give those settings again, {remedy}."
        )
    drawn = {path for pair in pairs(output, settings) for path in pair.files}
    stray = [
        path
        for folder in FOLDERS[settings.get("scene", STREETS)]
        for path in sorted((output / folder).rglob("*"))
        if path not in drawn and path.is_file() and not path.name.endswith(UNFINISHED)
    ]
    if stray:
        raise FileExistsError(
            f"{output} holds {len(stray)} pictures that this command does not draw, the first"
            f" {stray[0]}. Expected none, since they would be read as data. Move them elsewhere,"
            " or choose another --output."
        )


def worst_case_bytes(size: tuple[int, int]) -> int:
    """Bytes that one pair takes on the disk without any compression."""
    overhead = 16 * 1024  # two headers, a palette, and rounding up to disk blocks
    return round(4 * size[0] * size[1] * 1.01) + overhead


def check_disk(output: Path, count: int, size: tuple[int, int]) -> None:
    """Raises OSError unless ``count`` more pairs fit on the disk, even without any compression."""
    needed = count * worst_case_bytes(size)
    folders = (output.absolute(), *output.absolute().parents)
    folder = next(folder for folder in folders if folder.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"The disk of {folder} has {free / 1e6:.0f} MB free; {count} pairs of"
            f" {size[0]}x{size[1]} need up to {math.ceil(needed / 1e6)} MB. Free some space, choose"
            " an --output on another disk, or ask for fewer or smaller images."
        )


def make_demo_data(output: Path, settings: dict, workers: int) -> int:
    """Draws the missing pairs of the data set and returns their number.

    Raises ValueError for settings that cannot be drawn, FileExistsError or NotADirectoryError for a
    folder with other content, OSError for a full disk.
    """
    check_settings(settings)
    check_output(output, settings)
    size = tuple(settings["size"])
    missing = [pair for pair in pairs(output, settings) if not all(map(_is_complete, pair.files))]
    check_disk(output, len(missing), size)
    folders = {path.parent for pair in missing for path in pair.files}
    for folder in sorted({output, *folders}):
        output_folder(folder)
    if not (output / RECORD).exists():
        write_json(output / RECORD, settings)
    hidden = None if missing else True
    progress = partial(tqdm, total=len(missing), desc="drawing", unit="pair", disable=hidden)
    try:
        scene = settings.get("scene", STREETS)
        draw = partial(draw_pair, size=size, seed=settings["seed"], scene=scene)
        for _ in progress(in_processes(missing, draw, workers)):
            pass
    except OSError as error:
        raise OSError(
            f"{error} The files written until now are complete: give the same command again to"
            " continue."
        ) from error
    return len(missing)


def _is_complete(path: Path) -> bool:
    """Whether a file is complete.

    Files get their name when complete; an empty one can remain after a power cut.
    """
    return path.is_file() and path.stat().st_size > 0


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__)
    parser.prog = "python -m scripts.make_demo_data"
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="a new or empty folder, or one begun with the same settings",
    )
    parser.add_argument(
        "--scene",
        choices=(STREETS, AERIAL),
        default=STREETS,
        help="what to draw: streets with the classes of Cityscapes, or a town from above",
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        default=(128, 256),
        help=f"size of every image, at least {MIN_SIZE[0]} {MIN_SIZE[1]}; default: for CPUs",
    )
    parser.add_argument(
        "--source-images",
        type=int,
        default=400,
        metavar="N",
        help="labelled images in the look of a game",
    )
    parser.add_argument(
        "--target-train",
        type=int,
        default=400,
        metavar="N",
        help="images in the look of a camera to adapt to",
    )
    parser.add_argument(
        "--target-val",
        type=int,
        default=60,
        metavar="N",
        help="images in the look of a camera to evaluate on, from other towns",
    )
    parser.add_argument(
        "--seed", type=non_negative_int, default=0, metavar="S", help="seed of all streets"
    )
    parser.add_argument(
        "--workers",
        type=positive_int,
        default=min(8, available_cores()),
        metavar="N",
        help="number of drawing processes; default: one per core, at most 8",
    )
    return parser


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    return _parser().parse_args(argv)


def next_commands(output: Path, size: tuple[int, int]) -> list[str]:
    """Commands to run on the data set: the source-only baseline and the paper's step 4.

    They start from random weights, since ImageNet weights need a download, and make equal steps:
    otherwise the table would compare lengths of training.
    """
    gta5 = ("--gta5", str(output / "gta5"))
    cityscapes = ("--cityscapes", str(output / "cityscapes"))
    # The paper's crop, or the whole image.
    crop_size = (str(min(side, most)) for side, most in zip(size, (512, 1024), strict=True))
    small = ("--backbone", "resnet18", "--backbone-weights", "none", "--lr", "2e-2")
    small += ("--crop-size", *crop_size, "--max-steps", "1000", "--schedule-steps", "1000")
    train = ("python", "train.py", "--train-on", "source", *gta5, *small)
    adapt = ("python", "train_da.py", "--discriminator", "light", "--lab", *gta5, *cityscapes)
    return [shlex.join(train), shlex.join((*adapt, *small))]


def main(argv: list[str] | None = None) -> None:
    """Runs the command.

    Exits with 2 and a message with the remedy for bad input, with 130 when interrupted.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    settings = settings_of(args)
    try:
        drawn = make_demo_data(args.output, settings, args.workers)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    except BrokenProcessPool:
        parser.error(
            f"One of {args.workers} workers was killed, probably for lack of memory. Give the same"
            " command again with fewer --workers."
        )
    except KeyboardInterrupt:
        parser.exit(130, "\nInterrupted. Give the same command again to continue.\n")
    total = len(pairs(args.output, settings))
    print(
        f"{args.output}: {total} pairs of {args.size[0]}x{args.size[1]}, {drawn} drawn now,"
        f" {total - drawn} there already."
    )
    source, target = [f.split("/")[0] for f in (FOLDERS[args.scene][0], FOLDERS[args.scene][-1])]
    print(f"  {args.output / source}: {args.source_images} source images")
    print(
        f"  {args.output / target}: {args.target_train} target images to train on,"
        f" {args.target_val} to evaluate on"
    )
    if args.scene == AERIAL:
        print(f"Next: python -m scripts.describe {shlex.quote(str(args.output / source))}")
        return
    print("Next, the baseline, and the adaptation to compare with it:")
    for command in next_commands(args.output, args.size):
        print(f"  {command}")


if __name__ == "__main__":
    with user_errors_without_traceback():
        main()
