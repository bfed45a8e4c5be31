"""Segments images, folders of images, videos and what a camera sees: pictures to show, or label
maps to work with.

Takes a checkpoint (.pt) or an exported network (.onnx, .pt2), or compares several side by side on
the same images.
"""

import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from dataset.image_io import IMAGE_SUFFIXES, image_size, read_image, read_label
from dataset.labels import CLASS_NAMES, COLORS, LABEL_ID_OF, NUM_CLASSES, TRAIN_ID_OF
from model.inference.export import OnnxNetwork, ProgramNetwork
from model.inference.predictor import load_predictor
from model.inference.tiling import MARGIN, STRIDE, in_tiles
from utils.benchmark.memory import available_memory
from utils.files import find_inputs, output_folder, output_names, write_png
from utils.options.groups import add_device_arguments
from utils.options.parser import (
    new_parser,
    non_negative_int,
    positive_float,
    positive_int,
    user_errors_without_traceback,
)
from utils.report.pictures import image_grid, overlay, resize_to_width, with_legend
from utils.training.checkpoint import read_checkpoint
from utils.training.precision import PRECISIONS, choose_device, choose_precision
from utils.training.signals import StopRequest
from utils.video import VIDEO_SUFFIXES, Camera, VideoReader, VideoWriter, due_frames

EPILOG = """examples:
  python -m scripts.predict street.jpg --model checkpoints/ada/last.pt --output out
  python -m scripts.predict drive.mp4 --model ada.onnx --output out
  python -m scripts.predict "frames/*.png" --model checkpoints/ada/last.pt --output out --save overlay color trainIds
  python -m scripts.predict --camera 0 --seconds 60 --model checkpoints/ada/last.pt --output out
  python -m scripts.predict aerial.png --tile 1024 --model checkpoints/ada/last.pt --output out --save trainIds
  the figure of methods side by side:
    python -m scripts.predict frames --compare checkpoints/source/last.pt checkpoints/ada/last.pt --labels gtFine --output out
"""
BYTES_PER_PIXEL = 300
"""What a pass takes at its peak for each pixel, beside the weights: measured 160 (fp32) to 215
(ONNX) at 1024x2048 and above, and pictures.
"""
DRAWN_BYTES_PER_PIXEL = 20
"""What of it an image takes whole that is segmented in tiles: decoded, labelled and drawn. Measured
6 to 15 on 36 million pixels.
"""
SHOWN_WIDTH = 640
"""Pictures with a legend are enlarged by a whole number to about this width at least, or nobody
could read the names.
"""

Segmenter = Callable[[np.ndarray], np.ndarray]
"""(H, W, 3) uint8 RGB of any size -> (H, W) uint8 trainIds."""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="image, video, folder, or pattern such as 'frames/*.png' (in quotes)",
    )
    parser.add_argument(
        "--camera",
        type=non_negative_int,
        metavar="N",
        help="instead of files: film with camera N, until Ctrl-C, into camera_N_overlay.mp4",
    )
    parser.add_argument("--seconds", type=positive_float, help="with --camera: stop after so long")
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument(
        "--model",
        type=Path,
        metavar="FILE",
        help="last.pt of a run, or an exported .onnx or .pt2 file",
    )
    network.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="draw the predictions of all of these side by side: comparison.png",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the results; INPUT_overlay.png, INPUT_overlay.mp4 ...",
    )
    parser.add_argument(
        "--save",
        nargs="+",
        choices=("overlay", "color", "labelIds", "trainIds"),
        default=["overlay"],
        help=(
            "the classes' colors over the image, or alone; or one grey value a pixel: Cityscapes'"
            " labelIds, or trainIds. Videos: overlay, color"
        ),
    )
    parser.add_argument(
        "--no-legend",
        action="store_true",
        help="pictures in the size of the image, without the names of the classes below",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="DIR",
        help="with --compare: ground truth, looked for anywhere below DIR by the image's name",
    )
    parser.add_argument(
        "--tile",
        type=positive_int,
        metavar="PIXELS",
        help=(
            f"segment larger images in windows of so many pixels each way (a multiple of {STRIDE},"
            f" above {2 * MARGIN}), for want of memory. They overlap, and the outer {MARGIN} are"
            " not used. The network's attention averages over what it is given: answers differ"
            " from a single pass"
        ),
    )
    add_device_arguments(parser)
    args = parser.parse_args(argv)
    if bool(args.inputs) == (args.camera is not None):
        parser.error("give an INPUT or --camera N" + (", not both" if args.inputs else ""))
    if args.camera is not None and args.compare:
        parser.error("--compare draws images; film with one network: --camera N --model FILE")
    if args.seconds and args.camera is None:
        parser.error("--seconds limits --camera N")
    if args.tile and (args.tile % STRIDE or args.tile <= 2 * MARGIN):
        parser.error(
            f"--tile {args.tile}: expected a multiple of {STRIDE} above {2 * MARGIN}, such as 1024"
        )
    if args.labels and not args.compare:
        parser.error(
            "--labels is drawn by --compare only. Compare one network with its ground truth as:"
            " --compare FILE --labels DIR"
        )
    return args


