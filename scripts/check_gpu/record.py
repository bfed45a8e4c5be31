"""What was found: a JSON file for each check, written at once, and gpu.json with all."""

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

from scripts.check_gpu.doors import ROOT
from scripts.check_gpu.plan import Check
from utils.files import write_json
from utils.report.tables import markdown_table

GOOD = ("passed", "measured", "not here")
"""Outcomes that a later run keeps. Others are tried again."""


def source_digest() -> str:
    """A digest of the project's code: findings are kept while it is the same."""
    digest = hashlib.sha256()
    folders = [ROOT, *(ROOT / name for name in ("model", "dataset", "utils", "scripts"))]
    files = [
        path
        for folder in folders
        for path in (folder.glob("*.py") if folder == ROOT else folder.rglob("*.py"))
    ]
    for path in sorted(files):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


class Record:
    """Findings in ``folder``, of this run and of earlier ones with this code and hardware."""

    def __init__(self, folder: Path, about: dict[str, Any], source: str | None = None):
        """``about``: the machine. ``source``: of the code, by default of what is there now."""
        self.folder, self.about = Path(folder), about
        same = ("device", "gpu", "driver", "torch", "memory_gb")
        self.identity = {"source": source or source_digest()}
        self.identity |= {name: about.get(name) for name in same}
        (self.folder / "checks").mkdir(parents=True, exist_ok=True)

    def path(self, check: Check) -> Path:
        """Where the finding of ``check`` is written."""
        return self.folder / "checks" / (re.sub(r"[^a-z0-9]+", "-", check.key.lower()) + ".json")

    def write(
        self, check: Check, status: str, text: str, figures: dict[str, Any], seconds: float
    ) -> None:
        """Writes one finding. ``seconds``: how long the check took."""
        entry = {
            "step": check.step,
            "name": check.name,
            "status": status,
            "text": text,
            "figures": figures,
        }
        write_json(
            self.path(check),
            entry | {"seconds": seconds, "written": time.time(), "identity": self.identity},
        )

    def read(self, check: Check) -> dict[str, Any] | None:
        """The finding of ``check`` with this code and hardware, or None."""
        try:
            entry = json.loads(self.path(check).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return entry if entry.get("identity") == self.identity else None

    def kept(self, check: Check) -> bool:
        """Whether ``check`` has a good finding already."""
        entry = self.read(check)
        return entry is not None and entry["status"] in GOOD

    def summarise(self, checks: list[Check]) -> list[dict[str, Any]]:
        """Writes gpu.json and returns the findings of all ``checks`` that have one."""
        entries = [entry for entry in map(self.read, checks) if entry is not None]
        shown = [
            {name: value for name, value in entry.items() if name != "identity"}
            for entry in entries
        ]
        write_json(
            self.folder / "gpu.json",
            {"machine": self.about, "identity": self.identity, "checks": shown},
        )
        return entries


def line(entry: dict[str, Any]) -> str:
    """One finding as a line of the table that grows while the checks run."""
    beginning = f"{entry['step']:10} {entry['name']:34} {entry['status']:9}"
    return f"{beginning} {entry['seconds']:6.1f} s  {entry['text']}"


def table(entries: list[dict[str, Any]]) -> str:
    """All findings as Markdown."""
    rows = [
        [e["step"], e["name"], e["status"], f"{e['seconds']:.1f}", e["text"].replace("|", "/")]
        for e in entries
    ]
    return markdown_table(["step", "check", "outcome", "s", "found"], rows)
