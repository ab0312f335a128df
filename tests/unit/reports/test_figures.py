"""Figures as SVG in a page, and as files."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

from kepo.reports.curves import Curve
from kepo.reports.figures import ArmStyle, as_svg, curves_figure, heat_figure, intervals_figure, write_files
from kepo.statistics.intervals import Interval
from tests.unit.reports.study import HOSTILE

STYLE = ArmStyle(0, "-", "o", 2.0)
CURVE = Curve(np.array([1, 2]), np.array([0.1, 0.2]), np.array([0.0, 0.1]), np.array([0.2, 0.3]), 2)


def curves():
    return curves_figure("Reward", {"a": CURVE}, {"a": STYLE}, percent=True, reference=0.25)


def intervals(label: str = "KEPO"):
    return intervals_figure("Accuracy", [("a", label, Interval(0.5, 0.4, 0.6, 3))], {"a": STYLE}, {"chance": 0.25})


def test_the_same_figure_has_the_same_bytes() -> None:
    assert as_svg(curves, "x", "alt") == as_svg(curves, "x", "alt")


def test_two_figures_of_a_page_share_no_id_and_refer_to_their_own() -> None:
    first, second = as_svg(curves, "one", ""), as_svg(curves, "two", "")
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', first)) <= ids[0]


def test_colours_are_those_of_the_page() -> None:
    svg = as_svg(curves, "x", "")
    assert "var(--arm-0)" in svg
    assert "var(--soft)" in svg
    assert not re.findall(r"#[0-9a-f]{6}\b", svg)


def test_text_stays_text_and_nothing_is_drawn_as_markup() -> None:
    for hostile in HOSTILE:
        svg = as_svg(lambda hostile=hostile: intervals(hostile), "x", hostile)
        root = ET.fromstring(svg)
        assert {element.tag.split("}")[-1] for element in root.iter()} <= {
            "svg",
            "g",
            "defs",
            "path",
            "use",
            "text",
            "style",
            "clipPath",
            "rect",
        }
        assert "<!--" not in svg
    assert "KEPO" in "".join(ET.fromstring(as_svg(intervals, "x", "")).itertext())


def test_what_cannot_be_seen_is_told() -> None:
    root = ET.fromstring(as_svg(intervals, "x", 'a "quoted" <alt>'))
    assert root.attrib["aria-label"] == 'a "quoted" <alt>'
    assert root.attrib["role"] == "img"


def test_files_are_written(tmp_path: Path) -> None:
    write_files(lambda: heat_figure("t", ["row"], ["a", "b"], np.array([[0.5, np.nan]])), tmp_path, "heat")
    assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")
    ET.parse(tmp_path / "heat.svg")
