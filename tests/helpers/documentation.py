"""The commands of README, docs and --help, as bash reads them.

Code blocks are given to bash, with stand-ins for the programs that they call.
"""

import ast
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELL_SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
VARIABLES = {
    "GTA5": "data/gta5",
    "CITYSCAPES": "data/cityscapes",
    "GTA5_PREPARED": "prepared/gta5",
    "CITYSCAPES_PREPARED": "prepared/cityscapes",
    "CARLA": "data/gta5",
    "CITYSCAPES_SMALL": "data/cityscapes",
    "CAMVID": "data/camvid",
    "SYNTHIA": "data/synthia",
    "SYNTHIA_PREPARED": "prepared/synthia",
    "SLURM_ARRAY_TASK_ID": "1",
    "SLURM_NNODES": "4",
    "SLURM_NODEID": "0",
}
"""Shell variables of the pages. Folders are relative to where the commands run."""
PROGRAMS = (
    "python",
    "torchrun",
    "pip",
    "tensorboard",
    "sbatch",
    "trtexec",
    "ffmpeg",
    *(f"./scripts/{path.name}" for path in SHELL_SCRIPTS),
)
"""The programs that pages may call; each gets a stand-in."""

_STAND_IN = r"""#!/bin/bash
printf '%s\0' "{name}" "$@" >> "$RECORD"
printf '\x1e' >> "$RECORD"
"""


class Block(NamedTuple):
    """A block of code; ``line`` is the line number of its beginning in the page."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def code_blocks(page: Path) -> list[Block]:
    """The code of a page: indented blocks, and inline code that calls python or torchrun."""
    lines = page.read_text().splitlines()
    blocks, start = [], None
    for number, line in enumerate([*lines, "end"], 1):
        inside = line.startswith("    ") or (start is not None and not line.strip())
        if inside and start is None and (number == 1 or not lines[number - 2].strip()):
            start = number
        if not inside and start is not None:
            text = "\n".join(code[4:] for code in lines[start - 1 : number - 1])
            blocks.append(Block(page.name, start, text.rstrip()))
            start = None
        if start is None and not inside:
            inline = re.findall(r"`((?:python|torchrun) [^`]*)`", line)
            blocks += [Block(page.name, number, code) for code in inline]
    return blocks


def help_examples(script: Path) -> list[Block]:
    """The commands in a script's EPILOG, which --help prints: "python ..." up to the line's end."""
    for node in ast.parse(script.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "EPILOG":
            lines = re.sub(r"\\\n\s*", " ", ast.literal_eval(node.value)).splitlines()
            return [
                Block(script.name, node.lineno, line[line.index("python ") :])
                for line in lines
                if "python " in line
            ]
    return []


class BashResult(NamedTuple):
    """The words of each command that bash called in a block, and what it wrote to stderr."""

    commands: list[list[str]]
    errors: str


def run_in_bash(block: Block, folder: Path) -> BashResult:
    """Runs a block in ``folder``, where each of PROGRAMS only records how it was called."""
    record, programs = folder / "record", folder / "programs"
    programs.mkdir(exist_ok=True)
    record.write_bytes(b"")
    for name in PROGRAMS:
        path = folder / name if "/" in name else programs / name
        path.parent.mkdir(exist_ok=True)
        _write_program(path, _STAND_IN.format(name=name))
    _write_program(programs / "srun", '#!/bin/bash\nexec "$@"\n')
    (programs / "bash").unlink(missing_ok=True)
    (programs / "bash").symlink_to("/bin/bash")
    result = subprocess.run(
        ["/bin/bash", "-c", block.text],
        cwd=folder,
        env={**VARIABLES, "PATH": str(programs), "RECORD": str(record)},
        capture_output=True,
        text=True,
        check=False,
    )
    commands = [command.split("\0")[:-1] for command in record.read_text().split("\x1e")[:-1]]
    return BashResult(commands, result.stderr)


def _write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
