"""Memory within the limits of a container."""

import pytest
import torch

from utils.benchmark import memory


@pytest.mark.parametrize(
    ("folder", "names", "cached"),
    [
        ("", ("memory.max", "memory.current"), "inactive_file"),
        ("memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file"),
    ],
    ids=["cgroup 2", "cgroup 1"],
)
def test_files_that_were_read_count_as_free(folder, names, cached, tmp_path, monkeypatch):
    """8 MB of which 7.9 are used, 7.3 of them by cached files that the system can drop."""
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    assert memory._cgroup_free() is None
    (tmp_path / folder).mkdir(exist_ok=True)
    for name, value in zip((*names, "memory.stat"), ("8000000", "7900000", ""), strict=True):
        (tmp_path / folder / name).write_text(value)
    assert memory.available_memory(torch.device("cpu")) == 100_000
    (tmp_path / folder / "memory.stat").write_text(f"anon 600000\n{cached} 7300000\n")
    assert memory.available_memory(torch.device("cpu")) == 7_400_000
    (tmp_path / folder / names[0]).write_text("max\n")
    assert memory._cgroup_free() is None
