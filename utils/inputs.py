"""What a command line names as input: files, folders and patterns; and how the results of each are called."""

import glob
from collections.abc import Sequence
from pathlib import Path


def find_inputs(words: Sequence[str], image_suffixes: Sequence[str], video_suffixes: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """The images and the videos that ``words`` name; other files are skipped with a warning. Raises FileNotFoundError, ValueError."""
    files: list[Path] = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            files += sorted(file for file in path.rglob("*") if file.is_file())
        elif path.is_file():
            files.append(path)
        else:
            matches = sorted(map(Path, glob.glob(word, recursive=True)))
            if not matches:
                raise FileNotFoundError(f"Nothing at {word}. Expected an image, a video, a folder, or a pattern in quotes.")
            files += [file for file in matches if file.is_file()]
    files = list(dict.fromkeys(files))
    images = [file for file in files if file.suffix.lower() in image_suffixes]
    videos = [file for file in files if file.suffix.lower() in video_suffixes]
    for file in files:
        if file not in images and file not in videos:
            print(f"WARNING: {file} skipped: neither an image ({', '.join(image_suffixes)}) nor a video ({', '.join(video_suffixes)}).")
    if not images and not videos:
        expected = ", ".join((*image_suffixes, *video_suffixes))
        raise ValueError(f"No image and no video in {', '.join(words)}. Expected files ending in {expected}.")
    return images, videos


def output_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A name for the results of each file: its stem, with as much of its folders before it as keeps them apart."""
    names = {path: path.stem for path in paths}
    for depth in range(1, 1 + max((len(path.parts) for path in paths), default=0)):
        taken = list(names.values())
        for path, name in names.items():
            if taken.count(name) > 1:
                parts = path.absolute().with_suffix("").parts[1:]
                names[path] = "_".join(parts[-depth - 1 :])
    taken = list(names.values())
    return {path: name if taken.count(name) == 1 else f"{name}_{path.suffix[1:]}" for path, name in names.items()}
