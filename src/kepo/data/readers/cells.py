"""What single cells of a table hold: paths into records, lists written as text, conversations, numbers, images."""

from __future__ import annotations

import ast
import base64
import binascii
import io
import json
import re
import tokenize
from collections.abc import Mapping, Sequence
from typing import Any

from kepo.data.schema import Place
from kepo.data.sources import is_empty, shortened
from kepo.types import option_letters

_BEGINS_AS_LIST = ("[", "(", "{")
# In TSV files for evaluation a shorter text in the place of an image is the index of the row that has the image.
_SHORTEST_IMAGE = 64


def value_at(record: Any, path: str) -> Any:
    """What `record` has at a column or a dotted path, see `TableMap`; None where there is nothing.

    A text where a path expects messages is what the user says.
    """
    if isinstance(record, Mapping) and path in record:
        return record[path]
    value = record
    for name in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(name)
        elif isinstance(value, list | tuple) and re.fullmatch(r"-?\d+", name):
            value = value[int(name)] if -len(value) <= int(name) < len(value) else None
        elif isinstance(value, list | tuple):
            value = next((one for one in reversed(value) if _speaker(one) == name), None)
        elif isinstance(value, str) and name in ("user", "human"):
            return value
        else:
            return None
    return value


def _speaker(message: Any) -> Any:
    return message.get("role", message.get("from")) if isinstance(message, Mapping) else None


def turns_of(record: Any, path: str) -> int:
    """How many messages of the role in `path` (`messages.user.content`) the record has; 0 where there is no role."""
    column, _, rest = path.partition(".")
    messages, role = value_at(record, column), rest.partition(".")[0]
    return sum(_speaker(one) == role for one in messages) if isinstance(messages, list | tuple) else 0


def spoken(value: Any) -> Any:
    """The text of a message whose content is a list of parts; any other value as it is."""
    if not (isinstance(value, list | tuple) and value and all(isinstance(part, Mapping) for part in value)):
        return value
    return "\n".join(str(part["text"]) for part in value if not is_empty(part.get("text")))


def images_in_parts(record: Any, path: str) -> list[Any] | None:
    """The images that stand in the parts of a message's content; None where there are none."""
    parts = value_at(record, path)
    if not isinstance(parts, list | tuple):
        return None
    found = [_image_in(part) for part in parts if _shows_image(part)]
    return [image for image in found if not is_empty(image)] or None


def asks_for_images(record: Any, path: str) -> bool:
    """Whether parts of a message's content have a place for an image."""
    parts = value_at(record, path)
    return isinstance(parts, list | tuple) and any(map(_shows_image, parts))


def _shows_image(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in ("image", "image_url", "input_image")


def _image_in(part: Mapping[str, Any]) -> Any:
    given = next((part[name] for name in ("image", "image_url", "url", "path") if not is_empty(part.get(name))), None)
    given = given.get("url") if isinstance(given, Mapping) and "url" in given else given
    return _from_base64(given.partition("base64,")[2]) if isinstance(given, str) and ";base64," in given else given


def listed(value: Any, separator: str | None, name: str, place: Place) -> Sequence[Any] | None:
    """The list that a cell holds: as such, as a record of letters, as text of a list, or as text with separators."""
    if isinstance(value, str):
        found = _list_in_text(value)
        if found is None and separator is not None:
            return [part.strip() for part in value.split(separator)]
        if found is None:
            place.refuse(name, "one text that is no JSON list; say which separator stands between the options")
        value = found
    if isinstance(value, Mapping):
        if set(value) >= {"label", "text"}:
            return _labelled(value, name, place)
        # A record read from Parquet has the letters of all rows, those without an option as None.
        value = {letter: text for letter, text in value.items() if not is_empty(text)}
        if tuple(value) != option_letters(tuple(value)):
            place.refuse(name, "a record whose names are not A, B, C, ... in order")
        return list(value.values())
    value = value.tolist() if hasattr(value, "tolist") else value
    if value is not None and not isinstance(value, list | tuple):
        place.refuse(name, "is not a list")
    if value and all(isinstance(one, Mapping) for one in value):
        for label, text in (("key", "value"), ("label", "text")):
            if all({label, text} <= set(one) for one in value):
                pairs = {"label": [one[label] for one in value], "text": [one[text] for one in value]}
                return _labelled(pairs, name, place)
    return value


def _labelled(value: Mapping[str, Any], name: str, place: Place) -> Sequence[Any]:
    """Options as two lists, `label` (A, B, ...) and `text`."""
    labels, texts = value["label"], value["text"]
    if not isinstance(texts, list | tuple) or list(labels) != list(option_letters(tuple(map(str, texts)))):
        place.refuse(name, "a record whose labels are not A, B, C, ... in order")
    return texts


def _list_in_text(text: str) -> Any:
    """The list or record that `text` is in JSON or as Python prints it; None where it is none. Nothing is evaluated."""
    stripped = text.strip()
    if not stripped.startswith(_BEGINS_AS_LIST):
        return None
    try:
        return json.loads(stripped)
    except (ValueError, RecursionError):
        pass
    try:
        found = ast.literal_eval(stripped)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if not isinstance(found, list | tuple | dict):
        return None
    return _as_numpy_prints(stripped) or found


def _as_numpy_prints(text: str) -> list[Any] | None:
    """The texts of `['a' 'b']`, which Python would take for one text; None for any other list."""
    strings: list[Any] = []
    previous = None
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.STRING:
                strings.append(ast.literal_eval(token.string))
                if len(strings) > 1 and previous != tokenize.STRING:
                    return None
            elif token.type in (tokenize.NL, tokenize.NEWLINE):
                continue
            previous = token.type
    except (tokenize.TokenError, SyntaxError):
        return None
    return strings if len(strings) > 1 else None


def images_of(value: Any, required: bool, place: Place) -> Any:
    """What stands for the image or images of a row; a list may come as text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = listed(value, None, "image", place)
    if isinstance(value, list | tuple):
        value = [one for one in value if not is_empty(one)]
    if required and is_empty(value):
        place.refuse("image", "is missing or empty")
    if required and isinstance(value, list) and not value:
        place.refuse("image", "is an empty list")
    return value


def decoded_images(value: Any, place: Place) -> Any:
    """Images given as base64 text, as bytes; paths and short texts, which are the index of another row, as they are."""
    if isinstance(value, list | tuple):
        return [decoded_images(one, place) for one in value]
    if not isinstance(value, str) or len(value) < _SHORTEST_IMAGE:
        return value
    found = _from_base64(value.partition("base64,")[2] if value.startswith("data:") else value)
    if found is None:
        place.refuse("image", f"{shortened(value)!r} is no base64 text of an image", "is no base64 text of an image")
    return found


def _from_base64(text: str) -> bytes | None:
    text = re.sub(r"\s", "", text)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def index_of(value: Any, count: int, place: Place, first: int = 0) -> int:
    """The place, from 0, that an index means which counts from `first`."""
    try:
        # Tables made with pandas write whole numbers as "2.0" where a column has gaps.
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or not number.is_integer() or not first <= number < count + first:
        problem = f"{value!r:.80} is no whole number from {first} to {count + first - 1}"
        place.refuse("answer", problem, "is not the index of an option")
    return int(number) - first
