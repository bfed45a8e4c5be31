"""Laws of merges of classes: files, errors, matrices."""

import numpy as np
import pytest

from dataset.class_set_file import FOLDER, load_class_set
from dataset.labels import IGNORE_INDEX
from dataset.merge import MERGES, load_merge

BUILTIN = sorted(path.stem for path in MERGES.glob("*.toml"))
MINE = """
classes = ["a", "b"]
[encodings.ids]
read = "index"
classes = {a = 0, b = 1}
"""


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin_merges_agree_with_the_labels(name):
    """A label of Cityscapes, read in the new classes, is what the merge makes of the old class."""
    merge = load_merge(name)
    old, new = merge.old.table("labelIds"), merge.new.table("labelIds")
    matrix = merge.matrix()
    assert matrix.shape == (len(merge.old), len(merge.new))
    assert (matrix.sum(1) == 1).all()
    for label_id in np.flatnonzero(old < len(merge.old)):
        assert matrix[old[label_id], new[label_id]] == 1, label_id
    assert name == f"{merge.old.name}-to-{merge.new.name}"


def test_a_class_set_with_a_base_is_a_merge():
    """synthia16 merges the 19 classes of Cityscapes, on which it is based."""
    merge = load_merge(FOLDER / "synthia16.toml")
    assert (len(merge.old), len(merge.new)) == (19, 16)
    assert merge.text() == "ignored: terrain, truck, train"
    matrix = merge.matrix()
    assert matrix[merge.old.names.index("train")].sum() == 0
    assert matrix.sum() == 16
    old, new = load_class_set("cityscapes19").table("labelIds"), merge.new.table("labelIds")
    for label_id in np.flatnonzero((old < 19) & (new == IGNORE_INDEX)):
        assert matrix[old[label_id]].sum() == 0


def test_files_are_found_beside_a_merge(tmp_path):
    """``from`` and ``to`` name built-in sets, or files beside the merge."""
    (tmp_path / "mine.toml").write_text(MINE)
    (tmp_path / "merge.toml").write_text(
        'from = "mine.toml"\nto = "binary"\nignored = []\n[merge]\nbackground = "a"\n'
        'foreground = ["b"]\n'
    )
    merge = load_merge(tmp_path / "merge.toml")
    assert merge.members == {"background": ("a",), "foreground": ("b",)}
    assert merge.text() == "background = a; foreground = b"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('from = "binary"\n[merge]\na = "b"\n', "no 'to'"),
        ('from = "binary"\nto = "binary"\ninto = 1\n[merge]\na = "b"\n', "the key 'into'"),
        ('from = "binary"\nto = "binary"\nmerge = 3\n', "no '\\[merge\\]'"),
        ('from = "binary"\nto = "binary"\n[merge]\nforeground = 3\n', "foreground is 3"),
        (
            'from = "binary"\nto = "binary"\n[merge]\nforeground = "foreground"\n',
            "leaves 'background' nowhere",
        ),
        (
            'from = "binary"\nto = "binary"\n[merge]\nforeground = ["foreground", "background"]\n',
            "'background' is in one of them only",
        ),
        ("from = ", "is no TOML file"),
        ('from = 3\nto = "binary"\n[merge]\na = "b"\n', "names the class set 3"),
        ('based_on = 3\n[merge]\na = "b"\n', "names the class set 3"),
        ('based_on = "binary"\nmerge = 3\n', "does not say how"),
    ],
)
def test_an_unsound_merge_is_refused(text, error, tmp_path):
    """The error says what the file lacks."""
    (tmp_path / "merge.toml").write_text(text)
    with pytest.raises(ValueError, match=error):
        load_merge(tmp_path / "merge.toml")


def test_an_unknown_merge_is_named():
    with pytest.raises(FileNotFoundError, match="did you mean cityscapes19-to-camvid11"):
        load_merge("cityscapes-to-camvid")


def test_the_network_must_have_the_merged_classes():
    """A merge from other classes than the network's is refused, with both lists."""
    merge = load_merge("cityscapes19-to-camvid11")
    merge.require(load_class_set("cityscapes19"), "last.pt")
    with pytest.raises(ValueError, match="last.pt has the 2 classes of binary"):
        merge.require(load_class_set("binary"), "last.pt")
