"""From a source of questions to a folder that is trained and evaluated on: split, sample, images, data card."""

from kepo.data.prepare.pipeline import Prepared, prepare
from kepo.data.prepare.settings import PrepareSettings

__all__ = ["PrepareSettings", "Prepared", "prepare"]
