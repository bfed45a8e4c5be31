"""Messages for users: errors of this project, of the system, and of libraries with their remedy.

A traceback is for faults of this project's code alone.
"""

import errno
import re
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_PLACE = "Free some space or quota there, or choose another place."
_RIGHTS = "Expected a file or folder that this user may use: change its rights, or name another."
_STORAGE = "The disk or the network failed: check it, then give the same command again (--resume)."
_PATH = "Check the path."
_MEMORY = (
    "Not enough memory. Use fewer --workers, a smaller --batch-size or smaller images, or close"
    " other programs."
)
_OPEN_FILES = (
    "More files are open than this system allows. Raise the limit (ulimit -n 65536), or use fewer"
    " --workers."
)
_SHARED_MEMORY = (
    "Shared memory (/dev/shm) is full: the workers hand over their batches there. Use fewer"
    " --workers (0 needs none), or give a container more: docker run --shm-size=8g, or --ipc=host."
)
_COMPILER = (
    "--compile needs a working C++ compiler (Debian and Ubuntu: apt install g++; on a GPU also"
    " gcc). Install one, or leave --compile out."
)
_COMPILED = (
    "--compile keeps its files in TORCHINDUCTOR_CACHE_DIR (default: the system's temporary folder)."
    " Name a writable folder with free space there, or leave --compile out."
)
_NETWORK = (
    "The processes of this run lost each other or never met: the message of the one that failed"
    " first says why. For a port in use: torchrun --standalone takes a free one, or name another"
    " with --master-port."
)
_DRIVER = (
    "This torch and this GPU or its driver do not fit together. Install a torch that does"
    " (https://pytorch.org/get-started), update the driver, or use --device cpu."
)

OUT_OF_MEMORY = (
    r"can't allocate memory|Unable to allocate|CUDA out of memory|CUDA error: out of memory"
    r"|(CUDNN|CUBLAS)_STATUS_ALLOC_FAILED"
    r"|unable to find an engine to execute this computation"  # cuDNN without memory for any
)
"""A pattern of what allocators and libraries say when no memory is left."""

_BY_ERRNO = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _PLACE),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _RIGHTS),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT), _STORAGE),
    **dict.fromkeys((errno.EHOSTDOWN, errno.ENODEV, errno.ENXIO), _STORAGE),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST), _PATH),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY, errno.EXDEV), _PATH),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), _OPEN_FILES),
    errno.ENOMEM: _MEMORY,
}
"""Remedies of what the operating system refuses."""

_BY_TEXT = (
    (r"Too many open files|received \d+ items of ancdata", _OPEN_FILES),
    (r"shared memory|/torch_\d+_|shm_open|killed by signal: Bus error", _SHARED_MEMORY),
    (
        r"DataLoader worker \(pid.*(killed by signal: Killed|exited unexpectedly)"
        r"|process in the process pool was terminated",
        "A worker was killed, probably for lack of memory. Use fewer --workers.",
    ),
    (OUT_OF_MEMORY, _MEMORY),
    (r"InvalidCxxCompiler|Cxx?Compile ?Error|Failed to find C compiler", _COMPILER),
    (r"EADDRINUSE|address already in use|gloo/transport|NCCL|Connection closed by peer", _NETWORK),
    (r"no kernel image is available|driver version is insufficient|driver .* too old", _DRIVER),
)
"""Remedies of what libraries raise as RuntimeError and the like: the first that matches."""

_NOT_WRITTEN = r"Permission denied|Read-only file system|No space left on device"
_BY_MODULE = (("torch._inductor", _COMPILER), ("torch._dynamo", _COMPILER))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, one of its libraries, or the host's allocator had no memory left."""
    if type(error).__name__ == "OutOfMemoryError":  # torch's: no import of it for all scripts
        return True
    return isinstance(error, RuntimeError) and bool(re.search(OUT_OF_MEMORY, str(error)))


def user_message(error: Exception) -> str | None:
    """The message of an error for users; None for a fault of this project's code."""
    file, text = _origin(error)
    remedy = _remedy(error, text)
    if remedy is not None:
        return f"{_one_line(error, text)} {remedy}"
    ours = file is not None and Path(file).is_relative_to(ROOT) and ".venv" not in file
    return text if ours and isinstance(error, ValueError | OSError | FloatingPointError) else None


def _origin(error: Exception) -> tuple[str | None, str]:
    """The file that raised an error, and its message; those of the worker for a worker's error."""
    frames = list(traceback.walk_tb(error.__traceback__))
    file, text = frames[-1][0].f_code.co_filename if frames else None, str(error)
    if text.startswith("Caught ") and "DataLoader worker" in text:
        # The traceback of the worker is the message.
        files = re.findall(r'^  File "(.+)", line \d+, in ', text, re.MULTILINE)
        kind = type(error).__name__
        kind = text.split()[1] if f"{kind}: " not in text else kind
        file, text = files[-1], text.rsplit(f"{kind}: ", 1)[-1].strip()
    return file, text


def _remedy(error: Exception, text: str) -> str | None:
    """What to do about an error of the system or of a library; None if that is not known."""
    if isinstance(error, OSError):
        found = re.match(r"\[Errno (\d+)\]", text)
        return _BY_ERRNO.get(int(found[1])) if found else None
    if isinstance(error, MemoryError):
        return _MEMORY
    if isinstance(error, ValueError | FloatingPointError):  # our own say what to do
        return None
    module = type(error).__module__
    if module.startswith("torch._") and re.search(_NOT_WRITTEN, text):
        return _COMPILED
    for pattern, remedy in _BY_TEXT:
        if re.search(pattern, text, re.IGNORECASE):
            return remedy
    return next((remedy for name, remedy in _BY_MODULE if module.startswith(name)), None)


def _one_line(error: Exception, text: str) -> str:
    """What a library or the system said, as a sentence: "FILE: No space left on device."."""
    if isinstance(error, OSError):
        found = re.match(r"\[Errno \d+\] (?P<what>.*?)(: '(?P<file>.*?)'.*)?$", text, re.DOTALL)
        place = f"{found['file']}: " if found["file"] else ""
        return f"{place}{found['what']}."
    first = text.strip().split("\n")[0].rstrip(".")
    return f"{type(error).__name__}{': ' if first else ''}{first}."
