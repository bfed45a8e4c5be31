"""Laws of the code as a whole: imports, sizes of functions, names of tests."""

import ast
import hashlib
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.forked import run_forked

ROOT = Path(__file__).parents[1]
LEAVES = {"model", "dataset", "utils"}
ENTRIES = [
    ROOT / "train.py",
    ROOT / "train_da.py",
    ROOT / "eval.py",
    *sorted((ROOT / "scripts").rglob("*.py")),
]
SOURCES = [
    *ENTRIES,
    *(path for leaf in sorted(LEAVES) for path in sorted((ROOT / leaf).rglob("*.py"))),
]
REFERENCE = ROOT / "scripts/baselines.py"
"""What the benchmarks measure against: kept as it is, bound by no law."""

MAX_LINES, MAX_PARAMETERS, MAX_TEST_NAME = 60, 7, 60

MAX_LOOP_LINES = 20  # of the training loops, which a reader sees whole


def imports(path: Path) -> set[str]:
    """Names of the modules, and of what is taken from them, that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_who_may_import_whom(path):
    """No leaf names another leaf or an entry script; no entry script names another.

    A script that is a package imports its own modules; every script may import the reference.
    """
    parts = path.relative_to(ROOT).parts
    folder, own = parts[0], ".".join(parts[:2]).removesuffix(".py")
    for name in imports(path):
        package = name.split(".")[0]
        if folder in LEAVES:
            assert package not in LEAVES - {folder}, f"the leaf {folder} imports the leaf {name}"
        if package in {"train", "train_da", "eval", "scripts"} and name != "scripts":
            assert folder not in LEAVES, f"the leaf {folder} imports the entry script {name}"
            allowed = ("scripts.baselines", own)
            assert name.startswith(allowed), f"{path.name} imports the entry script {name}"


IMPORT_LEAVES = """
    import importlib, os, pkgutil, sys

    FIRST_PARTY = {"model", "dataset", "utils", "scripts", "train", "train_da", "eval", "tests"}

    class Refusal:
        def __init__(self, leaf):
            self.refused = FIRST_PARTY - {leaf}

        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in self.refused:
                raise ImportError(f"imports {name}")

    def import_leaf(leaf):
        sys.meta_path.insert(0, Refusal(leaf))
        package, count = importlib.import_module(leaf), 0
        for module in pkgutil.walk_packages(package.__path__, leaf + "."):
            try:
                importlib.import_module(module.name)
            except ImportError as error:
                print(f"{module.name}: {error}", flush=True)
                return 1
            count += 1
        print(f"{leaf}: {count} modules", flush=True)
        return 0

    root, here = os.getcwd(), sys.argv[1]
    sys.path = [here, *(path for path in sys.path if path not in ("", root))]
    for name in [name for name in sys.modules if name.split(".")[0] in FIRST_PARTY]:
        del sys.modules[name]  # imported before the fork
    for leaf in sys.argv[2:]:  # each in a process of its own, which has imported no other leaf
        if os.fork() == 0:
            os._exit(import_leaf(leaf))
        os.wait()
