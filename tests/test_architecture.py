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
