"""The laws of scripts/check_gpu on this machine's GPU: pytest -m cuda."""

import os

# Before CUDA is initialized: without it cuBLAS has no deterministic algorithms.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
import torch

from scripts.check_gpu.laws import CHECKS
from scripts.check_gpu.plan import Context, NotHere

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
]


@pytest.fixture(scope="module")
def context(tmp_path_factory) -> Context:
    """One folder for all laws: some share a trained network and generated streets."""
    folder = tmp_path_factory.mktemp("cuda")
    return Context(torch.device("cuda"), folder, small=False, seconds=600)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_law(context, check):
    """The law holds: its function raises nothing."""
    try:
        finding = check.run(context)
    except NotHere as reason:
        pytest.skip(str(reason))
    assert finding.text
