"""The model card of a run, `README.md` in its folder: what the model is made from, how, and how well it does.

`KEPOTrainer` writes it with every checkpoint and before a push, `kepo train` at the end, and `kepo eval` again with its
results. Paths of this machine, addresses and commands are left out, because a card is made public.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData, try_to_load_from_cache
from jinja2 import Environment, StrictUndefined

from kepo.files import write_text
from kepo.models.adapters import ADAPTER_CONFIG
from kepo.runs import is_run, open_run
from kepo.runs.trained_on import read_trained_on
from kepo.trainer.card_results import cell, eval_result, evaluations, notes_of, plain, rows_of

CARD = "README.md"
MARKER = "<!-- Written by kepo, and written again by `kepo eval`. Remove this line to keep your own changes. -->"

_SETTINGS = (
    *("learning_rate", "lr_scheduler_type", "max_steps", "num_train_epochs", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "num_generations", "num_iterations", "temperature", "max_completion_length"),
    *("loss_type", "scale_rewards", "beta", "epsilon", "policy_weight", "lmbda", "distillation_weight"),
    *("distillation_weight_end", "divergence_interpolation", "divergence_temperature", "gate", "gate_reward"),
    *("gate_threshold", "gate_threshold_end", "exploration", "exploration_trigger", "exploration_attempts"),
    *("num_injected", "hint_level", "hint_max_level", "injection_correction", "injection_context", "seed", "bf16"),
)
_ADAPTER = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def write_model_card(
    folder: Path,
    manifest: Mapping[str, Any],
    *,
    name: str | None = None,
    hub_id: str | None = None,
    tags: Sequence[str] = (),
) -> Path | None:
    """Write `README.md` of the model in a run folder.

    Args:
        folder: The run folder.
        manifest: The content of its `run.json`, or as much of it as is known.
        name: Of the model; default: the hub's, else the folder's.
        hub_id: `OWNER/NAME` on the hub, where it is pushed to.
        tags: More tags.

    Returns:
        The file; None where there is a card that somebody else wrote, which is left as it is.

    Raises:
        DataError: The disk refuses, or a file of the run is damaged.
    """
    file = folder / CARD
    before = file.read_text(encoding="utf-8") if file.is_file() else None
    # A card of TRL or transformers, which a checkpoint of the base model may have brought along, is no one's own.
    if before is not None and MARKER not in before and "generated_from_trainer" not in before:
        return None
    known = _metadata(before) if before is not None and MARKER in before else None
    name = plain(name or (hub_id or "").split("/")[-1] or folder.resolve().name)
    config = manifest.get("config") or {}
    base, base_in_words = _base(config, folder, known)
    license_name, dataset = _license(config, base), _hub_dataset(config, known)
    found = list(evaluations(folder))
    vision = "vision_config" in _json(folder / "config.json")
    data = ModelCardData(
        model_name=name,
        base_model=base,
        library_name="peft" if (folder / ADAPTER_CONFIG).is_file() else "transformers",
        license=license_name,
        pipeline_tag="image-text-to-text" if vision else "text-generation",
        tags=list(dict.fromkeys(["kepo", "trl", *tags])),
        datasets=[dataset] if dataset else None,
        eval_results=[eval_result(one, vision) for one in found] or None,
    )
    rows = [row for one in found for row in rows_of(one)]
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    template = environment.from_string(files(__package__).joinpath("model_card.md.jinja").read_text(encoding="utf-8"))
    body = template.render(
        marker=MARKER,
        name=cell(name),
        summary=_summary(config, base_in_words),
        facts=[(what, cell(value)) for what, value in _facts(folder, manifest, base_in_words, dataset) if value],
        results=rows,
        notes=[cell(note) for one in found for note in notes_of(folder, one)],
        settings=[(setting, cell(value)) for setting, value in _settings(config)],
        vision=vision,
        place=json.dumps(hub_id or name),
        style=(config.get("data") or {}).get("prompt_style"),
        license=_license_in_words(license_name, base),
        software=cell(", ".join(f"{name} {version}" for name, version in (manifest.get("versions") or {}).items())),
    )
    return write_text(f"---\n{data.to_yaml()}\n---\n\n{body}\n", file)


def create_model_card(trainer: Any, record: Any, name: str | None, tags: str | Sequence[str] | None) -> None:
    """What TRL's trainers call to have a card written: with every checkpoint, and before a push.

    Args:
        trainer: A trainer of TRL.
        record: Its `kepo.trainer.run_folder.RunRecord`.
        name: Of the model.
        tags: More tags.
    """
    if trainer.is_world_process_zero():
        folder = Path(trainer.args.output_dir)
        manifest = open_run(folder).manifest if is_run(folder) else record.manifest()
        more = [tags] if isinstance(tags, str) else list(tags or ())
        write_model_card(folder, manifest, name=name, hub_id=trainer.hub_model_id, tags=more)


def refresh_model_card(folder: Path) -> Path | None:
    """Write the card of a finished run again, with the results of all its evaluations; None where there is no model.

    Raises:
        DataError: As `write_model_card`.
    """
    if not is_run(folder) or not any((folder / name).is_file() for name in ("config.json", ADAPTER_CONFIG)):
        return None
    return write_model_card(folder, open_run(folder).manifest)


def _summary(config: Mapping[str, Any], base: str) -> str:
    return f"{base} after {_method(config)}, by [kepo](https://arxiv.org/abs/2602.00400) on Hugging Face TRL."


def _method(config: Mapping[str, Any]) -> str:
    """What was done, in words; the parts of KEPO that were on."""
    training = config.get("training") or {}
    if (config.get("run") or {}).get("method") == "sft":
        return "supervised fine-tuning"
    if not training:
        return "post-training"
    parts = []
    if (training.get("distillation_weight") or 0) > 0 or (training.get("distillation_weight_end") or 0) > 0:
        gate = training.get("gate", "outcome")
        parts.append("on-policy distillation" + ("" if gate == "always" else f" gated by `{gate}`"))
    if (exploration := training.get("exploration", "none")) != "none":
        with_hints = "with hints" if exploration == "hint" else f"(`{exploration}`)"
        parts.append(f"exploration {with_hints}")
    policy = "GRPO" if training.get("policy_weight", 1.0) else "no policy loss"
    return f"post-training with {policy}" + (f", {' and '.join(parts)}" if parts else " alone")


def _facts(folder: Path, manifest: Mapping[str, Any], base: str, dataset: str | None) -> Iterator[tuple[str, str]]:
    config = manifest.get("config") or {}
    run, data, teacher = (config.get(part) or {} for part in ("run", "data", "teacher"))
    training = config.get("training") or {}
    yield "base model", base
    yield "method", _method(config)
    if (training.get("distillation_weight") or training.get("exploration") == "hint") and run.get("method") != "sft":
        yield "teacher", _named(teacher.get("teacher_model_name_or_path"))
    yield "data", _data(folder, data, dataset)
    yield "modality trained on", str(data.get("modality") or "")
    yield "rewards", "" if run.get("method") == "sft" else ", ".join(map(str, run.get("reward_funcs") or ()))
    yield "recipe", _recipe((config.get("recipe") or {}).get("source"))
    yield "optimizer steps", str(manifest.get("steps", ""))
    yield "adapter", "LoRA" if (config.get("model") or {}).get("use_peft") else ""
    yield "device", str(manifest.get("device") or "")
    git = manifest.get("git") or {}
    yield "git commit", str(git.get("commit") or "")


def _recipe(source: Any) -> str:
    """The recipe's names; of a file its last part."""
    return ", ".join(
        Path(part).name if part.startswith(("/", "~", ".")) else part for part in str(source or "").split()
    )


