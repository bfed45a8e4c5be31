"""Makes the tables and the report of a comparison out of its run folders; trains and scores
nothing.

FOLDER is what scripts.reproduce fills: runs in seedN/ROW/ and their scores in seedN/ROW.json. Out
come tables.md, tables.csv, tables.tex, the learning curves as SVG, and report.html, one file that
opens offline. Data sets are needed for pictures only, and only once: these are kept in
FOLDER/pictures, and where neither is at hand the report says so.
"""

import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dataset.cityscapes import cityscapes
from dataset.image_io import read_image, read_label
from dataset.labels import CLASS_NAMES, COLORS, NUM_CLASSES, TRAIN_ID_OF
from dataset.listing import ImageList, select_by_list
from model.inference.predictor import load_predictor
from utils.files import output_folder, write_file
from utils.options.groups import add_device_arguments
from utils.options.parser import new_parser, non_negative_int, user_errors_without_traceback
from utils.report.comparison import ComparisonRow, comparison_tables, read_rows
from utils.report.curves import SeedRange, read_curves, seed_range
from utils.report.html import CHARTS, ImageRow, Picture, curve_charts, report_page
from utils.report.pictures import resize_to_width
from utils.training.checkpoint import read_checkpoint
from utils.training.precision import PRECISIONS, choose_device, choose_precision

EPILOG = """examples:
  python -m scripts.summarise checkpoints/demo
  pictures of a run folder that came from another machine:
    python -m scripts.summarise checkpoints/paper --cityscapes $CITYSCAPES --list dataset/splits/cityscapes_val_250.txt
"""
WIDTH = 512
"""Of a picture in the report, in pixels, at the most."""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="the --output of scripts.reproduce"
    )
    parser.add_argument(
        "--cityscapes",
        type=Path,
        metavar="ROOT",
        help="where the scored images are; default: where they were, if still there",
    )
    parser.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="with --cityscapes: the images of val that were scored; default: all",
    )
    parser.add_argument(
        "--pictures",
        type=non_negative_int,
        default=4,
        metavar="N",
        help="scored images to show, evenly spaced over the split; 0: none",
    )
    add_device_arguments(parser)
    args = parser.parse_args(argv)
    if args.list and not args.cityscapes:
        parser.error("--list names images below --cityscapes ROOT: give both")
    return args


def read_plan(folder: Path) -> dict:
    """What scripts.reproduce noted of the comparison: its preset, the names of its rows, where the
    scored images are.

    Rows under ``folder`` that it does not name, or all of them where there is no note, go by their
    folders' names.
    """
    path = folder / "comparison.json"
    plan = {
        "preset": folder.name,
        "published": False,
        "rows": {},
        "one_seed": [],
        "cityscapes": None,
        "list": None,
    }
    plan |= json.loads(path.read_text()) if path.exists() else {}
    scored = {file.stem for file in folder.glob("seed*/*.json")}
    return plan | {
        "rows": plan["rows"] | {name: name for name in sorted(scored - plan["rows"].keys())}
    }


def absences(folder: Path, names: dict[str, str], one_seed: list[str]) -> list[str]:
    """What the tables lack: rows, and seeds of rows, that others have; a row of ``one_seed`` lacks
    nothing with one.
    """
    seeds = {seed.name for seed in folder.glob("seed*") if seed.is_dir()}
    lacking = []
    for run, name in names.items():
        missing = sorted(
            seed.removeprefix("seed")
            for seed in seeds
            if not (folder / seed / f"{run}.json").exists()
        )
        if missing and not (name in one_seed and len(missing) < len(seeds)):
            lacking.append(
                name if len(missing) == len(seeds) else f"{name} with seed {', '.join(missing)}"
            )
    return [f"Not trained and scored yet: {'; '.join(lacking)}."] if lacking else []


def read_bands(
    folder: Path, names: dict[str, str]
) -> tuple[dict[str, dict[str, SeedRange]], list[str]]:
    """{scalar: {row: its seeds as a band}}, and what is missing. Runs that are not scored yet are
    in it, too.
    """
    bands: dict[str, dict[str, SeedRange]] = {scalar: {} for scalar in CHARTS}
    silent = []
    for run, name in names.items():
        curves = [
            read_curves(seed) for seed in sorted(folder.glob(f"seed*/{run}")) if seed.is_dir()
        ]
        for scalar in CHARTS:
            found = seed_range([curve[scalar] for curve in curves if scalar in curve])
            if found is not None:
                bands[scalar][name] = found
        if curves and not any(name in rows for rows in bands.values()):
            silent.append(name)
    notes = (
        [f"No curves of {', '.join(silent)}: no TensorBoard events in the run folders."]
        if silent
        else []
    )
    unwatched = [name for name in bands["loss/segmentation"] if name not in bands["val/miou"]]
    if unwatched:
        notes.append(
            f"No scores along the way of {', '.join(unwatched)}: trained without --validate-every."
        )
    return bands, notes


def encode_map(train_ids: np.ndarray) -> bytes:
    """An (H, W) map of trainIds as a PNG of the classes' colors, one byte a pixel, at most WIDTH
    wide.
    """
    picture = Image.fromarray(resize_to_width(train_ids, min(WIDTH, train_ids.shape[1])))
    picture.putpalette(COLORS.tobytes())
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()


def encode_image(image: np.ndarray) -> bytes:
    """An (H, W, 3) uint8 RGB image as a JPEG, at most WIDTH wide."""
    file = io.BytesIO()
    Image.fromarray(resize_to_width(image, min(WIDTH, image.shape[1]))).save(
        file, format="JPEG", quality=85
    )
    return file.getvalue()


