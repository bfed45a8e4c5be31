"""For research: how well the measures rank candidates whose scores are known."""

import math
from collections.abc import Sequence
from pathlib import Path

from scripts.select.candidates import Candidate, runs_of, score_key
from utils.evaluation.label_free import MEASURES, judge
from utils.report.scored_rows import read_scores
from utils.report.tables import markdown_table, percent


def read_miou(files: Sequence[Path]) -> dict[tuple[str, int], float]:
    """{(run folder or file, step): mIoU}, keys as ``score_key`` makes them, of eval.py's files.

    Raises ValueError for others.
    """
    rows = [row for file in files for row in read_scores(file)["rows"]]
    return {
        score_key(Path(row["checkpoint"]), row["step"]): row["miou"]
        for row in rows
        if row["miou"] is not None
    }


def require_scored(candidates: Sequence[Candidate], miou: dict[tuple[str, int], float]) -> None:
    """Raises ValueError where fewer than two candidates have scores."""
    if sum(c.key in miou for c in candidates) < 2:
        raise ValueError(
            "--scores: fewer than two of the candidates have scores in these files, which name"
            f" {next(iter(miou), ('nothing',))[0]} (files may have moved since); the first"
            f" candidate is {candidates[0].key[0]}. Score the candidates where they lie, by eval.py"
            " --json."
        )


def judgement_table(candidates: Sequence[Candidate], miou: dict[tuple[str, int], float]) -> str:
    """How each measure ranks the scored candidates: within their runs, and all together."""
    scored = [c for c in candidates if c.key in miou]
    scores, steps = [miou[c.key] for c in scored], [c.step for c in scored]
    tables = []
    for title, groups in (
        ("within each run", runs_of(scored)),
        ("all together", ["all"] * len(scored)),
    ):
        rows = []
        for name, entry in MEASURES.items():
            values = [c.values.get(name) for c in scored]
            choice = judge(values, scores, steps, groups, entry.higher_is_better)
            if choice is not None:
                columns = (choice.chosen, choice.last, choice.mean, choice.best)
                undefined = math.isnan(choice.correlation)  # fewer than three candidates
                correlation = "-" if undefined else f"{choice.correlation:.2f}"
                counts = map(str, (choice.candidates, choice.groups))
                rows.append([entry.title, correlation, *map(percent, columns), *counts])
        header = [title, "rank correlation", "mIoU chosen", "last", "mean", "best"]
        if rows:  # none within runs of one scored checkpoint each
            tables.append(markdown_table([*header, "checkpoints", "groups"], rows))
    return "\n\n".join(tables)
