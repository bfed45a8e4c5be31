"""The commands of README and docs, as a shell sees them: blocks of code are given to bash, with stand-ins for the programs that they call."""

import ast
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
VARIABLES = {
    "GTA5": "data/gta5",
    "CITYSCAPES": "data/cityscapes",
    "GTA5_PREPARED": "prepared/gta5",
    "CITYSCAPES_PREPARED": "prepared/cityscapes",
    "CARLA": "data/gta5",
    "CITYSCAPES_SMALL": "data/cityscapes",
    "SYNTHIA": "data/synthia",
    "SYNTHIA_PREPARED": "prepared/synthia",
    "SLURM_ARRAY_TASK_ID": "1",
    "SLURM_NNODES": "4",
    "SLURM_NODEID": "0",
}
"""What the pages call the user's folders, relative to where commands run."""
SHELL_SCRIPTS = ("./scripts/demo.sh", "./scripts/test.sh", "./scripts/check_gpu.sh")
PROGRAMS = ("python", "torchrun", "pip", "tensorboard", "sbatch", "trtexec", "ffmpeg", *SHELL_SCRIPTS)

_STUB = r"""#!/bin/bash
printf '%s\0' "{name}" "$@" >> "$RECORD"
printf '\x1e' >> "$RECORD"
"""


class Block(NamedTuple):
    """One block of code; ``line``: of its first line in the page."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The code of a page: blocks indented by four, and what stands between backticks and begins with a program's name."""
    found, lines = [], page.read_text().splitlines()
    start = None
    for number, line in enumerate([*lines, "end"], 1):
        inside = line.startswith("    ") or (start is not None and not line.strip())
        if inside and start is None and (number == 1 or not lines[number - 2].strip()):
            start = number
        if not inside and start is not None:
            text = "\n".join(each[4:] for each in lines[start - 1 : number - 1])
            found.append(Block(page.name, start, text.rstrip()))
            start = None
        if start is None and not inside:
            found += [Block(page.name, number, code) for code in re.findall(r"`((?:python|torchrun) [^`]*)`", line)]
    return found


class Run(NamedTuple):
    """What bash made of a block: the words of every command that it would have run, and its complaints."""

    commands: list[list[str]]
    complaints: str


def shell(block: Block, folder: Path) -> Run:
    """Gives the block to bash in ``folder``, where nothing but PROGRAMS, stand-ins that write down how they were called, can be found."""
    record, programs = folder / "record", folder / "programs"
    programs.mkdir(exist_ok=True)
    record.write_bytes(b"")
    for name in PROGRAMS:
        path = folder / name if "/" in name else programs / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(_STUB.format(name=name))
        path.chmod(0o755)
    (programs / "srun").write_text('#!/bin/bash\nexec "$@"\n')
    (programs / "srun").chmod(0o755)
    (programs / "bash").unlink(missing_ok=True)
    (programs / "bash").symlink_to("/bin/bash")
    environment = {**VARIABLES, "PATH": str(programs), "RECORD": str(record)}
    done = subprocess.run(["/bin/bash", "-c", block.text], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    commands = [command.split("\0")[:-1] for command in record.read_text().split("\x1e")[:-1]]
    return Run(commands, done.stderr)


def examples(path: Path) -> list[Block]:
    """The commands in a script's EPILOG, which --help shows: whatever follows "python " in a line and those that continue it."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "EPILOG":
            text = re.sub(r"\\\n\s*", " ", ast.literal_eval(node.value))
            return [Block(path.name, node.lineno, line[line.index("python ") :]) for line in text.splitlines() if "python " in line]
    return []
