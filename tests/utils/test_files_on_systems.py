"""Files on every system: folders that cannot be synchronized, JSON that every reader takes."""

import errno
import json
import math
import os
import stat

import pytest

from utils.files import _NO_SYNC, atomic_file, output_file, write_file, write_json


@pytest.mark.parametrize("number", sorted(_NO_SYNC))
@pytest.mark.parametrize("refused", ["open", "fsync", "any fsync"])
def test_a_folder_that_cannot_be_synchronized(refused, number, tmp_path, monkeypatch):
    """CIFS, FUSE (fsync, even of files), Windows (open): the file is complete, the run goes on."""
    refuse_folders(monkeypatch, refused, number)
    with atomic_file(tmp_path / "last.pt", durable=True) as file:
        file.write(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert (tmp_path / "last.pt").read_bytes() == b"whole"


def test_a_failing_disk_is_an_error(tmp_path, monkeypatch):
    refuse_folders(monkeypatch, "fsync", errno.EIO)
    durable = atomic_file(tmp_path / "last.pt", durable=True)
    with pytest.raises(OSError, match="Input/output"), durable as file:
        file.write(b"whole")


def refuse_folders(monkeypatch, function: str, number: int) -> None:
    """os.open or os.fsync fail for folders, or os.fsync for "any" file."""
    name, anything = function.removeprefix("any "), function.startswith("any ")
    real = getattr(os, name)

    def refuse(what, *more):
        found = os.fstat(what) if isinstance(what, int) else os.stat(what)
        if anything or stat.S_ISDIR(found.st_mode):
            raise OSError(number, os.strerror(number))
        return real(what, *more)

    monkeypatch.setattr(os, name, refuse)


def test_json_holds_no_number_that_is_none(tmp_path):
    """NaN and infinity, at any depth, are null: JSON has no words for them."""
    content = {"iou": [0.5, math.nan, (math.inf, 1)], "rows": [{"x": -math.inf, "tta": None}]}
    write_json(tmp_path / "a.json", content)

    def refuse(word):
        raise AssertionError(word)

    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert found == {"iou": [0.5, None, [None, 1]], "rows": [{"x": None, "tta": None}]}


def test_a_folder_is_no_name_of_a_file(tmp_path):
    """It is refused before the work, and the folder of a new file is made."""
    with pytest.raises(OSError, match=r"Cannot write .*: it is a folder.*such as"):
        output_file(tmp_path)
    path = output_file(tmp_path / "new/folder/scores.json")
    assert path.parent.is_dir()
    assert not path.exists()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Cannot write into"):
        output_file(tmp_path / "file/scores.json")


@pytest.mark.parametrize(
    ("output", "given"),
    [
        ("data/a.png", "data/a.png"),
        ("data/new/a.png", "data"),
        ("link/a.png", "data"),
        ("data/a.png", "link"),
        ("data/../data/a.png", "data/a.png"),
        ("pointer.png", "data/a.png"),
    ],
)
def test_an_input_is_never_an_output(tmp_path, output, given):
    """Neither a file that is read, nor one in a folder that is read, by whichever name."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.png").touch()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "pointer.png").symlink_to(tmp_path / "data/a.png")
    with pytest.raises(OSError, match=r"Cannot write .*: it (is|lies in) the input .*outside"):
        output_file(tmp_path / output, [tmp_path / given])
    assert not (tmp_path / "data/new").exists()
    output_file(tmp_path / "data2/a.png", [tmp_path / "data", tmp_path / "absent"])


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Make room there"),
        (errno.EDQUOT, "Make room there"),
        (errno.EACCES, "Choose another place"),
        (errno.EISDIR, "Choose another place"),
    ],
)
def test_room_is_asked_for_on_full_disks_only(tmp_path, monkeypatch, number, remedy):
    """Another fault has another remedy."""

    def refuse(*paths):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="Could not write") as error:
        write_file(tmp_path / "a", b"")
    assert remedy in str(error.value)
    assert ("Make room" in str(error.value)) == (number in (errno.ENOSPC, errno.EDQUOT))
