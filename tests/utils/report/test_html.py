"""The page of a comparison: it needs nothing else, and puts beside each other what may stand beside
each other.
"""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.helpers.records import run_record, score_row
from utils.report.curves import SeedRange
from utils.report.html import ImageRow, Picture, report_page
from utils.report.scored_rows import ComparisonRow

CLASSES = [(f"class {c}", f"#{c:02x}0000") for c in range(19)]
PNG = b"\x89PNG and so on"


def row(name: str, mious: list[float], classes=tuple(range(19)), **changed) -> ComparisonRow:
    protocol = {"images": 12, "split": "val", "classes": list(classes), "averaged": len(classes)}
    scores = tuple(
        score_row(miou, iou=[miou] * 18 + [float("nan")], **protocol, **changed) for miou in mious
    )
    argv = ["train.py", "--name", "a <b>"]
    starts = tuple((run_record(seed, argv=argv, gpu="H100"),) for seed in range(len(mious)))
    return ComparisonRow(name, scores, starts)


def page(rows, published=False, curves=None, image_rows=(), notes=None) -> str:
    return report_page(
        "Methods", rows, published, CLASSES, curves or {}, list(image_rows), notes or {}
    )


def rows_of(text: str, table: int) -> list[list[str]]:
    """The cells of the rows of one table of the page."""
    body = re.findall(r"<tbody>(.*?)</tbody>", text, re.DOTALL)[table]
    return [
        [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line)]
        for line in re.findall(r"<tr.*?</tr>", body)
    ]


class Balance(HTMLParser):
    """Raises AssertionError where a tag is closed that was not the last to open."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def full() -> str:
    steps = np.array([10.0, 20.0])
    curves = {
        "loss/segmentation": {"ADA": SeedRange(steps, steps, steps, steps + 1, 2)},
        "val/miou": {},
    }
    image_rows = [ImageRow("street <1>", [Picture("image", b"\xff\xd8jpeg"), Picture("ADA", PNG)])]
    notes = {
        "tables": ["Not trained and scored yet: oracle."],
        "curves": ["no <curves>"],
        "pictures": [],
    }
    return page(
        [row("source-only", [0.2]), row("ADA", [0.3, 0.32], warnings=["adapted on & scored"])],
        True,
        curves,
        image_rows,
        notes,
    )


def test_the_page_needs_nothing_else_and_is_well_formed(full):
    found = Balance()
    found.feed(full)
    assert not found.open
    assert not [tag for tag, _ in found.seen if tag in ("script", "link", "iframe", "object")]
    sources = [attributes["src"] for _, attributes in found.seen if "src" in attributes]
    assert len(sources) == 2
    assert [source.split(";")[0] for source in sources] == ["data:image/jpeg", "data:image/png"]
    assert "url(" not in full
    assert "@import" not in full
    assert set(re.findall(r"https?://[^\s\"'<]+", full)) <= {"http://www.w3.org/2000/svg"}


def test_names_and_notes_are_text_not_tags(full):
    for text in (
        "street &lt;1&gt;",
        "no &lt;curves&gt;",
        "adapted on &amp; scored",
        "a &lt;b&gt;",
        "Not trained and scored yet: oracle.",
    ):
        assert text in full


def test_published_rows_are_below_ours_of_that_name_and_marked(full):
    names = [cells[0] for cells in rows_of(full, 0)]
    assert names[:3] == ["source-only", "ADA", "ADA (published)"]
    assert sorted(names[3:]) == [
        f"{name} (published)"
        for name in ("BiSeNet-101", "BiSeNet-18", "light ADA", "light LAB-ADA")
    ]
    assert rows_of(full, 0)[1][1] == "31.00 ± 1.41"
    assert rows_of(full, 1)[2][:2] == ["ADA (published)", "58.44"]
    assert rows_of(full, 1)[1][-1] == "-"  # a class that no image has
    assert "published)" not in page([row("ADA", [0.3])])


def test_a_mean_over_fewer_classes_never_meets_the_published_one():
    text = page([row("ADA", [0.3], classes=range(13))], published=True)
    assert [cells[0] for cells in rows_of(text, 0)] == ["ADA"]
    assert [cells[0] for cells in rows_of(text, 1)][:2] == ["ADA", "ADA (published)"]
    assert {len(cells) for cells in rows_of(text, 1)} == {1 + 13}


def test_costs_of_discriminator_and_deployed_model_stand_apart():
    text = page(
        [
            row(
                "ADA",
                [0.3],
                discriminator="full",
                discriminator_parameters=2_781_121,
                discriminator_gmac=15.47,
            )
        ]
    )
    assert 'colspan="2">discriminator: training only' in text
    assert rows_of(text, 0)[0][-4:] == ["2.78 M", "15.47 GMac", "12.05 M", "25.44 GMac"]


def test_how_rows_were_made_and_scored(full):
    assert "12 images of val, last checkpoint, full resolution, bf16" in full
    assert (
        full.count("<pre>python train.py --name &#x27;a &lt;b&gt;&#x27;</pre>") == 3
    )  # every seed's own
    assert "git abc; H100, torch 2, bf16" in full


def test_charts_compare_with_the_paper_and_the_rows(full):
    labels = re.findall(r'<svg[^>]*aria-label="([^"]+)"', full)
    assert labels == ["Segmentation loss", "ADA", "class 0 to class 9", "class 10 to class 18"]