def load_segmenter(path: Path, device: torch.device, precision: str) -> tuple[str, Segmenter]:
    """The name of a network and the network; the suffix of its file decides what it is. Raises what
    reading it raises.
    """
    if path.suffix in (".onnx", ".pt2"):
        exported = (OnnxNetwork if path.suffix == ".onnx" else ProgramNetwork)(
            path, NUM_CLASSES, device
        )
        return exported.name, lambda image: _any_size(
            image, lambda x: exported(x[None])[0], exported.least
        )
    checkpoint = read_checkpoint(path)
    predictor = load_predictor(checkpoint, NUM_CLASSES, device, PRECISIONS[precision])
    return checkpoint["name"], lambda image: _any_size(
        image, lambda x: predictor(torch.from_numpy(np.array(x))[None])[0].cpu().numpy()
    )


def _any_size(image: np.ndarray, segment: Segmenter, least: int = 32) -> np.ndarray:
    """The network takes ``least`` pixels each way: smaller images are continued by their last row
    and column.
    """
    height, width = image.shape[:2]
    padded = np.pad(
        image, ((0, max(0, least - height)), (0, max(0, least - width)), (0, 0)), mode="edge"
    )
    return segment(padded)[:height, :width]


def check_fits(
    path: Path, size: tuple[int, int], device: torch.device, tile: int | None = None
) -> None:
    """Raises ValueError for an image of (height, width) that would take more memory than there is:
    the system would end the process.
    """
    pixels = size[0] * size[1]
    needed, free = pixels * BYTES_PER_PIXEL, available_memory(device)
    if tile is not None:
        needed = min(needed, tile * tile * BYTES_PER_PIXEL + pixels * DRAWN_BYTES_PER_PIXEL)
    if free is not None and needed > free:
        raise ValueError(
            f"{path} is {size[0]}x{size[1]} (height x width); segmenting it takes about"
            f" {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free. "
            + (
                "Shrink it, or cut it into parts."
                if tile
                else "Shrink it, or have it segmented in parts: --tile 1024."
            )
        )


def read_images(paths: list[Path], device: torch.device, tile: int | None = None):
    """Yields (path, image) for each that can be read. One alone that cannot raises its error; among
    several it is skipped, with a warning.
    """
    for path in paths:
        try:
            check_fits(path, image_size(path), device, tile)
            image = read_image(path)
        except ValueError as error:
            if len(paths) == 1:
                raise
            tqdm.write(f"WARNING: skipped: {error}")
            continue
        yield path, image


