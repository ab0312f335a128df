"""The bank as a file, and hints out of it: what is read, added, made whole, refused, and when the teacher is asked."""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kepo.errors import ConfigError, DataError
from kepo.exploration import ExplorationSettings, Explorer
from kepo.exploration.bank import HintBank
from kepo.exploration.bank_lines import BankedHint, to_banked, to_line
from kepo.exploration.banked import ANY_TEACHER, BankedHints
from kepo.exploration.hints import read_hint
from kepo.files import content_hash
from kepo.prompts import hint_request
from kepo.teachers.scripted import ScriptedTeacher
from kepo.types import Group, Hint

FIELDS = ["question", "level", "teacher", "content_hash", "index", "text", "leaks", "words", "duplicate", "raw"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "banks" / "hints.jsonl"


@pytest.fixture
def draft(group: Callable[..., Group]) -> Callable[..., BankedHint]:
    def make(raw: str = "<hint>Look at the rim.</hint>", key: str = "q1", level: int = 1, teacher: str = "t") -> Any:
        one = group(key)
        request_hash = content_hash(hint_request(one.prompt, "B", one.options, level))
        return to_banked(read_hint(raw, one, level), one.key, teacher, request_hash)

    return make


# --- a line -----------------------------------------------------------------------------------------------------------


def test_a_line_holds_everything_in_a_fixed_order(path: Path, draft: Callable[..., BankedHint]) -> None:
    HintBank.open(path, create=True).add([draft("<hint>It is B, so look at the «rim» of this lesion.\nTwice.</hint>")])
    (line,) = path.read_text(encoding="utf-8").splitlines()
    record = json.loads(line)
    assert list(record) == FIELDS
    assert record["content_hash"] == draft().content_hash
    assert {name: record[name] for name in FIELDS if name != "content_hash"} == {
        "question": "q1", "level": 1, "teacher": "t", "index": 0,
        "text": "It is B, so look at the «rim» of this lesion.\nTwice.", "leaks": ["letter"], "words": 12,
        "duplicate": False,
        "raw": "<hint>It is B, so look at the «rim» of this lesion.\nTwice.</hint>",
    }  # fmt: skip
    assert "«rim»" in line, "people read and diff the file, so letters stay letters"


def test_text_that_utf8_cannot_hold_comes_back(path: Path, draft: Callable[..., BankedHint]) -> None:
    HintBank.open(path, create=True).add([draft("half a pair \ud83d, a line break \u2028 and \\u0041")])
    assert HintBank.open(path).hints[0].raw == "half a pair \ud83d, a line break \u2028 and \\u0041"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record.pop("raw"), "missing required field `raw`"),
        (lambda record: record.update(level="1"), r"Expected `int`, got `str` - at `\$\.level`"),
        (lambda record: record.update(level=True), r"Expected `int`, got `bool` - at `\$\.level`"),
        (lambda record: record.update(content_hash="abc"), r"regex .* - at `\$\.content_hash`"),
        (lambda record: record.update(leaks="letter"), r"Expected `array`, got `str` - at `\$\.leaks`"),
        (lambda record: record.update(colour="red"), "unknown field `colour`"),
    ],
)
def test_a_broken_line_is_named(
    path: Path, draft: Callable[..., BankedHint], change: Callable[[Any], Any], words: str
) -> None:
    HintBank.open(path, create=True).add([draft("a"), draft("b")])
    first, second = path.read_text().splitlines()
    record = json.loads(second)
    change(record)
    path.write_text(f"{first}\n{json.dumps(record)}\n{first}\n")
    with pytest.raises(DataError, match=rf"hints\.jsonl, line 2.*{words}"):
        HintBank.open(path)


@pytest.mark.parametrize("line", ["{", "[]", "not json"])
def test_a_line_that_is_no_record_is_named(path: Path, line: str) -> None:
    path.parent.mkdir()
    path.write_text(f"\n{line}\n")
    with pytest.raises(DataError, match=r"line 2: this is no line of a hint bank"):
        HintBank.open(path)


def test_lines_of_earlier_versions_are_read_and_written_anew(path: Path, draft: Callable[..., BankedHint]) -> None:
    """Their content hash was called address, and they had a language."""
    bank = HintBank.open(path, create=True)
    bank.add([draft("<hint>Look.</hint>")])
    now = path.read_bytes()
    record = json.loads(now)
    before = {
        "question": record["question"], "level": record["level"], "teacher": record["teacher"],
        "address": record["content_hash"], "index": 0, "text": "Look.", "leaks": [], "words": 1, "language": "en",
        "other_language": False, "duplicate": False, "raw": "<hint>Look.</hint>",
    }  # fmt: skip
    path.write_text(json.dumps(before) + "\n")
    earlier = HintBank.open(path)
    assert [hint.text for hint in earlier.find(draft().content_hash, "t")] == ["Look."]
    earlier.tidy()
    assert path.read_bytes() == now


