"""Parsing: types of arguments, recipes, and errors without a traceback."""

import argparse
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def new_parser(description: str, epilog: str = "") -> argparse.ArgumentParser:
    """A parser whose help keeps the line breaks of its texts and shows every default."""

    class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        pass

    return argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=Formatter
    )


def parse_with_recipe(
    parser: argparse.ArgumentParser, recipes: dict[str, dict], argv: list[str] | None
) -> argparse.Namespace:
    """Parses ``argv`` with the defaults of the recipe that it names; whatever is given explicitly
    wins.
    """
    parser.set_defaults(**recipes["paper"])
    recipe = parser.parse_known_args(argv)[0].recipe
    parser.set_defaults(**recipes[recipe])
    return parser.parse_args(argv)


def positive_int(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {value}")
    return value


def non_negative_int(text: str) -> int:
    """An argparse type: an integer of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected at least 0, found {value}")
    return value


def positive_float(text: str) -> float:
    """An argparse type: a finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a finite number above 0, found {text}")
    return value


def probability(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, found {text}")
    return value


def available_cores() -> int:
    """The cores that this process may use: fewer than the machine has where a scheduler says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def user_errors_without_traceback() -> Iterator[None]:
    """Ends with the message alone where the project itself raised it: the user needs the remedy.
    Other errors keep their traceback.
    """
    try:
        yield
    except (ValueError, OSError, FloatingPointError) as error:
        frame = list(traceback.walk_tb(error.__traceback__))[-1][0]
        place, message = frame.f_code.co_filename, str(error)
        if (
            message.startswith("Caught ") and "DataLoader worker" in message
        ):  # the worker's own traceback is the message
            places = re.findall(r'^  File "(.+)", line \d+, in ', message, re.MULTILINE)
            place, message = places[-1], message.rsplit(f"{type(error).__name__}: ", 1)[-1].strip()
        if not Path(place).is_relative_to(Path(__file__).parents[2]) or ".venv" in place:
            raise
        sys.exit(f"error: {message}")