"""


def import_leaves(leaves: list[str], folder: Path, tmp_path: Path) -> list[str]:
    """Imports all modules of each leaf in ``folder``, while other leaves and scripts cannot be
    imported.

    One line for each leaf: the number of its modules, or the first module that failed.
    """
    (tmp_path / "import_leaves.py").write_text(textwrap.dedent(IMPORT_LEAVES))
    done = run_forked(str(tmp_path / "import_leaves.py"), folder, *leaves)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_each_leaf_can_be_imported_without_the_others(tmp_path):
    """Also imports inside __init__, of names made at run time, and through third modules."""
    expected = [
        f"{leaf}: {sum(1 for path in (ROOT / leaf).rglob('*.py')) - 1} modules"
        for leaf in sorted(LEAVES)
    ]
    assert import_leaves(sorted(LEAVES), ROOT, tmp_path) == expected


def test_the_import_law_can_fail(tmp_path):
    for name, text in {"model": "", "dataset": "__import__('model')"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "part.py").write_text(text)
    expected = ["model: 1 modules", "dataset.part: imports model"]
    assert import_leaves(["model", "dataset"], tmp_path, tmp_path) == expected


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef]]:
    """("file: name", syntax tree) of every function and method in a file, inner ones too."""
    inside = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{inside}: {node.name}", node


def is_argument_list(name: str) -> bool:
    """Whether a function declares flags, a long list by nature."""
    return name == "parse_arguments" or (name.startswith("add_") and name.endswith("arguments"))


def long_functions(path: Path) -> set[str]:
    """Functions of more than MAX_LINES lines, argument lists excepted."""
    return {
        name
        for name, node in functions(path)
        if node.end_lineno - node.lineno + 1 > MAX_LINES and not is_argument_list(node.name)
    }


def parameter_count(node: ast.FunctionDef) -> int:
    """Number of parameters, ``*`` and ``**`` counted as one each, without self and cls."""
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    extra = [name for name in (arguments.vararg, arguments.kwarg) if name is not None]
    return len([name for name in [*named, *extra] if name.arg not in ("self", "cls")])


def many_parameters(path: Path) -> set[str]:
    """Functions of more than MAX_PARAMETERS parameters."""
    return {name for name, node in functions(path) if parameter_count(node) > MAX_PARAMETERS}


def writes_to_args(path: Path) -> set[str]:
    """Functions other than ``parse_arguments`` that assign to an attribute of ``args``."""
    return {
        name
        for name, function in functions(path)
        if function.name != "parse_arguments"
        for node in ast.walk(function)
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store | ast.Del)
            and isinstance(node.value, ast.Name)
            and node.value.id == "args"
        )
        or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("setattr", "delattr")
            and isinstance(node.args[0], ast.Name)
            and node.args[0].id == "args"
        )
    }


@pytest.mark.parametrize(
    "offenders_of",
    [long_functions, many_parameters, writes_to_args],
    ids=["lines", "parameters", "namespace"],
)
def test_functions_are_short_and_leave_args_alone(offenders_of):
    """At most 60 lines and 7 parameters; the Namespace is complete when it has been parsed."""
    found = {name for path in SOURCES if path != REFERENCE for name in offenders_of(path)}
    assert not found, "shorten these, or let parse_arguments do the assignment"


def test_the_laws_of_functions_can_fail(tmp_path):
    script = tmp_path / "script.py"
    body = "    pass\n" * 60
    script.write_text(
        f"def long():\n{body}def parse_arguments():\n    args.a = 1\n{body}"
        "class A:\n    def many(self, a, b, c, /, d, e, *f, g, **h): args.x += 1\n"
        "    def seven(self, a, b, c, d, e, f, g): setattr(args, a, args.y)\n"
        "def reads(args): return args.x == 1\n"
    )
    assert long_functions(script) == {"script.py: long"}
    assert many_parameters(script) == {"script.py: many"}
    assert writes_to_args(script) == {"script.py: many", "script.py: seven"}


@pytest.mark.parametrize(("script", "function"), [("train", "train"), ("train_da", "adapt")])
def test_a_training_loop_is_seen_whole(script, function):
    """The loop over steps has at most 20 lines."""
    nodes = dict(functions(ROOT / f"{script}.py"))
    loops = [
        node
        for node in ast.walk(nodes[f"{script}.py: {function}"])
        if isinstance(node, ast.For) and ast.unparse(node.iter).startswith("run.steps(")
    ]
    assert len(loops) == 1
    assert loops[0].end_lineno - loops[0].lineno + 1 <= MAX_LOOP_LINES


def test_names_of_tests_are_short():
    """At most 60 characters; a law that needs more words has them in its docstring."""
    long_names = {
        name
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for name, node in functions(path)
        if node.name.startswith("test_") and len(node.name) > MAX_TEST_NAME
    }
    assert not long_names


def test_the_namespace_stays_in_the_entry_script():
    for path in SOURCES:
        if path not in ENTRIES:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef):
                    assert "args" not in [argument.arg for argument in node.args.args], (
                        f"{path}:{node.lineno} takes a Namespace"
                    )


def test_the_reference_is_kept_unchanged():
    digest = hashlib.sha256(REFERENCE.read_bytes()).hexdigest()
    assert digest == "d9fc561ee24b04fde67b0685732e667ddc3276e2b28b48d186593b1ae9971b13"