# --- the file ---------------------------------------------------------------------------------------------------------


def test_hints_are_found_by_what_was_asked_and_by_whom(path: Path, draft: Callable[..., BankedHint]) -> None:
    bank = HintBank.open(path, create=True)
    bank.add([draft("one"), draft("two"), draft("three", teacher="u"), draft("four", level=2), draft("five", key="q2")])
    for read in (bank, HintBank.open(path)):
        assert [hint.raw for hint in read.find(draft().content_hash, "t")] == ["one", "two"]
        assert [hint.index for hint in read.find(draft().content_hash, "t")] == [0, 1]
        assert [hint.raw for hint in read.find(draft().content_hash)] == ["one", "two", "three"]
        assert read.find(draft().content_hash, "nobody") == read.find("0" * 64) == ()
        assert (len(read), read.teachers) == (5, ("t", "u"))


def test_a_bank_that_is_not_there_is_refused_and_made_only_on_demand(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no hint bank .*hints\.jsonl.*kepo hints"):
        HintBank.open(path)
    assert not path.parent.exists()
    assert len(HintBank.open(path, create=True)) == 0
    assert path.read_bytes() == b""
    with pytest.raises(ConfigError, match="cannot be opened"):
        HintBank.open(path.parent)


def test_what_another_one_adds_is_seen(path: Path, draft: Callable[..., BankedHint]) -> None:
    mine, other = HintBank.open(path, create=True), HintBank.open(path)
    other.add([draft("one")])
    assert len(mine) == 0
    mine.refresh()
    assert [hint.raw for hint in mine.find(draft().content_hash)] == ["one"]
    # Adding looks first, so that numbers and duplicates are right.
    other.add([draft("two")])
    (added,) = mine.add([draft("TWO!")])
    assert (added.index, added.duplicate) == (2, True)
    # Another process has sorted the bank: another file lies in its place.
    other.tidy()
    other.add([draft("four")])
    mine.refresh()
    assert [hint.raw for hint in mine.hints] == ["one", "two", "TWO!", "four"]


def test_a_write_that_fails_leaves_what_the_file_says(
    path: Path, draft: Callable[..., BankedHint], monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = HintBank.open(path, create=True)
    bank.add([draft()])
    whole = Path.open

    def full(self: Path, mode: str = "r") -> Any:
        if mode == "ab":
            raise OSError(28, "No space left on device")
        return whole(self, mode)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(ConfigError, match=r"hints\.jsonl cannot be written: .*No space left on device"):
            bank.add([draft(raw="<hint>Look again.</hint>")])
    bank.refresh()
    assert [hint.text for hint in bank.hints] == ["Look at the rim."]
    bank.add([draft(raw="<hint>Look again.</hint>")])
    assert [hint.index for hint in HintBank.open(path).hints] == [0, 1]


def test_a_bank_that_goes_away_is_an_error_that_names_it(path: Path) -> None:
    bank = HintBank.open(path, create=True)
    path.unlink()
    with pytest.raises(ConfigError, match=r"hints\.jsonl cannot be read"):
        bank.refresh()


def _add_many(path: Path, drafts: list[BankedHint]) -> None:
    bank = HintBank.open(path)
    for draft in drafts:
        bank.add([draft])


def test_several_processes_add_whole_lines_numbered_without_gaps(path: Path, draft: Callable[..., BankedHint]) -> None:
    HintBank.open(path, create=True)
    texts = [f"{name} {number} " + "x" * 5000 for name in "ab" for number in range(20)]
    shares = [[draft(text) for text in texts[start::2]] for start in (0, 1)]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_add_many, args=(path, share)) for share in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    hints = HintBank.open(path).hints
    assert sorted(hint.raw for hint in hints) == sorted(texts)
    assert [hint.index for hint in hints] == list(range(40))


def test_a_half_written_last_line_is_dropped_with_a_warning_and_cut_off_before_more_is_added(
    path: Path, draft: Callable[..., BankedHint], caplog: pytest.LogCaptureFixture
) -> None:
    HintBank.open(path, create=True).add([draft("one"), draft("two")])
    path.write_bytes(path.read_bytes()[:-20])
    with caplog.at_level(logging.WARNING):
        bank = HintBank.open(path)
    assert [hint.raw for hint in bank.hints] == ["one"]
    assert "half written" in caplog.text
    bank.add([draft("three")])
    assert [hint.raw for hint in HintBank.open(path).hints] == ["one", "three"]
    assert path.read_bytes().count(b"\n") == 2


def test_a_whole_last_line_without_its_line_break_is_kept(path: Path, draft: Callable[..., BankedHint]) -> None:
    HintBank.open(path, create=True).add([draft("one"), draft("two")])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    bank = HintBank.open(path)
    bank.add([draft("three")])
    bank.add([draft("four")])
    for read in (bank, HintBank.open(path)):
        assert [hint.raw for hint in read.hints] == ["one", "two", "three", "four"]
    with path.open("ab") as file:
        file.write(b"broken\n")
    with pytest.raises(DataError, match="line 5"):
        bank.refresh()


def test_tidy_makes_the_same_file_of_the_same_hints(tmp_path: Path, draft: Callable[..., BankedHint]) -> None:
    hints = [draft("one", "q2"), draft("Two words", "q1", 2), draft("two words!", "q1", 0), draft("one", "q1", 0, "u")]
    contents = set()
    for name, order in (("a", hints), ("b", hints[::-1])):
        bank = HintBank.open(tmp_path / name, create=True)
        for hint in order:
            bank.add([hint])
        bank.tidy()
        contents.add((tmp_path / name).read_bytes())
        assert [(h.question, h.level, h.teacher) for h in bank.hints] == [
            ("q1", 0, "t"), ("q1", 0, "u"), ("q1", 2, "t"), ("q2", 1, "t"),
        ]  # fmt: skip
        assert [h.duplicate for h in bank.hints] == [False, False, True, False]
    assert len(contents) == 1


def test_banks_put_together_by_hand_are_one_bank(tmp_path: Path, draft: Callable[..., BankedHint]) -> None:
    for name, raws in (("a", ["one", "two"]), ("b", ["one", "three"])):
        HintBank.open(tmp_path / name, create=True).add([draft(raw) for raw in raws])
    both = tmp_path / "both"
    both.write_bytes((tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes())
    bank = HintBank.open(both)
    bank.tidy()
    assert [(hint.index, hint.raw) for hint in HintBank.open(both).hints] == [(0, "one"), (1, "three"), (2, "two")]


def test_a_bank_in_order_is_not_written_again(path: Path, draft: Callable[..., BankedHint]) -> None:
    bank = HintBank.open(path, create=True)
    bank.add([draft("one"), draft("two")])
    before = path.stat().st_ino
    bank.tidy()
    assert path.stat().st_ino == before


# --- hints out of it --------------------------------------------------------------------------------------------------


@pytest.fixture
def bank(path: Path) -> HintBank:
    return HintBank.open(path, create=True)


def _settings(**fields: Any) -> ExplorationSettings:
    return ExplorationSettings(**{"hint_leak_policy": "reject", **fields})


def test_the_teacher_is_asked_only_for_what_is_missing_and_its_answers_are_kept(
    bank: HintBank, draft: Callable[..., BankedHint], group: Callable[..., Group]
) -> None:
    bank.add([draft("<hint>Look.</hint>", teacher="scripted")])
    teacher = ScriptedTeacher("<hint>Think.</hint>")
    source = BankedHints(bank, teacher, _settings())
    assert source([group("q1"), group("q2")], 1) == [
        (Hint("Look.", level=1, written="Look.", raw="<hint>Look.</hint>", banked=True),),
        (Hint("Think.", level=1, written="Think.", raw="<hint>Think.</hint>"),),
    ]
    assert teacher.hint_calls == [1]
    (hints,) = source([group("q2")], 1)
    assert [(hint.text, hint.banked) for hint in hints] == [("Think.", True)]
    assert teacher.hint_calls == [1, 0], "called all the same, because other processes may have to ask"
    assert [hint.teacher for hint in HintBank.open(bank.path).hints] == ["scripted", "scripted"]


def test_two_groups_of_one_question_are_asked_about_once(bank: HintBank, group: Callable[..., Group]) -> None:
    teacher = ScriptedTeacher("<hint>Think.</hint>")
    first, second = BankedHints(bank, teacher, _settings())([group(), group()], 1)
    assert first == second
    assert teacher.hint_calls == [1]
    assert len(bank) == 1


def test_without_a_teacher_what_is_missing_stays_missing(
    bank: HintBank, draft: Callable[..., BankedHint], group: Callable[..., Group], policy: Callable[..., Any]
) -> None:
    bank.add([draft("<hint>Look.</hint>", teacher="whoever")])
    explorer = Explorer(_settings(exploration_attempts=1), hint_source=BankedHints(bank, None, _settings()))
    script = policy()
    rescues = explorer.explore([group("q1"), group("q2")], script.sample, script.verify)
    assert [rescue.failure for rescue in rescues] == ["no correct sample", "no hint"]


@pytest.mark.parametrize(
    ("leak_policy", "texts"),
    [("reject", ["", "Think."]), ("ask_again", ["", "Think."]), ("strip", ["Look.", "Think."]), ("allow", None)],
)
def test_the_leak_policy_of_the_reader_is_applied(
    leak_policy: str, texts: list[str] | None, bank: HintBank, draft: Callable[..., BankedHint], group: Any
) -> None:
    bank.add([draft("Look. It is B."), draft("Think.")])
    (hints,) = BankedHints(bank, None, _settings(hint_leak_policy=leak_policy))([group()], 1)
    assert [hint.text for hint in hints] == (texts or ["Look. It is B.", "Think."])
    assert [hint.leaks for hint in hints] == [("letter",), ()]


@pytest.mark.parametrize("leak_policy", ["reject", "ask_again"])
def test_hints_that_all_leak_count_as_tried(
    leak_policy: str, bank: HintBank, draft: Callable[..., BankedHint], group: Callable[..., Group]
) -> None:
    bank.add([draft("It is B.", teacher="scripted")])
    settings = _settings(hint_leak_policy=leak_policy, hint_retries=2)
    teacher = ScriptedTeacher("<hint>Think.</hint>")
    (hints,) = BankedHints(bank, teacher, settings)([group()], 1)
    assert [hint.text for hint in hints] == [""]
    assert teacher.hint_calls == [0] * settings.hint_calls_per_level


def test_all_answers_of_asking_again_are_kept_and_empty_ones_are_not(
    bank: HintBank, group: Callable[..., Group]
) -> None:
    teacher = ScriptedTeacher(["", "<hint>It is B.</hint>", "<hint>Think.</hint>"])
    (hints,) = BankedHints(bank, teacher, _settings(hint_leak_policy="ask_again"))([group()], 1)
    assert [hint.text for hint in hints] == ["", "", "Think."]
    assert [(hint.text, hint.leaks) for hint in bank.hints] == [("It is B.", ("letter",)), ("Think.", ())]


def test_equal_texts_are_used_once(bank: HintBank, draft: Callable[..., BankedHint], group: Any) -> None:
    bank.add([draft("Look."), draft("<hint>Look.</hint>"), draft("Think.")])
    (hints,) = BankedHints(bank, None, _settings())([group()], 1)
    assert [hint.text for hint in hints] == ["Look.", "Think."]


@pytest.mark.parametrize(
    ("read_from", "texts", "asked"),
    [(None, ["Own."], 0), ("big", ["Big."], 0), (ANY_TEACHER, ["Big.", "Own."], 0), ("other", ["Own."], 0)],
)
def test_whose_hints_are_read(
    read_from: str | None, texts: list[str], asked: int, bank: HintBank, draft: Any, group: Any
) -> None:
    bank.add([draft("Own.", teacher="scripted"), draft("Big.", teacher="big")])
    teacher = ScriptedTeacher("<hint>New.</hint>")
    (hints,) = BankedHints(bank, teacher, _settings(), read_from)([group()], 1)
    assert [hint.text for hint in hints] == texts
    assert teacher.hint_calls == [asked]


def test_hints_of_others_do_not_count_for_a_run_with_a_teacher(bank: HintBank, draft: Any, group: Any) -> None:
    bank.add([draft("Big.", teacher="big")])
    teacher = ScriptedTeacher("<hint>New.</hint>")
    (hints,) = BankedHints(bank, teacher, _settings())([group()], 1)
    assert [hint.text for hint in hints] == ["New."]


def test_each_level_is_looked_up_by_itself(bank: HintBank, draft: Callable[..., BankedHint], group: Any) -> None:
    bank.add([draft("Concept.", level=0), draft("Solution.", level=2)])
    source = BankedHints(bank, None, _settings())
    assert [[hint.text for hint in source([group()], level)[0]] for level in range(3)] == [
        ["Concept."],
        [],
        ["Solution."],
    ]


@pytest.mark.parametrize("answer", [None, " "])
def test_a_group_without_ground_truth_has_no_hints(answer: str | None, bank: HintBank, group: Any) -> None:
    teacher = ScriptedTeacher("<hint>Think.</hint>")
    assert BankedHints(bank, teacher, _settings())([group(answer=answer)], 1) == [()]
    assert teacher.hint_calls == [0]


def test_a_hint_fixed_by_hand_is_used_as_it_stands_and_audited_again(bank: HintBank, draft: Any, group: Any) -> None:
    (kept,) = bank.add([draft("It is B.")])
    bank.path.write_bytes(to_line(replace(kept, text="Look at the rim.")))
    (hints,) = BankedHints(HintBank.open(bank.path), None, _settings())([group()], 1)
    assert [(hint.text, hint.leaks) for hint in hints] == [("Look at the rim.", ())]
