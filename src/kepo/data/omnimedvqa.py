"""The words of OmniMedVQA (arXiv 2402.09181): its folder, its modalities, and the licenses of its collections."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

MODALITIES: tuple[str, ...] = ("MRI", "CT", "X-Ray", "Ultrasound", "Dermoscopy", "Fundus", "OCT", "Microscopy")
"""The eight modalities of the open-access part, by the names used here."""

QUESTION_FOLDER = Path("QA_information") / "Open-access"

# Keys are the published strings up to a parenthesis, in lower case and letters only.
_CANONICAL: Mapping[str, str] = {
    "mr": "MRI",
    "mri": "MRI",
    "magneticresonance": "MRI",
    "magneticresonanceimaging": "MRI",
    "ct": "CT",
    "ctscan": "CT",
    "computedtomography": "CT",
    "xray": "X-Ray",
    "radiography": "X-Ray",
    "us": "Ultrasound",
    "ultrasound": "Ultrasound",
    "ultrasonography": "Ultrasound",
    "dermoscopy": "Dermoscopy",
    "dermatoscopy": "Dermoscopy",
    "fundus": "Fundus",
    "fundusphotography": "Fundus",
    "oct": "OCT",
    "opticalcoherencetomography": "OCT",
    "microscopy": "Microscopy",
    "microscopyimages": "Microscopy",
}

# Terms of collections whose images are part of OmniMedVQA, as their publishers state them; keys as the modalities'.
_LICENSES: Mapping[str, str] = {
    "breakhis": "CC BY 4.0",
    "crck": "CC BY 4.0",
    "fitzpatrickk": "CC BY-NC-SA 3.0",
    "isic": "CC BY-NC 4.0",
    "mura": "Stanford research use agreement, non-commercial",
    "octxray": "CC BY 4.0",
    "padufes": "CC BY 4.0",
    "radimagenet": "RadImageNet research agreement, non-commercial",
}
NOTES: tuple[str, ...] = (
    "Questions: OmniMedVQA (arXiv 2402.09181). Each of the collections that its images come from has its own terms; "
    "the licenses named here are a help, not legal advice, and the publishers' own pages decide.",
)


def canonical_modality(raw: str) -> str | None:
    """One of `MODALITIES` for a published string such as "MR (Mag-netic Resonance Imaging)"; None if unknown."""
    return _CANONICAL.get(_letters(raw.partition("(")[0]))


def license_of(dataset: str) -> str:
    """The license of a collection's images, "unknown" where it is not known here."""
    return _LICENSES.get(_letters(dataset), "unknown")


def _letters(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())
