"""What networks learn from.

Every entry script imports this first: it says what the installation lacks, without a traceback.
"""

import importlib.util
import sys

REQUIRED = ("numpy", "cv2", "PIL", "torch", "torchvision", "tqdm", "tensorboard")
"""Modules of the packages in requirements.txt, without those that some figures need alone."""

if sys.version_info < (3, 11):  # noqa: UP036 (older ones get here)
    sys.exit(f"error: Python 3.11 or newer is needed; this is {sys.version.split()[0]}.")

_absent = [
    name for name in REQUIRED if name not in sys.modules and not importlib.util.find_spec(name)
]
if _absent:
    sys.exit(
        f"error: not installed for {sys.executable}: {', '.join(_absent)}. Install everything with:"
        " pip install -r requirements.txt"
    )
try:
    import cv2  # noqa: F401
except ImportError as _error:  # libGL.so.1: a container without the libraries of a desktop
    sys.exit(
        f"error: OpenCV cannot be imported ({_error}). Use the package that needs no desktop: pip"
        " uninstall opencv-python, then pip install --force-reinstall opencv-python-headless"
    )
