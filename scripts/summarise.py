"""Makes the tables and the report of a comparison from its run folders; trains and scores nothing.

FOLDER is the --output of scripts.reproduce: runs in seedN/ROW/ and their scores in seedN/ROW.json.
Written are tables.md, tables.csv, tables.tex, the training curves as SVG, and report.html, one file
that opens offline. Data sets are needed for pictures only: pictures are kept in FOLDER/pictures,
and the report says which are missing.

Where nothing is scored, because the target has no labels, the report is made from
FOLDER/select.json, which scripts.select --json writes: measures without labels, class shares,
warnings and pictures, and no score.
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.summarise")

import io
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dataset.class_set import ClassSet
from dataset.class_set_file import recorded_class_set
from dataset.image_io import read_image
from dataset.listing import ImageList
from dataset.target import images_of_split
from model.inference.predictor import load_predictor
from utils.files import output_folder, output_names, read_json_object, write_file
from utils.options.groups import add_device_arguments
from utils.options.parser import new_parser, non_negative_int, user_errors_without_traceback
from utils.report.comparison import ComparisonRow, comparison_tables, read_rows
from utils.report.curves import SeedRange, read_curves, seed_range
from utils.report.html import (
    CHARTS,
    WITHOUT_LABELS,
    ImageRow,
    Picture,
    curve_charts,
    label_free_page,
    report_page,
)
from utils.report.label_free import last_of_runs, measure_lines, read_selection
from utils.report.pictures import resize_to_width
from utils.report.tables import markdown_table
from utils.training.checkpoint import read_checkpoint
from utils.training.precision import PRECISIONS, choose_device, choose_precision

EPILOG = """examples:
  python -m scripts.summarise checkpoints/demo
  pictures of a run folder that came from another machine:
    python -m scripts.summarise checkpoints/paper --cityscapes $CITYSCAPES \\
        --list dataset/splits/cityscapes_val_250.txt