def render(kind: str, image: np.ndarray, train_ids: np.ndarray, legend: bool) -> np.ndarray:
    """What --save calls ``kind``: an (h, w, 3) picture, or an (H, W) label map."""
    if kind in ("labelIds", "trainIds"):
        return train_ids if kind == "trainIds" else LABEL_ID_OF[train_ids]
    picture = overlay(image, train_ids, COLORS) if kind == "overlay" else COLORS[train_ids]
    if not legend:
        return picture
    factor = max(1, round(SHOWN_WIDTH / picture.shape[1]))
    return with_legend(resize_to_width(picture, factor * picture.shape[1]), CLASS_NAMES, COLORS)


def predict_images(segment: Segmenter, paths: list[Path], args, device: torch.device) -> None:
    """One file for each image and each kind of --save."""
    seconds = []
    stems = output_names(paths)
    images = read_images(paths, device, args.tile)
    for path, image in (
        images if len(paths) == 1 else tqdm(images, total=len(paths), unit="image", disable=None)
    ):
        start = time.perf_counter()
        train_ids = segment(image)
        seconds.append(time.perf_counter() - start)
        for kind in args.save:
            write_png(
                args.output / f"{stems[path]}_{kind}.png",
                render(kind, image, train_ids, not args.no_legend),
            )
    if not seconds:
        raise ValueError(
            f"None of the {len(paths)} images could be read; the warnings above say why."
        )
    print(
        f"{len(seconds)} images into {args.output}: {1 / np.median(seconds):.1f} frames per second,"
        " reading and writing not counted."
    )


def film_kinds(source: str, args) -> list[str]:
    """The kinds of --save that a film can have. Raises ValueError where there is none."""
    kinds = [kind for kind in args.save if kind in ("overlay", "color")]
    if not kinds:
        raise ValueError(
            f"{source} is a video, whose compression would spoil {' and '.join(args.save)}. Choose"
            " --save overlay or color."
        )
    return kinds


def predict_video(segment: Segmenter, path: Path, stem: str, args, device: torch.device) -> None:
    """One MP4 for each kind of --save."""
    kinds = film_kinds(str(path), args)
    reader = VideoReader(path)
    check_fits(path, reader.size, device, args.tile)
    seconds = []
    with ExitStack() as stack:
        writers = {
            kind: stack.enter_context(VideoWriter(args.output / f"{stem}_{kind}.mp4", reader.fps))
            for kind in kinds
        }
        for frame in tqdm(
            reader, total=reader.frames or None, desc=path.name, unit="frame", disable=None
        ):
            start = time.perf_counter()
            train_ids = segment(frame)
            seconds.append(time.perf_counter() - start)
            for kind, writer in writers.items():
                writer.write(render(kind, frame, train_ids, not args.no_legend))
    if reader.ended_early:
        print(
            f"WARNING: {path} ended after {reader.read} of the {reader.frames} frames that its"
            " header promises: it is cut short or damaged."
        )
    report_film(reader.read, writers.values(), seconds, "decoding and encoding not counted")


def predict_camera(
    segment: Segmenter, args, device: torch.device, clock: Callable[[], float] = time.monotonic
) -> None:
    """Films until the camera ends, Ctrl-C, or --seconds by ``clock``: one MP4 for each kind of
    --save, at the pace of the street.
    """
    kinds, camera, seconds = film_kinds(f"Camera {args.camera}", args), Camera(args.camera), []
    check_fits(Path(f"camera {args.camera}"), camera.size, device, args.tile)
    stopped = False
    with ExitStack() as stack:
        stack.callback(camera.close)
        writers = {
            kind: stack.enter_context(
                VideoWriter(args.output / f"camera_{args.camera}_{kind}.mp4", camera.fps)
            )
            for kind in kinds
        }
        stop, start = stack.enter_context(StopRequest()), clock()
        for frame in tqdm(
            camera, desc=f"camera {args.camera}, Ctrl-C ends", unit="frame", disable=None
        ):
            begin = time.perf_counter()
            train_ids = segment(frame)
            seconds.append(time.perf_counter() - begin)
            elapsed = clock() - start
            for kind, writer in writers.items():
                due = due_frames(elapsed, camera.fps, writer.written)
                picture = render(kind, frame, train_ids, not args.no_legend) if due else None
                for _ in range(due):
                    writer.write(picture)
            stopped = bool(stop) or (args.seconds is not None and elapsed >= args.seconds)
            if stopped:
                break
    if not stopped:
        print(
            f"WARNING: camera {args.camera} gave no more pictures after {camera.read}: was it"
            " unplugged?"
        )
    report_film(camera.read, writers.values(), seconds, "filming and encoding not counted")


