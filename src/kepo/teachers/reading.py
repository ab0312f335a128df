"""What a teacher reads: the student's own prompt ids, with images as many tokens long as the teacher takes for them.

Where vocabularies agree, the student's token ids mean the same to the teacher, so it reads exactly what the student
read: other chat templates, template variables, tools and custom rollouts make no difference. Only images may: they take
more or fewer tokens where the image processors differ.

Legend: B rows, P prompt tokens, T completion tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch

from kepo.errors import TeacherError
from kepo.models.encoding import append_completions, encode, replace_prompts, sees_images, tokenizer_of
from kepo.models.packing import TokenRow, rows_of
from kepo.models.row_fields import IMAGE_FIELDS, TOKEN_TYPE_FIELDS
from kepo.prompts import prompt_images
from kepo.teachers.base import ScoreRequest
from kepo.types import Prompt

logger = logging.getLogger(__name__)

# Characters shown of each side of a difference, and before it.
_SHOWN, _BEFORE = 120, 40


class Reader:
    """Turns rows into the tensors that a local model reads.

    Args:
        processor: The teacher's processor or tokenizer.
        chat_template_kwargs: Variables of the teacher's chat template, for prompts without token ids.
        image_token: The token that stands for an image, many times; None for a text model.
    """

    def __init__(self, processor: Any, chat_template_kwargs: Mapping[str, Any], image_token: int | None) -> None:
        self._processor = processor
        self._chat_template_kwargs = chat_template_kwargs
        self._image_token = image_token
        self._difference = Difference()

    def inputs(self, requests: Sequence[ScoreRequest], device: torch.device | str) -> dict[str, Any]:
        """Tensors as `kepo.models.encoding.encode` makes them, of B >= 1 rows that all have images or all have none."""
        pad_id = tokenizer_of(self._processor).pad_token_id
        prompts = [shown_prompt(request) for request in requests]
        fields: dict[str, Any] = {}
        if any(request.prompt_ids is None for request in requests) or any(prompt_images(prompt) for prompt in prompts):
            fields = encode(self._processor, prompts, None, "cpu", self._chat_template_kwargs)
            rendered = [
                row[mask.bool()] for row, mask in zip(fields["input_ids"], fields["attention_mask"], strict=True)
            ]
            read = [self._read(request, ids.tolist()) for request, ids in zip(requests, rendered, strict=True)]
        else:
            read = [request.prompt_ids or () for request in requests]
        replace_prompts(fields, read, pad_id)
        append_completions(fields, [request.completion_ids for request in requests], pad_id)
        return {name: value.to(device) if torch.is_tensor(value) else value for name, value in fields.items()}

    def rows(self, requests: Sequence[ScoreRequest], same: Sequence[int]) -> list[TokenRow]:
        """B rows as the model reads them; each prompt is rendered and its images are processed once.

        Args:
            requests: B.
            same: (B) for each row the first one with an equal prompt, see `equal_prompts`.
        """
        read: dict[int, TokenRow] = {}
        for row in dict.fromkeys(same):
            request = requests[row]
            fields = self.inputs([request], "cpu")
            tokens = len(request.completion_ids)
            types = {name: fields[name] for name in TOKEN_TYPE_FIELDS if name in fields}
            [whole] = rows_of(fields["input_ids"], fields["attention_mask"], tokens, types)
            # Of one row, so whatever their layout, all are its own.
            images = {name: fields[name] for name in IMAGE_FIELDS if fields.get(name) is not None}
            read[row] = replace(whole, images=images)
        return [
            replace(
                read[same[row]],
                completion=request.completion_ids,
                token_types={
                    name: (*types[: len(read[same[row]].prompt)], *[0] * len(request.completion_ids))
                    for name, types in read[same[row]].token_types.items()
                },
                late_images=bool(request.tool_images),
            )
            for row, request in enumerate(requests)
        ]

    def _read(self, request: ScoreRequest, own: Sequence[int]) -> Sequence[int]:
        """The prompt ids to read; `own` are those of the teacher's own processor."""
        given = request.prompt_ids
        if given is None:
            return own
        if self._image_token is None or not sees_images(self._processor):
            return given
        if request.tool_images:
            check_tool_images(request, own, self._image_token)
            return given
        found = with_images_of(given, own, self._image_token)
        if found is None:
            self._difference.say(given, own, tokenizer_of(self._processor))
        return own if found is None else found


