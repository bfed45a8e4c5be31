"""A .pt2 file of a stranger runs no code: what is no tensor, size or operator is refused."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from model.inference import exported_network as module
from model.inference import program_file
from model.inference.exported_network import METADATA_KEY, ProgramNetwork

METADATA = json.dumps(
    {
        "name": "net",
        "num_classes": 19,
        "input": {"channel_order": "rgb", "mean": [0.0] * 3, "std": [1.0] * 3},
        "normalize_inside": True,
        "argmax_inside": True,
    }
)


class Classifier(torch.nn.Module):
    """As small as a program can be: (N, H, W, 3) -> (N, H, W)."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, image):
        return (image[..., 0] * self.weight).to(torch.uint8)


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    axes = {1: torch.export.Dim("height", min=33), 2: torch.export.Dim("width", min=33)}
    example = torch.zeros(1, 64, 96, 3, dtype=torch.uint8)
    program = torch.export.export(Classifier(), (example,), dynamic_shapes=(axes,))
    torch.export.save(program, path, extra_files={METADATA_KEY: METADATA})
    return path


def changed(path: Path, honest: Path, name: str, content: bytes) -> Path:
    """A copy of the program in which the file ``name`` has another content, or is new."""
    with zipfile.ZipFile(honest) as old, zipfile.ZipFile(path, "w") as new:
        folder = old.namelist()[0].split("/")[0]
        for member in old.namelist():
            if member != f"{folder}/{name}":
                new.writestr(member, old.read(member))
        new.writestr(f"{folder}/{name}", content)
    return path


def read(path: Path, name: str) -> str:
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(m for m in archive.namelist() if m.endswith(f"/{name}"))).decode()


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def pickled(path: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"": Touch(path)}, buffer)
    return buffer.getvalue()


def load(path: Path) -> ProgramNetwork:
    return ProgramNetwork(path, torch.device("cpu"))


def test_an_honest_program_is_loaded(honest):
    image = torch.randint(0, 255, (1, 40, 50, 3), dtype=torch.uint8).numpy()
    assert (load(honest)(image) == image[..., 0]).all()


@pytest.mark.parametrize("name", ["data/sample_inputs/model.pt", "data/weights/model.pt"])
def test_pickled_objects_are_refused(name, honest, tmp_path):
    path = changed(tmp_path / "net.pt2", honest, name, pickled(tmp_path / "ran"))
    with pytest.raises(ValueError, match=r"net.pt2 is not loaded: it holds pickled.*\.onnx"):
        load(path)
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_unpickled_are_refused(honest, tmp_path):
    """Their record says so, whatever they are called."""
    config = json.loads(read(honest, "data/weights/model_weights_config.json"))
    config["config"]["weight"]["use_pickle"] = True
    name = config["config"]["weight"]["path_name"]
    path = changed(tmp_path / "a.pt2", honest, f"data/weights/{name}", pickled(tmp_path / "ran"))
    record = "data/weights/model_weights_config.json"
    path = changed(tmp_path / "net.pt2", path, record, json.dumps(config).encode())
    with pytest.raises(ValueError, match=r"is not loaded: it holds pickled"):
        load(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    ["data/constants/opaque_obj_0", "data/constants/custom_obj_0", "data/aotinductor/model/m.so"]
    + ["code/run.py"],
)
def test_files_of_other_kinds_are_refused(name, honest, tmp_path):
    path = changed(tmp_path / "net.pt2", honest, name, pickle.dumps(Touch(tmp_path / "ran")))
    with pytest.raises(ValueError, match=f"is not loaded: it holds the file {name}"):
        load(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("torch.ops.aten.mul.Tensor", "torch.hub.load"),
        ("torch.ops.aten.mul.Tensor", "_operator.methodcaller"),
        ("torch.ops.aten.mul.Tensor", "torch.ops.aten.__class__.__init__.__globals__"),
        ("torch.ops.aten.mul.Tensor", "torch.ops.aten.from_file.default"),
        ("torch.ops.aten.mul.Tensor", "torch.ops.aten.save"),
    ],
)
def test_other_functions_are_refused(old, new, honest, tmp_path):
    program = read(honest, "models/model.json")
    assert old in program
    content = program.replace(old, new).encode()
    path = changed(tmp_path / "net.pt2", honest, "models/model.json", content)
    with pytest.raises(ValueError, match="is not loaded: it holds the function"):
        load(path)


def test_messages_of_assertions_are_no_file_names():
    """torch writes them into programs of variable sizes."""
    for name in ("_assert_scalar", "_assert_scalar.default", "_assert_async.msg", "mul.Tensor"):
        assert not program_file._takes_text(f"torch.ops.aten.{name}")
    for name in ("math.sqrt", "torch.sym_max", "_operator.add", "torch.ops.aten.absent.default"):
        assert not program_file._takes_text(name)


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "eval(chr(95))",
        "Symbol.mro()",
        "Symbol('s1'.join(open('x')))",
        "(lambda: 0)()",
        "[s0 for s0 in ()]",
    ],
)
def test_expressions_that_are_no_sizes_are_refused(expression, honest, tmp_path):
    """torch evaluates them as Python."""
    program = json.loads(read(honest, "models/model.json"))
    sizes = [node for node in module_dictionaries(program) if "expr_str" in node]
    assert sizes
    sizes[0]["expr_str"] = expression
    content = json.dumps(program).encode()
    path = changed(tmp_path / "net.pt2", honest, "models/model.json", content)
    with pytest.raises(ValueError, match="is not loaded: it holds the expression"):
        load(path)


def module_dictionaries(value):
    from model.inference.program_file import _dictionaries

    return list(_dictionaries(value))


def test_a_name_that_stands_twice_is_refused(honest, tmp_path):
    """Two readers of an archive may take different ones."""
    path = tmp_path / "net.pt2"
    path.write_bytes(honest.read_bytes())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"{}")
    with pytest.raises(ValueError, match=r"cannot be loaded .*unexpected file"):
        load(path)


def test_guards_of_a_program_are_not_run(honest, tmp_path):
    """They are Python code in the file, which newer torch compiles and runs."""
    program = json.loads(read(honest, "models/model.json"))
    program["guards_code"] = [f"not open({str(tmp_path / 'ran')!r}, 'w')"]
    content = json.dumps(program).encode()
    path = changed(tmp_path / "net.pt2", honest, "models/model.json", content)
    load(path)(torch.zeros(1, 40, 50, 3, dtype=torch.uint8).numpy())
    assert not (tmp_path / "ran").exists()


def test_metadata_is_looked_at_first(tmp_path, monkeypatch):
    """A program of others is not opened."""
    monkeypatch.setattr(module.torch.export, "load", lambda *_, **__: pytest.fail("opened"))
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        archive.writestr("net/extra/other", METADATA)
    with pytest.raises(ValueError, match="has no metadata about its input and classes"):
        load(tmp_path / "net.pt2")


@pytest.mark.parametrize("error", [EOFError(), NotImplementedError(), ValueError("first\nsecond")])
def test_an_error_without_text_is_named(error, honest, monkeypatch):
    """A cut member of the archive gives an EOFError that has no text."""

    def fail(_archive):
        raise error

    monkeypatch.setattr(program_file, "_members", fail)
    reason = "first" if str(error) else type(error).__name__
    with pytest.raises(ValueError, match=rf"cannot be loaded by torch.export \({reason}\)"):
        ProgramNetwork(honest, torch.device("cpu"))
