"""What a run without exploration leaves: all-failed groups, what it was trained on, a model card, and a push."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitInfo, HfApi, ModelCard, RepoUrl

from kepo import KEPOTrainer
from kepo.data.contents import contents_of
from kepo.runs import read_metrics, read_rollouts
from kepo.runs.trained_on import read_trained_on
from kepo.types import Question
from tests.tiny_runs import even_start, has_magic


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Stands in for the hub: notes what it is asked for."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def create_repo(self: HfApi, repo_id: str, **kwargs: Any) -> RepoUrl:
        asked.append(("create_repo", {"repo_id": repo_id, **kwargs}))
        return RepoUrl(f"https://huggingface.co/me/{repo_id.split('/')[-1]}")

    def upload_folder(self: HfApi, **kwargs: Any) -> CommitInfo:
        card = (Path(kwargs["folder_path"]) / "README.md").read_text()
        asked.append(("upload_folder", {**kwargs, "card": card}))
        return CommitInfo("https://huggingface.co/me/run/commit/0", "End of training", "", "0")

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    return asked


def test_grpo_notes_all_failed_groups_and_what_it_was_trained_on(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer((has_magic,), teacher=None, exploration="none", distillation_weight=0.0)
    trainer.train()
    folder = Path(trainer.args.output_dir)
    shares = [one["exploration/all_failed_groups"] for one in read_metrics(folder) if "reward" in one]
    assert shares == [1.0]
    assert set(read_rollouts(folder)["group_all_failed"].to_pylist()) == {True}
    asked = [Question("", f"What does image {i} show?", "", ("MRI", "CT")) for i in range(8)]
    assert read_trained_on(folder) == contents_of(asked)


def test_a_group_with_a_correct_rollout_is_not_all_failed(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer((even_start,), teacher=None, exploration="none", distillation_weight=0.0, max_steps=2)
    trainer.train()
    table = read_rollouts(trainer.args.output_dir)
    rewards, flags = table["reward/even_start"].to_pylist(), table["group_all_failed"].to_pylist()
    groups = [sum(rewards[start : start + 4]) == 0 for start in range(0, len(rewards), 4)]
    assert flags == [failed for failed in groups for _ in range(4)]
    logged = [one["exploration/all_failed_groups"] for one in read_metrics(trainer.args.output_dir) if "reward" in one]
    assert logged == [sum(groups[start : start + 2]) / 2 for start in (0, 2)]


def test_a_checkpoint_and_a_push_have_our_card(
    make_trainer: Callable[..., KEPOTrainer], hub: list[tuple[str, dict[str, Any]]]
) -> None:
    trainer = make_trainer((has_magic,), save_strategy="steps", save_steps=1)
    trainer.train()
    folder = Path(trainer.args.output_dir)
    card = (folder / "README.md").read_text()
    assert "post-training with GRPO, on-policy distillation" in card
    assert "8 questions" in card
    assert "None" not in card
    trainer.push_to_hub(tags=["medical"])
    (_, made), (_, pushed) = hub
    assert (made["repo_id"], pushed["repo_id"], pushed["folder_path"]) == ("run", "me/run", str(folder))
    data = ModelCard(pushed["card"]).data
    assert data.base_model is None  # a local folder
    assert "medical" in data.tags
    assert data.library_name == "transformers"
    assert 'from_pretrained("me/run")' in pushed["card"]
    assert "yang2026kepo" in pushed["card"]
    assert str(folder.parent) not in pushed["card"]
