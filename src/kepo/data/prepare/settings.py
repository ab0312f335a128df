"""What decides the content of a prepared folder, besides the source itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from kepo.data.sources import Source
from kepo.errors import ConfigError

SplitKind: TypeAlias = Literal["stratified", "paper", "given"]
_KINDS: tuple[str, ...] = get_args(SplitKind)


@dataclass(frozen=True, slots=True)
class PrepareSettings:
    """Split, sample and image size. The defaults are those of arXiv 2602.00400, with the split made image-disjoint.

    Attributes:
        split: "stratified": by modality and question type. "paper": question by question, by modality alone. "given":
            as the source says. None: "given" where the source has a split, else "stratified".
        image_disjoint: Keep all questions about one image in one split. None: yes, except for "paper".
        train: Questions per modality drawn from the training split, >= 0; None takes all.
        validation: The same for the validation split, which is taken out of the training split; 0 makes none.
        test: The same for the test split.
        test_share: Part of the questions in the test split, between 0 and 1.
        validation_share: Part of the rest in the validation split, between 0 and 1.
        size: Images are resized to `size` x `size` pixels, 1..4096.
        longest_side: Instead of `size`: the longer side is at most this many pixels, the shape is kept, and smaller
            images stay as they are.
        seed: Seeds split and sample.
    """

    split: SplitKind | None = None
    image_disjoint: bool | None = None
    train: int | None = 600
    validation: int | None = 100
    test: int | None = 300
    test_share: float = 0.2
    validation_share: float = 0.1
    size: int | None = 384
    longest_side: int | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        """Raises ConfigError for a setting that cannot work."""
        if self.split is not None and self.split not in _KINDS:
            raise ConfigError(f"split {self.split!r} is unknown; use one of {', '.join(_KINDS)}")
        for name, count in self.counts.items():
            if count is not None and count < 0:
                raise ConfigError(f"{name} is {count}; give 0 or more questions per modality, or 'all'")
        if not any(count != 0 for count in self.counts.values()):
            raise ConfigError("train, validation and test are all 0, so there is nothing to prepare; ask for some")
        for name in ("test_share", "validation_share"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; give a number between 0 and 1")
        if self.size is not None and self.longest_side is not None:
            raise ConfigError("size and longest_side were both given; images are resized by one of them")
        for name in ("size", "longest_side"):
            side = getattr(self, name)
            if side is not None and not 1 <= side <= 4096:
                raise ConfigError(f"{name} is {side}; give 1 to 4096 pixels")
        if self.size is None and self.longest_side is None:
            raise ConfigError("neither size nor longest_side is set; give one of them")

    def resolved(self, source: Source) -> PrepareSettings:
        """These settings, with nothing left to the source.

        Raises:
            ConfigError: a given split is asked for, and the source has none.
        """
        split = self.split or ("given" if source.split_given else "stratified")
        if split == "given" and not source.split_given:
            raise ConfigError(
                f"split 'given': {source.name} does not say which split a question is in; use another one"
            )
        disjoint = split != "paper" if self.image_disjoint is None else self.image_disjoint
        return replace(self, split=split, image_disjoint=disjoint)

    @property
    def resized_to(self) -> str:
        """ "384x384", or "longest-512"; part of a folder's name."""
        return f"{self.size}x{self.size}" if self.longest_side is None else f"longest-{self.longest_side}"

    @property
    def counts(self) -> dict[str, int | None]:
        """Split -> questions per modality asked for; None for all."""
        return {"train": self.train, "validation": self.validation, "test": self.test}
