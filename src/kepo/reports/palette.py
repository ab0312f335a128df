"""The colours and line styles of a report; one per arm, the same in every figure and table.

The hues differ for the common kinds of colour blindness, and lines differ in their dashes too.
"""

from __future__ import annotations

from dataclasses import dataclass

from kepo.reports.study import Study

INK = "#1d232b"
SOFT = "#5a6470"
GRID = "#dde1e6"
PAPER = "#fffffe"

# First the main arm's. Each has a contrast of at least 4.5 to its page, light or dark.
LIGHT = ("#b8400e", "#1f5fa8", "#0b7563", "#7d4a9c", "#7d6207", "#b02e74", "#3f6b8c", "#5f6b33")
DARK = ("#ff9660", "#7cb7f5", "#56cbb2", "#c79ae6", "#dcbc55", "#f28fc0", "#9cc2dc", "#b9c97f")
_DASHES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
MOST_LINES = 8
"""Lines in one figure; with more nobody can tell them apart."""


@dataclass(frozen=True, slots=True)
class ArmStyle:
    """How an arm is drawn: place of its colour in `LIGHT` and `DARK`, dashes, marker, line width in points."""

    color: int
    dashes: str
    marker: str
    width: float


def arm_styles(study: Study) -> dict[str, ArmStyle]:
    """The style of every arm: the main arm (or the only one) has the first colour to itself."""
    main = study.main or study.arms[0].name
    styles = {main: ArmStyle(0, "-", "o", 2.2)}
    for place, arm in enumerate(arm for arm in study.arms if arm.name != main):
        color, cycle = 1 + place % (len(LIGHT) - 1), place // (len(LIGHT) - 1)
        styles[arm.name] = ArmStyle(color, _DASHES[(place + cycle) % 4], _MARKERS[(1 + place) % 8], 1.5)
    return styles


def drawn_arms(study: Study) -> list[str]:
    """The arms that fit into one figure, in order: the main arm, the baselines, then the others as they come."""
    trained = [arm for arm in study.arms if arm.trained]
    ranked = sorted(trained, key=lambda arm: (arm.name != study.main, not arm.baseline))
    kept = {arm.name for arm in ranked[:MOST_LINES]}
    return [arm.name for arm in trained if arm.name in kept]