def _data(folder: Path, data: Mapping[str, Any], dataset: str | None) -> str:
    path, tasks = data.get("data_path"), data.get("reasoning_tasks") or ()
    number = len(read_trained_on(folder) or ())
    # The end of a path says what it is, its beginning whose machine this was.
    shown = dataset or ("/".join(Path(str(path)).parts[-2:]).strip("/") if path else ", ".join(map(str, tasks)))
    counted = f"{number:,} questions" if number else ""
    return " of ".join(part for part in (counted, shown) if part)


def _hub_dataset(config: Mapping[str, Any], known: Mapping[str, Any] | None) -> str | None:
    """The data's name on the hub; None for files. As with the base model, an older card knows it better."""
    path = _hub_name((config.get("data") or {}).get("data_path"))
    if path is None or path.count("/") != 1 or Path(path).suffix:
        return None
    return path if known is None or path in (known.get("datasets") or ()) else None


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    training, model = config.get("training") or {}, config.get("model") or {}
    off = _off(training)
    for name in _SETTINGS:
        if training.get(name) is not None and not name.startswith(off):
            yield name, str(training[name])
    for name in _ADAPTER if model.get("use_peft") else ():
        if model.get(name) is not None:
            yield name, str(model[name])


def _off(training: Mapping[str, Any]) -> tuple[str, ...]:
    """How the settings begin that did nothing in this run."""
    off = ["max_steps" if (training.get("max_steps") or 0) <= 0 else "num_train_epochs"]
    if not training.get("distillation_weight") and not training.get("distillation_weight_end"):
        off += ["divergence_", "gate"]
    if training.get("exploration", "none") == "none":
        off += ["exploration_", "num_injected", "hint_", "injection_"]
    return tuple(off)