class Difference:
    """Says once that a teacher reads another prompt than the student, and what differs."""

    def __init__(self) -> None:
        self._said = False

    def say(self, student: Sequence[int], teacher: Sequence[int], tokenizer: Any) -> None:
        """Log the difference of two prompts, if none was logged before; without `tokenizer` as token ids."""
        if not self._said:
            logger.warning(
                "The teacher cannot read the student's own prompt, because the images in it are written otherwise; it "
                "reads the prompt as its own processor renders it. %s This is said once.",
                rendered_difference(student, teacher, tokenizer),
            )
        self._said = True


def equal_prompts(requests: Sequence[ScoreRequest]) -> list[int]:
    """(B) for each row the first one that is read alike but for its completion; itself if there is none before it.

    Rows whose tools returned images, and rows without `prompt_ids`, are alone.
    """
    firsts: dict[tuple[int, ...], list[int]] = {}
    found = []
    for row, request in enumerate(requests):
        if request.prompt_ids is None or request.tool_images:
            found.append(row)
            continue
        alike = firsts.setdefault(request.prompt_ids, [])
        images = prompt_images(request.prompt)
        first = next((f for f in alike if _same(prompt_images(requests[f].prompt), images)), row)
        if first == row:
            alike.append(row)
        found.append(first)
    return found


def _same(left: Sequence[Any], right: Sequence[Any]) -> bool:
    """Whether images are equal, as far as they can tell; arrays cannot in one word."""
    return len(left) == len(right) and all(
        a is b or (type(a) is type(b) and (a == b) is True) for a, b in zip(left, right, strict=True)
    )


def shown_prompt(request: ScoreRequest) -> Prompt:
    """The prompt with all images of the row: those that tools returned stand in a message of their own at its end."""
    if not request.tool_images or isinstance(request.prompt, str):
        return request.prompt
    parts = [{"type": "image", "image": image} for image in request.tool_images]
    return [*request.prompt, {"role": "user", "content": parts}]


def with_images_of(given: Sequence[int], own: Sequence[int], image_token: int) -> list[int] | None:
    """`given`, with every image as many tokens long as it is in `own`; None where they do not have equally many.

    An image is a run of `image_token`; images without a token between them count as one.
    """
    lengths = _image_lengths(own, image_token)
    if len(_image_lengths(given, image_token)) != len(lengths):
        return None
    following = iter(lengths)
    ids: list[int] = []
    for token, run in groupby(given):
        ids += [token] * next(following) if token == image_token else list(run)
    return ids


def check_tool_images(request: ScoreRequest, own: Sequence[int], image_token: int) -> None:
    """Refuse, with a `TeacherError`, images of tools that take other tokens here: a completion cannot be changed."""
    student = [*(request.prompt_ids or ()), *request.completion_ids].count(image_token)
    if student != own.count(image_token):
        raise TeacherError(
            f"The images of a row take {student} tokens for the student and {own.count(image_token)} for the teacher, "
            "and some of them were returned by tools, so they lie in the completion, which must stay as it was "
            "sampled. Use a teacher with the student's image processor settings, or tools that return no images."
        )


def rendered_difference(student: Sequence[int], teacher: Sequence[int], tokenizer: Any = None) -> str:
    """Where two prompts differ, as text (as token ids without `tokenizer`), in one line."""
    left, right = _text(student, tokenizer), _text(teacher, tokenizer)
    start = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    begin = max(start - _BEFORE, 0)
    cut = "..." if begin else ""
    return (
        f"The student reads {len(student)} tokens, the teacher {len(teacher)}. From character {start} on, the student "
        f"reads {cut + left[begin : start + _SHOWN]!r}, the teacher {cut + right[begin : start + _SHOWN]!r}."
    )


def _image_lengths(ids: Sequence[int], image_token: int) -> list[int]:
    return [len(list(run)) for token, run in groupby(ids) if token == image_token]


def _text(ids: Sequence[int], tokenizer: Any) -> str:
    if tokenizer is None:
        return " ".join(map(str, ids))
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