def draw_pictures(
    folder: Path,
    listing: ImageList,
    chosen: list[int],
    runs: dict[str, Path],
    device: torch.device,
    precision: str,
) -> None:
    """Fills ``folder``/IMAGE/ with image.jpg, truth.png and what each of ``runs`` ({row:
    checkpoint}) predicts as ROW.png.

    A prediction that is there, and no older than its checkpoint, stays.
    """
    frames = [listing[index] for index in chosen]
    places = [output_folder(folder / Path(frame.name).name) for frame in frames]
    for frame, place in zip(frames, places, strict=True):
        write_file(place / "image.jpg", encode_image(read_image(frame.image)))
        write_file(place / "truth.png", encode_map(TRAIN_ID_OF[read_label(frame.label)]))
    for run, last in runs.items():
        files = [place / f"{run}.png" for place in places]
        if not last.exists() or all(
            file.exists() and file.stat().st_mtime_ns >= last.stat().st_mtime_ns for file in files
        ):
            continue
        predictor = load_predictor(
            read_checkpoint(last), NUM_CLASSES, device, PRECISIONS[precision]
        )
        for frame, file in zip(frames, files, strict=True):
            image = torch.from_numpy(np.array(read_image(frame.image)))[None]
            write_file(file, encode_map(predictor(image)[0].cpu().numpy()))


def read_strips(folder: Path, images: list[str], names: dict[str, str]) -> list[ImageRow]:
    """What ``draw_pictures`` left of ``images``, rows in the order of ``names``."""
    strips = []
    for image in images:
        captions = {"image.jpg": "image", "truth.png": "ground truth"} | {
            f"{run}.png": name for run, name in names.items()
        }
        pictures = [
            Picture(caption, (folder / image / file).read_bytes())
            for file, caption in captions.items()
            if (folder / image / file).exists()
        ]
        strips.append(ImageRow(image.removesuffix("_leftImg8bit"), pictures))
    return strips


def take_pictures(args, plan: dict, rows: list[ComparisonRow]) -> tuple[list[ImageRow], list[str]]:
    """The pictures of the report, drawn where the images are at hand, and notes on what is
    missing.
    """
    folder, scored = args.folder / "pictures", {row.name for row in rows}
    names = {run: name for run, name in plan["rows"].items() if name in scored}
    root, list_file = (
        (args.cityscapes, args.list) if args.cityscapes else (plan["cityscapes"], plan["list"])
    )
    if args.pictures == 0:
        return [], ["Left out."]
    if args.cityscapes or (root is not None and Path(root).is_dir()):
        listing = select_by_list(cityscapes(root, rows[0].scores[0]["split"]), list_file)
        chosen = (
            np.linspace(0, len(listing) - 1, min(args.pictures, len(listing)))
            .round()
            .astype(int)
            .tolist()
        )
        runs = {
            run: min(args.folder.glob(f"seed*/{run}.json")).with_suffix("") / "last.pt"
            for run in names
        }
        device = choose_device(args.device)
        draw_pictures(
            folder, listing, chosen, runs, device, choose_precision(args.precision, device)
        )
        images = [Path(listing[index].name).name for index in chosen]
    else:
        images = sorted(path.parent.name for path in folder.glob("*/image.jpg"))[: args.pictures]
    strips = read_strips(folder, images, names)
    if not strips:
        return [], [
            "None: the scored images are not at hand. Draw them with: python -m scripts.summarise"
            " FOLDER --cityscapes ROOT"
        ]
    missing = scored - {picture.caption for picture in strips[0].pictures}
    return strips, (
        [
            f"None of {', '.join(sorted(missing))}: neither a picture nor checkpoint and images are"
            " at hand."
        ]
        if missing
        else []
    )


def main(args) -> None:
    if not args.folder.is_dir():
        raise FileNotFoundError(
            f"No folder {args.folder}. Expected the --output of scripts.reproduce, with seedN/ROW/"
            " and seedN/ROW.json."
        )
    plan = read_plan(args.folder)
    rows = read_rows(args.folder, plan["rows"])
    if not rows:
        raise FileNotFoundError(
            f"Nothing scored under {args.folder}: no seedN/ROW.json. Run scripts.reproduce with"
            f" --output {args.folder}."
        )
    output_folder(args.folder)
    for suffix, text in comparison_tables(rows, plan["published"], CLASS_NAMES).items():
        write_file(args.folder / f"tables.{suffix}", text.encode())
    bands, curve_notes = read_bands(args.folder, plan["rows"])
    charts = {
        f"curves_{scalar.replace('/', '_')}.svg": chart
        for scalar, chart in curve_charts(bands).items()
    }
    for name, chart in charts.items():
        write_file(args.folder / name, chart.encode())
    strips, picture_notes = take_pictures(args, plan, rows)
    notes = {
        "tables": absences(args.folder, plan["rows"], plan["one_seed"]),
        "curves": curve_notes,
        "pictures": picture_notes,
    }
    colors = ["#{:02x}{:02x}{:02x}".format(*COLORS[c]) for c in range(NUM_CLASSES)]
    classes = list(zip(CLASS_NAMES, colors, strict=True))
    page = report_page(
        f"Methods compared: {plan['preset']}",
        rows,
        plan["published"],
        classes,
        bands,
        strips,
        notes,
    )
    write_file(args.folder / "report.html", page.encode())
    written = ", ".join(("tables.md", "tables.csv", "tables.tex", *charts))
    print(f"\n{(args.folder / 'tables.md').read_text()}\nWritten into {args.folder}: {written};")
    print(f"and for a browser, {len(page) / 1e6:.1f} MB: {args.folder / 'report.html'}")


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
