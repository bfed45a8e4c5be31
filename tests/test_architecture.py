"""Laws of the house: who may import whom, and that every flag is read."""

import ast
import hashlib
from pathlib import Path

import pytest

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
# The measuring stick of the benchmarks is no entry script, and the subcommands of one script are
# its parts.
PARTS = ("scripts.baselines", "scripts.benchmark")


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_import_law(path):
    place = path.relative_to(ROOT).parts[0]
    for name in imports(path):
        first = name.split(".")[0]
        if place in LEAVES:
            assert first not in LEAVES - {place}, f"the leaf {place} imports the leaf {name}"
        if first in {"train", "train_da", "eval", "scripts"} and name != "scripts":
            assert place not in LEAVES, f"the leaf {place} imports the entry script {name}"
            assert name.startswith(PARTS), f"{path.name} imports the entry script {name}"


def declared_flags(path: Path) -> set[str]:
    """The attribute names of the flags that a file declares."""
    flags = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "add_argument"
        ):
            words = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            dest = [keyword.value.value for keyword in node.keywords if keyword.arg == "dest"]
            flags.add(dest[0] if dest else words[-1].lstrip("-").replace("-", "_"))
    return flags


def read_attributes(path: Path) -> set[str]:
    """Attributes of ``args`` that a file reads, beside those that the record takes as a whole."""
    tree = ast.parse(path.read_text())
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and isinstance(node.value, ast.Name)
        and node.value.id == "args"
    }


def shared_flags() -> dict[str, set[str]]:
    """The flags that each function of utils/options/groups.py and utils/options/method_groups.py
    declares.
    """
    trees = [
        ast.parse((ROOT / f"utils/options/{name}.py").read_text())
        for name in ("groups", "method_groups")
    ]
    groups = {}
    for function in (node for tree in trees for node in tree.body):
        if isinstance(function, ast.FunctionDef) and function.name.startswith("add_"):
            calls = [
                n
                for n in ast.walk(function)
                if isinstance(n, ast.Call)
                and isinstance(n.func, ast.Attribute)
                and n.func.attr == "add_argument"
            ]
            groups[function.name] = {
                call.args[0].value.lstrip("-").replace("-", "_") for call in calls
            }
    return groups


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_declared_flag_is_read(path):
    declared = declared_flags(path)
    called = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    for function, flags in shared_flags().items():
        if function in called:
            declared |= flags
    read = read_attributes(path) | ({"recipe"} if "parse_with_recipe" in called else set())
    assert declared <= read, f"declared and never read: {sorted(declared - read)}"


def test_the_flag_law_can_fail(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "parser.add_argument('--used')\nparser.add_argument('--for-show', '-f')\nprint(args.used)\n"
    )
    assert declared_flags(script) - read_attributes(script) == {"f"}


def test_the_namespace_stays_in_the_entry_script():
    for path in SOURCES:
        if path not in ENTRIES:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef):
                    assert "args" not in [argument.arg for argument in node.args.args], (
                        f"{path}:{node.lineno} takes a Namespace"
                    )


def test_the_reference_is_kept_unchanged():
    digest = hashlib.sha256((ROOT / "scripts/baselines.py").read_bytes()).hexdigest()
    assert digest == "d9fc561ee24b04fde67b0685732e667ddc3276e2b28b48d186593b1ae9971b13"
