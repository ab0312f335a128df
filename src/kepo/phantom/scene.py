"""The latent scene behind an image of PhantomVQA: what is there, before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kepo.data.omnimedvqa import MODALITIES

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "outline": ("round", "long"),
    "side": ("left", "right"),
    "count": ("one", "two", "three"),
    "size": ("small", "large"),
    "border": ("smooth", "ragged"),
    "tone": ("bright", "dark"),
}
"""What can be seen, and its values. All lesions of a scene share size, border and tone and lie on one side."""

TEXTURES: dict[str, str] = {
    "MRI": "layered",
    "CT": "ringed",
    "X-Ray": "ribbed",
    "Ultrasound": "speckled",
    "Dermoscopy": "pigmented",
    "Fundus": "vascular",
    "OCT": "banded",
    "Microscopy": "cellular",
}
"""The look of each modality in one word."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene, values as in `ATTRIBUTES`. The seed decides every continuous detail (places, angles, noise)."""

    seed: int  # decides all that is not named below
    modality: str  # decides the style of the drawing
    outline: str  # of the organ, or the field
    side: str  # the half of the image that holds all lesions, as the viewer sees it
    count: str
    size: str
    border: str
    tone: str  # beside the tissue around

    def __post_init__(self) -> None:
        """Raises ValueError for a modality or a value that is not in the tables."""
        if self.modality not in MODALITIES:
            raise ValueError(f"modality {self.modality!r} is unknown; use one of {', '.join(MODALITIES)}")
        for name, values in ATTRIBUTES.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown; use one of {', '.join(values)}")

    @property
    def texture(self) -> str:
        """The look of the modality in one word."""
        return TEXTURES[self.modality]

    def record(self) -> dict[str, Any]:
        """The scene as JSON; `Scene(**record)` makes it again."""
        return {"seed": self.seed, "modality": self.modality, **{name: getattr(self, name) for name in ATTRIBUTES}}