def report_film(
    frames: int, writers: Iterable[VideoWriter], seconds: list[float], not_counted: str
) -> None:
    """Says what was made, and how fast: ``seconds`` of each frame in the network."""
    files = ", ".join(str(writer.path) for writer in writers)
    print(
        f"{frames} frames into {files}: {1 / np.median(seconds):.1f} frames per second,"
        f" {not_counted}."
    )


def compare(
    networks: list[tuple[str, Segmenter]], paths: list[Path], args, device: torch.device
) -> None:
    """comparison.png: a row for each image; the image, its ground truth where there is one, and
    what each network says.
    """
    labels = (
        {}
        if args.labels is None
        else {file.name: file for file in sorted(args.labels.rglob("*.png"))}
    )
    rows, found_labels = [], 0
    for path, image in tqdm(
        read_images(paths, device, args.tile), total=len(paths), unit="image", disable=None
    ):
        row = [image]
        if labels:
            truth = labels.get(path.stem.replace("_leftImg8bit", "_gtFine_labelIds") + ".png")
            found_labels += truth is not None
            row.append(
                np.full_like(image, 255)
                if truth is None
                else COLORS[TRAIN_ID_OF[read_label(truth)]]
            )
        rows.append([*row, *(COLORS[segment(image)] for _, segment in networks)])
    if args.labels is not None and not found_labels:
        raise ValueError(
            f"No labels below {args.labels} for these images. Expected NAME_gtFine_labelIds.png for"
            " NAME_leftImg8bit.png, else equal names."
        )
    if not rows:
        raise ValueError(
            f"None of the {len(paths)} images could be read; the warnings above say why."
        )
    heads = ["image", *(["ground truth"] if labels else []), *(name for name, _ in networks)]
    width = int(np.clip(2400 // len(heads), 256, 640))
    picture = image_grid(rows, heads, width=width)
    write_png(
        args.output / "comparison.png",
        picture if args.no_legend else with_legend(picture, CLASS_NAMES, COLORS),
    )
    print(f"{len(rows)} images, {len(networks)} networks: {args.output / 'comparison.png'}")


def main(args) -> None:
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    output_folder(args.output)
    # The size of every image is looked at against the memory that there is, which is what Pillow's
    # warning is about.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    images, videos = (
        find_inputs(args.inputs, IMAGE_SUFFIXES, VIDEO_SUFFIXES) if args.inputs else ([], [])
    )
    if args.labels is not None and not args.labels.is_dir():
        raise FileNotFoundError(
            f"No folder {args.labels}. --labels expects the folder that holds the ground truth,"
            " such as gtFine."
        )
    networks = [load_segmenter(path, device, precision) for path in args.compare or [args.model]]
    if args.tile:
        networks = [(name, in_tiles(segment, args.tile)) for name, segment in networks]
    if args.compare:
        if not images:
            raise ValueError(
                "--compare draws images; found videos only. Segment a video with --model."
            )
        names = [name for name, _ in networks]
        networks = [
            (name if names.count(name) == 1 else f"{name} ({path.name})", segment)
            for (name, segment), path in zip(networks, args.compare, strict=True)
        ]
        compare(networks, images, args, device)
        return
    _, segment = networks[0]
    if images:
        predict_images(segment, images, args, device)
    for video, stem in output_names(videos).items():
        predict_video(segment, video, stem, args, device)
    if args.camera is not None:
        predict_camera(segment, args, device)


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