def _base(config: Mapping[str, Any], folder: Path, known: Mapping[str, Any] | None) -> tuple[str | None, str]:
    """The base model on the hub, None where it is none; and what was trained, in words."""
    name = (config.get("model") or {}).get("model_name_or_path")
    hub = _hub_name(name)
    if known is not None:
        # Written where the training ran: a folder that has moved since would look like a name of the hub.
        hub = known.get("base_model")
        if hub and hub == name:
            return hub, f"[{hub}](https://huggingface.co/{hub})"
    elif hub:
        return hub, f"[{hub}](https://huggingface.co/{hub})"
    if not name:
        return hub, "A model"
    start = next((place for place in (Path(name), Path(name).parent) if is_run(place)), None)
    if start is None or start.resolve() == folder.resolve():
        return hub, _named(name)
    origin, in_words = _base(open_run(start).manifest.get("config") or {}, start, None)
    return origin, f"{_named(name)} ({in_words} after {_method(open_run(start).manifest.get('config') or {})})"


def _metadata(card: str) -> Mapping[str, Any]:
    """What stands at the head of a card."""
    found: Mapping[str, Any] = ModelCard(card, ignore_metadata_errors=True).data.to_dict()
    return found


def _named(name: Any) -> str:
    if not name:
        return ""
    if hub := _hub_name(name):
        return hub
    return f"`{Path(str(name)).name}` (a local model)"


def _hub_name(name: Any) -> str | None:
    """`name` where it is one of the hub: not a folder or file here, nor a path."""
    text = str(name or "")
    return text if _HUB_NAME.fullmatch(text) and not Path(text).exists() else None


def _license(config: Mapping[str, Any], base: str | None) -> str | None:
    """The license that the card of the base model names; None where there is no such card here."""
    name = (config.get("model") or {}).get("model_name_or_path")
    cards = [Path(name) / CARD] if name else []
    cached = try_to_load_from_cache(base, CARD) if base else None
    cards += [Path(cached)] if isinstance(cached, str) else []
    for card in cards:
        if card.is_file():
            found = _metadata(card.read_text(encoding="utf-8")).get("license")
            if isinstance(found, str):
                return found
    return None


def _license_in_words(name: str | None, base: str | None) -> str:
    of = f"[{base}](https://huggingface.co/{base})" if base else "the base model"
    if name:
        return f"`{name}`, that of {of}. The license of the data it was trained on applies as well."
    return f"That of {of}, and that of the data it was trained on; neither is known here. Look them up before any use."


def _json(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, Mapping) else {}
