"""Threads of libraries: many processes with a thread for every core slow each other down."""

import ctypes
import importlib

import cv2
import numpy as np

_BLAS_SETTERS = (
    *("scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads"),
    *("openblas_set_num_threads64_", "openblas_set_num_threads", "MKL_Set_Num_Threads"),
)


def use_one_thread() -> None:
    """Sets one thread for OpenCV and for numpy's matrix products: the processes are many."""
    cv2.setNumThreads(0)
    set_blas_threads(1)


def set_blas_threads(count: int) -> bool:
    """Sets the threads of numpy's matrix products; False where its library cannot be told."""
    for name in _BLAS_SETTERS:
        try:
            setter = getattr(blas_library(), name)
        except (AttributeError, OSError):  # another library, or Windows: not found through numpy's
            continue
        setter(ctypes.c_int(count))
        return True
    return False


def blas_library() -> ctypes.CDLL:
    """numpy's matrix routines, through which those of its BLAS are found."""
    return ctypes.CDLL(importlib.import_module(f"{np.linalg.__name__}._umath_linalg").__file__)
