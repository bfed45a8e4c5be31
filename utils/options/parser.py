"""Command lines: argument types, --help and --help-all, options of methods, user errors."""

import argparse
import dataclasses
import os
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from utils.options.remedies import user_message
from utils.options.renamed import RENAMED_FLAGS, RENAMED_VALUES

Options = TypeVar("Options")


_UNSET = "Is a variable of the shell unset? Set it first, such as export GTA5=FOLDER (README.md)"


class Parser(argparse.ArgumentParser):
    """A parser that keeps line breaks of its texts, shows defaults, and names what was renamed.

    ``essential``: names of the flags that --help shows; --help-all shows all. Empty: --help shows
    all flags and there is no --help-all.
    """

    def __init__(self, *args: Any, essential: Collection[str] = (), **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.register("type", Path, user_path)
        self.essential = frozenset(essential)
        if self.essential:
            self.add_argument(
                "--help-all", action=_HelpAll, nargs=0, help="show all flags, with help, and exit"
            )

    def error(self, message: str) -> None:
        if message.endswith(("expected one argument", "expected at least one argument")):
            message += f". {_UNSET}"
        super().error(message)

    def format_help(self, all_flags: bool = False) -> str:
        hidden = {}
        if self.essential and not all_flags:
            shown = self.essential | {"help", "help_all"}
            hidden = {action: action.help for action in self._actions if action.dest not in shown}
        for action in hidden:
            action.help = argparse.SUPPRESS
        try:
            return super().format_help()
        finally:
            for action, text in hidden.items():
                action.help = text

    def parse_known_args(self, argv=None, namespace=None):
        words = sys.argv[1:] if argv is None else list(argv)
        for flag in (word.split("=")[0] for word in words):
            if flag in RENAMED_FLAGS and flag not in self._option_string_actions:
                self.error(
                    f"{flag} is called {RENAMED_FLAGS[flag]} now (--help-all lists all flags)"
                )
        self._refuse_renamed_values(words)
        return super().parse_known_args(words, namespace)

    def _refuse_renamed_values(self, words: Sequence[str]) -> None:
        """Ends with a message that names the new spelling of a flag's value."""
        flag = ""
        for word in words:
            name, _, attached = word.partition("=")
            flag, value = (name, attached) if word.startswith("--") else (flag, word)
            action = self._option_string_actions.get(flag)
            new_value = RENAMED_VALUES.get((flag, value))
            if action is None or new_value is None or action.choices is None:
                continue
            if self._get_value(action, value) not in action.choices:
                self.error(f"{flag} {value} is called {flag} {new_value} now")

    def action_of(self, name: str) -> argparse.Action | None:
        """The action that sets the attribute ``name``."""
        return next((action for action in self._actions if action.dest == name), None)

    def action_of_setting(self, name: str) -> argparse.Action | None:
        """The action of a setting in a recipe, spelled as the attribute or as one of its flags.

        None for the --no- form of a flag, whose value would be the opposite one.
        """
        flag = f"--{name.replace('_', '-')}"
        spelled = self._option_string_actions.get(flag)
        if isinstance(spelled, argparse.BooleanOptionalAction) and flag.startswith("--no-"):
            spelled = None
        return self.action_of(name) or spelled

    def refuse_unused(self, given: Collection[str], names: Sequence[str], condition: str) -> None:
        """Ends with a message for flags on the command line that would do nothing.

        ``given``: see that method. ``names``: the flags, without dashes. ``condition``: why they
        do nothing.
        """
        actions = (self.action_of(name) for name in names if name in given)
        flags = ["/".join(action.option_strings) for action in actions]
        if flags:
            self.error(f"{', '.join(flags)}: without effect {condition}. Leave it out")

    def given(self, argv: Sequence[str] | None) -> set[str]:
        """Names of the flags that a command line gives itself, whatever the defaults are."""
        unset = object()
        namespace = argparse.Namespace(**{action.dest: unset for action in self._actions})
        required = [action for action in self._actions if action.required]
        for action in required:
            action.required = False
        try:
            found, _ = self.parse_known_args(argv, namespace)
        finally:
            for action in required:
                action.required = True
        return {name for name, value in vars(found).items() if value is not unset}


class _HelpAll(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None) -> None:
        print(parser.format_help(all_flags=True), end="")
        parser.exit()


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if default is None or isinstance(default, bool) or default == ():  # says nothing
            return action.help
        if isinstance(default, list | tuple) and action.nargs:  # as it is typed
            return f"{action.help} (default: {' '.join(map(str, default))})"
        return super()._get_help_string(action)


def new_parser(description: str, epilog: str = "", essential: Collection[str] = ()) -> Parser:
    """A parser for an entry script; see Parser."""
    return Parser(
        description=description, epilog=epilog, formatter_class=_Formatter, essential=essential
    )


def user_path(text: str) -> Path:
    """An argparse type: a path; ~ is the home folder. Parser takes it for ``type=Path``."""
    if not text:
        raise argparse.ArgumentTypeError(f"expected a path, found an empty text. {_UNSET}")
    return Path(os.path.expanduser(text))


def positive_int(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    return _whole_number(text, 1)


def non_negative_int(text: str) -> int:
    """An argparse type: an integer of at least 0."""
    return _whole_number(text, 0)


def _whole_number(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError as error:
        message = f"expected a whole number such as 1000, found {text}"
        raise argparse.ArgumentTypeError(message) from error
    if value < least:
        raise argparse.ArgumentTypeError(f"expected at least {least}, found {value}")
    if value >= 2**63:  # torch's integers have 64 bits
        raise argparse.ArgumentTypeError(f"expected less than 2^63, found {value}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        message = f"expected a number such as 0.01, found {text}"
        raise argparse.ArgumentTypeError(message) from error


def positive_float(text: str) -> float:
    """An argparse type: a finite number above 0."""
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a finite number above 0, found {text}")
    return value


def image_scale(text: str) -> float:
    """An argparse type: a scale factor of images, of at least 1/64 (RandomScaleCropFlip)."""
    value = positive_float(text)
    if value < 1 / 64:
        raise argparse.ArgumentTypeError(f"expected at least 1/64 = 0.015625, found {text}")
    return value


def non_negative_float(text: str) -> float:
    """An argparse type: a finite number of at least 0."""
    value = _number(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a finite number of at least 0, found {text}")
    return value


def probability(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, found {text}")
    return value


TYPES = {
    "positive_int": positive_int,
    "non_negative_int": non_negative_int,
    "positive_float": positive_float,
    "non_negative_float": non_negative_float,
    "probability": probability,
    "path": user_path,
}
"""The types that options of methods may name (model.uda.base.option)."""


def add_method_arguments(parser: Parser, methods: dict[str, type]) -> None:
    """--method, and a group of flags for each method: the fields of its ``Options`` dataclass.

    ``methods``: {name: class} (model.uda.base.find_methods). A field that several methods declare
    is one flag. Raises TypeError where they declare it differently: one of them would get the
    other's default.
    """
    declared: dict[str, dataclasses.Field] = {}
    group = parser.add_argument_group("method")
    group.add_argument(
        "--method",
        choices=tuple(methods),
        default=next(iter(methods)),
        help="adaptation method; each is one file of model/uda/ (the paper's: adversarial)",
    )
    for name, method in methods.items():
        text = (method.__doc__ or "").partition("\n")[0]
        group = parser.add_argument_group(f"--method {name}", text)
        for field in dataclasses.fields(method.Options):
            known = declared.setdefault(field.name, field)
            if _declaration(known) != _declaration(field):
                raise TypeError(
                    f"--method {name} declares {field.name} as {_declaration(field)}, another one"
                    f" as {_declaration(known)}: they are one flag. Declare it alike, or rename it."
                )
            if parser.action_of(field.name) is None:
                _add_option(group, field)
            if field.metadata.get("essential") and parser.essential:
                parser.essential |= {field.name}


def _declaration(field: dataclasses.Field) -> dict[str, Any]:
    """What methods that share a flag must agree on: all but its text."""
    texts = ("help", "essential", "metavar")
    return {"default": field.default} | {
        key: value for key, value in field.metadata.items() if key not in texts
    }


def _add_option(group: argparse._ArgumentGroup, field: dataclasses.Field) -> None:
    settings = {"default": field.default, **field.metadata}
    settings.pop("essential", None)
    settings["help"] = settings["help"].replace("%", "%%")  # argparse formats it
    if isinstance(field.default, bool):
        settings["action"] = argparse.BooleanOptionalAction
    elif "type" in settings:
        settings["type"] = TYPES[settings["type"]]
    elif kind := _number_type(field):  # without it words of the command line would stay text
        settings["type"] = kind
    group.add_argument(f"--{field.name.replace('_', '-')}", **settings)


def _number_type(field: dataclasses.Field) -> type | None:
    """float or int, whichever the annotation or else the default names; None for texts."""
    found = re.search(r"\b(float|int)\b", str(field.type))
    if found:
        return {"float": float, "int": int}[found[0]]
    first = field.default[0] if isinstance(field.default, tuple) else field.default
    return type(first) if isinstance(first, int | float) else None


def method_options(
    parser: Parser, methods: dict[str, type], values: dict[str, Any], given: set[str]
) -> Any:
    """The options of the chosen method, an instance of its ``Options``. ``values``: ``vars(args)``.

    Ends with a message if ``given`` holds a flag of other methods alone: it would have no effect.
    """
    chosen_method, names = values["method"], _option_names(methods)
    for name, own_names in names.items():
        foreign = own_names - names[chosen_method]
        flags = ", ".join(f"--{flag.replace('_', '-')}" for flag in sorted(given & foreign))
        if flags:
            parser.error(
                f"{flags}: of --method {name}, without effect with --method {chosen_method}."
                " Leave it out, or choose that method"
            )
    return from_arguments(methods[chosen_method].Options, values)


def other_method_settings(methods: dict[str, type], chosen: str) -> set[str]:
    """Names of the settings that belong to methods other than the ``chosen`` one alone."""
    names = _option_names(methods)
    return set().union(*names.values()) - names[chosen]


def _option_names(methods: dict[str, type]) -> dict[str, set[str]]:
    """{name of a method: names of its options}."""
    return {
        name: {field.name for field in dataclasses.fields(method.Options)}
        for name, method in methods.items()
    }


def from_arguments(options: type[Options], values: dict[str, Any]) -> Options:
    """A dataclass filled from ``vars(args)`` by the names of its fields; lists become tuples."""
    chosen = {field.name: values[field.name] for field in dataclasses.fields(options)}
    return options(**{n: tuple(v) if isinstance(v, list) else v for n, v in chosen.items()})


def available_cores() -> int:
    """Cores that this process may use, which a scheduler may have limited."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def user_errors_without_traceback() -> Iterator[None]:
    """Prints errors with their remedy, without a traceback; faults of this project keep theirs."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of files that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _output_is_closed():
            sys.exit(141)  # as if by SIGPIPE
        message = user_message(error)
        if message is None:
            raise
        sys.exit(f"error: {message}")


def _output_is_closed() -> bool:
    """Whether the reader of the output has left, such as head; then nothing more is written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False