"""
SELECTION = "select.json"
"""In FOLDER: what scripts.select --json wrote."""
MAX_SHOWN = 6
"""Candidates in the pictures of a report without labels."""
MAX_WIDTH = 512
"""Of a picture in the report, in pixels."""


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    parser = new_parser(__doc__, EPILOG)
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="the --output of scripts.reproduce"
    )
    parser.add_argument(
        "--target",
        "--cityscapes",
        dest="cityscapes",
        type=Path,
        metavar="ROOT",
        help="folder of the scored images; default: the recorded one, if it still exists",
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
        help="number of scored images to show, evenly spaced over the split; 0: none",
    )
    add_device_arguments(parser)
    args = parser.parse_args(argv)
    if not args.pictures:
        parser.refuse_unused(parser.given(argv), ["cityscapes", "list"], "with --pictures 0")
    if args.list and not args.cityscapes:
        parser.error("--list names images below --cityscapes ROOT: give both")
    return args


def read_comparison(folder: Path) -> dict[str, Any]:
    """Reads comparison.json of scripts.reproduce, with defaults for absent entries.

    Scored rows that it does not name are added under the names of their folders. Other JSON files
    beside the runs are left out, and named on the screen.
    """
    path = folder / "comparison.json"
    expected = "the record of scripts.reproduce"
    recorded = read_json_object(path, (), expected) if path.exists() else {}
    if "one_seed" in recorded:  # the word of older records
        recorded["single_seed"] = recorded.pop("one_seed")
    defaults = {
        "preset": folder.name,
        "published": False,
        "rows": {},
        "single_seed": [],
        "cityscapes": None,
        "list": None,
        "layout": None,
    }
    comparison = defaults | recorded
    scored = [f for f in folder.glob("seed*/*.json") if f.stem not in comparison["rows"]]
    others = [file for file in scored if not (file.with_suffix("") / "config.json").exists()]
    if others:
        print(
            "NOTE: left out, because no run folder of that name with config.json is beside them:"
            f" {', '.join(sorted(str(file.relative_to(folder)) for file in others))}"
        )
    unnamed = sorted({file.stem for file in scored if file not in others})
    return comparison | {"rows": comparison["rows"] | {name: name for name in unnamed}}


def missing_scores(folder: Path, names: dict[str, str], single_seed: list[str]) -> list[str]:
    """A note on rows, and on seeds of rows, without scores; [] if all are there.

    ``names``: {folder of a row: its name}; a row in ``single_seed`` needs one seed.
    """
    seeds = {seed.name for seed in folder.glob("seed*") if seed.is_dir()}
    incomplete = []
    for run, name in names.items():
        missing = sorted(
            seed.removeprefix("seed")
            for seed in seeds
            if not (folder / seed / f"{run}.json").exists()
        )
        if len(missing) == len(seeds):
            incomplete.append(name)
        elif missing and name not in single_seed:
            incomplete.append(f"{name} with seed {', '.join(missing)}")
    return [f"Not trained and scored yet: {'; '.join(incomplete)}."] if incomplete else []


def read_seed_ranges(
    folder: Path, names: dict[str, str]
) -> tuple[dict[str, dict[str, SeedRange]], list[str]]:
    """{scalar: {row: its range over the seeds}}, also of runs without scores, and notes.

    The notes name rows without curves.
    """
    ranges: dict[str, dict[str, SeedRange]] = {scalar: {} for scalar in CHARTS}
    without_events = []
    for run, name in names.items():
        runs = [path for path in sorted(folder.glob(f"seed*/{run}")) if path.is_dir()]
        curves = [read_curves(path) for path in runs]
        for scalar in CHARTS:
            found = seed_range([curve[scalar] for curve in curves if scalar in curve])
            if found is not None:
                ranges[scalar][name] = found
        if curves and not any(name in rows for rows in ranges.values()):
            without_events.append(name)
    notes = []
    if without_events:
        notes.append(
            f"No curves of {', '.join(without_events)}: no TensorBoard events in the run folders."
        )
    without_scores = [
        name for name in ranges["loss/segmentation"] if name not in ranges["val/miou"]
    ]
    if without_scores:
        notes.append(
            f"No scores during training of {', '.join(without_scores)}: trained without"
            " --validate-every."
        )
    return ranges, notes


def encode_label_map(train_ids: np.ndarray, colors: np.ndarray) -> bytes:
    """Encodes an (H, W) map of trainIds as a PNG in the ``colors`` (256, 3) of the classes."""
    width = min(MAX_WIDTH, train_ids.shape[1])
    picture = Image.fromarray(resize_to_width(train_ids, width))
    picture.putpalette(colors.tobytes())
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()


def encode_image(image: np.ndarray) -> bytes:
    """Encodes an (H, W, 3) uint8 RGB image as a JPEG."""
    picture = Image.fromarray(resize_to_width(image, min(MAX_WIDTH, image.shape[1])))
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=85)
    return file.getvalue()


def picture_names(listing: ImageList, indices: Sequence[int]) -> list[str]:
    """A name for the pictures of each image: the last part of its own, the whole if not unique."""
    lasts = Counter(name.rsplit("/", 1)[-1] for name in listing.names)
    names = [(name, name.rsplit("/", 1)[-1]) for name in listing.names_of(indices)]
    return [last if lasts[last] == 1 else name.replace("/", "_") for name, last in names]


def draw_pictures(
    folder: Path,
    listing: ImageList,
    indices: Sequence[int],
    checkpoints: dict[str, Path],
    device: torch.device,
    precision: str,
) -> None:
    """Writes ``folder``/IMAGE/ with image.jpg, truth.png and RUN.png, the prediction of each run.

    ``checkpoints``: {folder of a run: its checkpoint}; absent ones are skipped. Predictions that
    are not older than their checkpoint are kept.
    """
    frames, colors = [listing[index] for index in indices], listing.class_set.color_table
    folders = [output_folder(folder / name) for name in picture_names(listing, indices)]
    for frame, image_folder in zip(frames, folders, strict=True):
        write_file(image_folder / "image.jpg", encode_image(read_image(frame.image)))
        truth = listing.label_format.read_train_ids(frame.label)
        write_file(image_folder / "truth.png", encode_label_map(truth, colors))
    for run, checkpoint in checkpoints.items():
        files = [image_folder / f"{run}.png" for image_folder in folders]
        if not checkpoint.exists() or all(is_current(file, checkpoint) for file in files):
            continue
        content, dtype = read_checkpoint(checkpoint), PRECISIONS[precision]
        predictor = load_predictor(content, len(listing.class_set), device, dtype)
        for frame, file in zip(frames, files, strict=True):
            image = torch.from_numpy(np.array(read_image(frame.image)))[None]
            write_file(file, encode_label_map(predictor(image)[0].cpu().numpy(), colors))


def is_current(file: Path, source: Path) -> bool:
    """Whether ``file`` exists and is not older than ``source``."""
    return file.exists() and file.stat().st_mtime_ns >= source.stat().st_mtime_ns


def read_pictures(folder: Path, images: list[str], names: dict[str, str]) -> list[ImageRow]:
    """Reads the files of ``draw_pictures`` for ``images``; rows in the order of ``names``."""
    captions = {"image.jpg": "image", "truth.png": "ground truth"}
    captions |= {f"{run}.png": name for run, name in names.items()}
    rows = []
    for image in images:
        pictures = [
            Picture(caption, (folder / image / file).read_bytes())
            for file, caption in captions.items()
            if (folder / image / file).exists()
        ]
        rows.append(ImageRow(image.removesuffix("_leftImg8bit"), pictures))
    return rows


def report_pictures(
    args: Namespace, comparison: dict[str, Any], rows: list[ComparisonRow], class_set: ClassSet
) -> tuple[list[ImageRow], list[str]]:
    """The pictures of the report, drawn first if the images exist, and notes on missing ones."""
    if args.pictures == 0:
        return [], ["Left out."]
    if "merge" in rows[0].scores[0]:
        return [], ["Left out: the networks have other classes than the scores (--merge)."]
    folder, scored = args.folder / "pictures", {row.name for row in rows}
    names = {run: name for run, name in comparison["rows"].items() if name in scored}
    root, list_file = comparison["cityscapes"], comparison["list"]
    if args.cityscapes:
        root, list_file = args.cityscapes, args.list
    if args.cityscapes or (root is not None and Path(root).is_dir()):
        split = rows[0].scores[0]["split"]
        listing = images_of_split(root, split, True, comparison["layout"], class_set, list_file)
        count = min(args.pictures, len(listing))
        indices = np.linspace(0, len(listing) - 1, count).round().astype(int).tolist()
        checkpoints = {
            run: min(args.folder.glob(f"seed*/{run}.json")).with_suffix("") / "last.pt"
            for run in names
        }
        device = choose_device(args.device)
        precision = choose_precision(args.precision, device)
        draw_pictures(folder, listing, indices, checkpoints, device, precision)
        images = picture_names(listing, indices)
    else:
        images = sorted(path.parent.name for path in folder.glob("*/image.jpg"))[: args.pictures]
    image_rows = read_pictures(folder, images, names)
    if not image_rows:
        return [], [
            "None: the scored images are not available. Draw them with: python -m scripts.summarise"
            " FOLDER --cityscapes ROOT"
        ]
    missing = sorted(scored - {picture.caption for picture in image_rows[0].pictures})
    if not missing:
        return image_rows, []
    return image_rows, [
        f"None of {', '.join(missing)}: there is no picture, and no checkpoint to draw it from."
    ]


def shown_candidates(selection: dict[str, Any]) -> dict[str, Path]:
    """{name: checkpoint} of the candidates in pictures: the last of each run."""
    return {row["name"]: Path(row["checkpoint"]) for row in last_of_runs(selection)[:MAX_SHOWN]}


def draw_without_labels(
    selection: dict[str, Any], count: int, device: torch.device, precision: str
) -> list[ImageRow]:
    """Predictions of ``shown_candidates`` on ``count`` images at most that still exist."""
    files = [Path(file) for file in selection["pictures"] if Path(file).is_file()][:count]
    images = {file: np.array(read_image(file)) for file in files}
    class_set = recorded_class_set(selection)
    rows = [
        ImageRow(name, [Picture("image", encode_image(images[file]))])
        for file, name in output_names(files).items()
    ]
    for name, checkpoint in shown_candidates(selection).items():
        if not files or not checkpoint.is_file():
            continue
        content, dtype = read_checkpoint(checkpoint), PRECISIONS[precision]
        predictor = load_predictor(content, len(class_set), device, dtype)
        for row, file in zip(rows, files, strict=True):
            prediction = predictor(torch.from_numpy(images[file])[None])[0].cpu().numpy()
            row.pictures.append(Picture(name, encode_label_map(prediction, class_set.color_table)))
    return rows


def summarise_without_labels(args: Namespace, names: dict[str, str]) -> None:
    """Writes the report of a comparison on an unlabelled target."""
    selection = read_selection(args.folder / SELECTION)
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    image_rows = draw_without_labels(selection, args.pictures, device, precision)
    runs = {path.name for path in args.folder.glob("seed*/*") if path.is_dir()}
    ranges, _ = read_seed_ranges(args.folder, {run: run for run in sorted(runs)} | names)
    classes = classes_with_colors(recorded_class_set(selection))
    title = f"Without labels: {args.folder.name}"
    table = markdown_table(*measure_lines(selection))
    page = label_free_page(title, selection, classes, ranges, image_rows)
    for name, text in {"measures.md": table + "\n", "report.html": page}.items():
        write_file(args.folder / name, text.encode())
    print(f"\n{table}\n\n{WITHOUT_LABELS}")
    print(f"Written into {args.folder}: measures.md, report.html.")


def classes_with_colors(class_set: ClassSet) -> list[tuple[str, str]]:
    """(name, "#rrggbb") of each class."""
    colors = ["#{:02x}{:02x}{:02x}".format(*color) for color in class_set.colors]
    return list(zip(class_set.names, colors, strict=True))


def main(args: Namespace) -> None:
    if not args.folder.is_dir():
        raise FileNotFoundError(
            f"No folder {args.folder}. Expected the --output of scripts.reproduce, with seedN/ROW/"
            " and seedN/ROW.json."
        )
    comparison = read_comparison(args.folder)
    names, published = comparison["rows"], comparison["published"]
    rows = read_rows(args.folder, names)
    if not rows and (args.folder / SELECTION).is_file():
        summarise_without_labels(args, names)
        return
    if not rows:
        raise FileNotFoundError(
            f"Nothing scored under {args.folder}: no seedN/ROW.json. Run scripts.reproduce with"
            f" --output {args.folder}; without labels: python -m scripts.select {args.folder}/..."
            f" --json {args.folder / SELECTION}."
        )
    output_folder(args.folder)
    class_set = recorded_class_set(rows[0].scores[0])
    tables = comparison_tables(rows, published, class_set.names)
    ranges, curve_notes = read_seed_ranges(args.folder, names)
    files = {f"tables.{suffix}": text for suffix, text in tables.items()}
    for scalar, chart in curve_charts(ranges).items():
        files[f"curves_{scalar.replace('/', '_')}.svg"] = chart
    for name, text in files.items():  # before the pictures, whatever happens there
        write_file(args.folder / name, text.encode())
    image_rows, picture_notes = report_pictures(args, comparison, rows, class_set)
    notes = {
        "tables": missing_scores(args.folder, names, comparison["single_seed"]),
        "curves": curve_notes,
        "pictures": picture_notes,
    }
    classes = classes_with_colors(class_set)
    title = f"Methods compared: {comparison['preset']}"
    page = report_page(title, rows, published, classes, ranges, image_rows, notes)
    write_file(args.folder / "report.html", page.encode())
    print(f"\n{tables['md']}\nWritten into {args.folder}: {', '.join(files)};")
    print(f"and for a browser, {len(page) / 1e6:.1f} MB: {args.folder / 'report.html'}")


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
