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

from argparse import Namespace
from pathlib import Path
from typing import Any

from dataset.class_set import ClassSet
from dataset.class_set_file import recorded_class_set
from dataset.evenly import evenly
from dataset.target import images_of_split
from scripts.summarise.pictures import (
    draw_pictures,
    draw_without_labels,
    picture_names,
    read_pictures,
)
from scripts.summarise.records import missing_scores, read_comparison, read_seed_ranges
from utils.files import output_folder, write_file
from utils.options.groups import add_device_arguments
from utils.options.parser import new_parser, non_negative_int, user_errors_without_traceback
from utils.report.comparison import comparison_tables
from utils.report.html import (
    WITHOUT_LABELS,
    ImageRow,
    curve_charts,
    label_free_page,
    report_page,
)
from utils.report.label_free import measure_lines, read_selection
from utils.report.scored_rows import ComparisonRow, read_rows
from utils.report.tables import markdown_table
from utils.training.precision import choose_device, choose_precision

EPILOG = """examples:
  python -m scripts.summarise checkpoints/demo
  pictures of a run folder that came from another machine:
    python -m scripts.summarise checkpoints/paper --cityscapes $CITYSCAPES \\
        --list dataset/splits/cityscapes_val_250.txt
"""
SELECTION = "select.json"
"""In FOLDER: what scripts.select --json wrote."""


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    parser = new_parser(__doc__, EPILOG)
    parser.prog = "python -m scripts.summarise"
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
        listing = images_of_split(root, split, comparison["layout"], class_set, list_file)
        indices = evenly(range(len(listing)), args.pictures)
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
