"""A report as one HTML file that needs nothing else and reaches for nothing else.

Every text is escaped by the template; what models wrote becomes text nodes in the page's script and never markup. The
page's own policy (CSP) forbids any request and any script but ours.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from itertools import groupby

from kepo import __version__
from kepo.reports.document import Block, Document, Figure
from kepo.reports.figures import DARK, LIGHT, ArmStyle, as_svg

_DASH_ARRAYS = {"-": "none", "--": "6 3", ":": "2 3", "-.": "7 3 2 3"}
_HEAT_LEVELS = 10


def as_html(document: Document, styles: dict[str, ArmStyle], browser: str = "", browser_intro: str = "") -> str:
    """The page.

    Args:
        document: The report.
        styles: Arm -> its style.
        browser: JSON of the rollout browser (`kepo.reports.browser.as_json`); empty: there is none.
        browser_intro: The sentence above it.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["grouped"] = _grouped
    environment.filters["heading"] = lambda text: text.replace("-", "\N{NON-BREAKING HYPHEN}")
    environment.filters["svg"] = lambda figure: Markup(as_svg(figure.draw, figure.name, figure.alt))
    # For what was escaped where it was made.
    environment.filters["trusted"] = Markup
    script = _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.from_string(_asset("report.html.j2")).render(
        doc=document,
        styles=styles,
        dashes=_DASH_ARRAYS,
        style=Markup(_style()),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        browser=browser,
        browser_intro=browser_intro,
        version=__version__,
    )


def _asset(name: str) -> str:
    return (files("kepo.reports") / "templates" / name).read_text(encoding="utf-8")


def _style() -> str:
    """The style sheet with the colours of the arms and of the heat maps filled in."""
    arms = {
        "LIGHT_ARMS": " ".join(f"--arm-{place}: {color};" for place, color in enumerate(LIGHT)),
        "DARK_ARMS": " ".join(f"--arm-{place}: {color};" for place, color in enumerate(DARK)),
        "ARM_CLASSES": "\n".join(f".arm-{place} {{ color: var(--arm-{place}); }}" for place in range(len(LIGHT))),
        # Never so strong that the number in the cell gets hard to read.
        "HEAT_CLASSES": "\n".join(
            f"td.h{level} {{ background: rgba(var(--heat), {0.42 * level / _HEAT_LEVELS:.3f}); }}"
            for level in range(_HEAT_LEVELS + 1)
        ),
    }
    style = _asset("report.css")
    for name, text in arms.items():
        style = style.replace(name, text)
    return style


def _grouped(blocks: Sequence[Block]) -> Iterator[tuple[str, Iterable[Block]]]:
    """Runs of blocks of the same kind, so that figures stand side by side."""
    shown = [block for block in blocks if not isinstance(block, Figure) or block.in_page]
    for kind, members in groupby(shown, key=lambda block: type(block).__name__):
        yield kind, list(members)
