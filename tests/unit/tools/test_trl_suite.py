"""The script that runs TRL's tests with our trainer: its stand-ins, and what it says of the outcomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import IterableDataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from tools import trl_standins, trl_suite

CALL = [151657, 198, 4913, 606, 788, 330, 64648, 22785, 497, 330, 16370, 788, 5212, 64, 788, 220, 18, 11248, 151658]


def _results(**outcomes: str) -> dict[str, dict[str, Any]]:
    return {test: {"outcome": outcome, "why": f"why {test}", "seconds": 1.0} for test, outcome in outcomes.items()}


FOUND = {
    "grpo": _results(a="passed", b="passed", c="failed", d="skipped", e="passed"),
    "kepo": _results(a="passed", b="failed", c="failed", d="skipped"),
    "kepo+teacher": _results(a="passed", b="passed", c="passed", d="skipped", e="passed"),
}


def test_only_what_grpo_passes_counts() -> None:
    assert trl_suite.differences(FOUND) == {"kepo": ["b", "e"], "kepo+teacher": []}


def test_the_table_names_the_tests_and_says_why() -> None:
    table = trl_suite.table(FOUND)
    assert "grpo                 3       1        1        5" in table
    assert "Passed by GRPOTrainer, not by kepo: 2\n  b\n      why b\n  e\n      did not run" in table
    assert "not by kepo+teacher: none" in table


@pytest.mark.parametrize(("difference", "code"), [(True, 1), (False, 0)])
def test_the_exit_code_and_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], difference: bool, code: int
) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_grpo_trainer.py").touch()
    found = FOUND if difference else dict.fromkeys(FOUND, FOUND["grpo"])
    monkeypatch.setattr(trl_suite, "run_arms", lambda *_: found)
    assert trl_suite.main([str(tmp_path), "--json", str(tmp_path / "out.json")]) == code
    assert json.loads((tmp_path / "out.json").read_text())["arms"] == found
    assert "passed" in capsys.readouterr().out


def test_a_folder_that_is_no_checkout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        trl_suite.main([str(tmp_path)])
    assert "test_grpo_trainer.py" in capsys.readouterr().err


def test_token_ids_in_the_source_are_mapped_and_nothing_else() -> None:
    source = "[17453, 0, 151645]; x = 1024; model = 'tiny-Qwen2-151645'; 0.1517; eos_token_id = 151645"
    mapped = trl_standins.with_small_ids(source)
    numbers = json.loads(mapped.split(";")[0])
    assert numbers[1] == 0
    assert all(1000 <= number < 2048 for number in (numbers[0], numbers[2]))
    assert mapped == f"{numbers}; x = 1024; model = 'tiny-Qwen2-151645'; 0.1517; eos_token_id = {numbers[2]}"


def test_a_stand_in_loads_from_the_cache_and_reads_written_token_ids(tmp_path: Path) -> None:
    trl_standins.build_hub(tmp_path, ["tiny-Qwen3MoeForCausalLM"])
    name = f"{trl_standins.OWNER}/tiny-Qwen3MoeForCausalLM"
    tokenizer = AutoTokenizer.from_pretrained(name, cache_dir=tmp_path, local_files_only=True)
    ids = json.loads(trl_standins.with_small_ids(str(CALL)))
    assert tokenizer.decode(ids) == '<tool_call>\n{"name": "multiply_tool", "arguments": {"a": 3}}\n</tool_call>'
    model = AutoModelForCausalLM.from_pretrained(name, cache_dir=tmp_path, local_files_only=True)
    assert model.config.eos_token_id == tokenizer.eos_token_id


def test_stand_ins_of_data_sets() -> None:
    rows = trl_standins.load_dataset(f"{trl_standins.OWNER}/zen-image", "conversational_prompt_only", split="train")
    assert rows[0]["prompt"][0]["role"] == "user"
    assert rows[0]["image"].size == (32, 32)
    stream = trl_standins.load_dataset(f"{trl_standins.OWNER}/zen", "standard_prompt_only", streaming=True)
    assert isinstance(stream["test"], IterableDataset)
    with pytest.raises(ValueError, match="no stand-in"):
        trl_standins.load_dataset("trl-lib/DeepMath-103K", "default")
