"""The fields of a recipe beside the training settings: which arm, which rewards, which teacher."""

from __future__ import annotations

from dataclasses import dataclass

from transformers.hf_argparser import HfArg

METHODS = ("kepo", "sft")


@dataclass
class RunArguments:
    """What to run.

    GRPO, distillation and KEPO are all `method: kepo` with other settings (see `KEPOConfig`); `sft` is TRL's
    SFTTrainer on the same data and prompts.
    """

    method: str = HfArg(default="kepo", help="'kepo' (every arm with rollouts) or 'sft'.")
    arm: str | None = HfArg(
        default=None, help="Name of the method in tables and reports; default: the last recipe's name."
    )
    replicate: str | None = HfArg(
        default=None, help="Name of the repetition: reports compare runs of two arms that share it; default: the seed."
    )
    reward_funcs: list[str] = HfArg(
        default_factory=lambda: ["choice_accuracy", "think_format"],
        help="Reward functions: names of kepo.rewards, or 'file.py:function' or 'package.module:function' for any TRL "
        "reward function.",
    )
    overwrite: bool = HfArg(default=False, help="Delete the run that already lies in output_dir and start again.")
    validation_path: str | None = HfArg(
        default=None,
        help="Questions asked greedily while training; the run ends with the weights that were best on those of the "
        "modality trained on. Needs save_strategy: 'no'.",
    )
    validate_every: int = HfArg(default=20, help="Optimizer steps between two validations.")
    validation_max_new_tokens: int | None = HfArg(
        default=None, help="Longest answer in a validation; default: max_completion_length."
    )


@dataclass
class TeacherArguments:
    """The teacher, where the run needs one."""

    teacher_model_name_or_path: str | None = HfArg(
        default=None, help="Folder or hub name of the teacher; None: no teacher."
    )
    teacher_url: list[str] = HfArg(
        default_factory=list,
        help="Address of the server that runs the teacher, such as http://teacher:8000/v1; several: replicas. "
        "teacher_model_name_or_path is then the name under which it is served.",
    )
    teacher_device: str | None = HfArg(
        default=None, help="Device of the teacher, e.g. 'cuda:1'; None: the student's, sharded as the student is."
    )
    teacher_dtype: str = HfArg(default="auto", help="'auto', 'float32', 'bfloat16' or 'float16'.")
    teacher_batch_size: int = HfArg(default=8, help="Rows the teacher scores at once, >= 1.")
    teacher_load_in_4bit: bool = HfArg(default=False, help="Quantize the teacher (bitsandbytes, 4 bit).")
    teacher_top_k: int = HfArg(
        default=64,
        help="Served teachers: tokens whose probability is asked at each position; the server needs --max-logprobs of "
        "at least this.",
    )
    teacher_concurrency: int = HfArg(default=16, help="Served teachers: most requests at once to each.")
    teacher_timeout: float = HfArg(default=300.0, help="Served teachers: seconds to wait for an answer.")
    teacher_attempts: int = HfArg(default=6, help="Served teachers: how often a request is tried, with growing pauses.")
    teacher_on_failure: str = HfArg(
        default="stop",
        help="Served teachers, after the last try: 'stop' (with a checkpoint), 'wait' (until one is back) or 'skip' "
        "(go on without the teacher for these rows and hints, and count them).",
    )
    teacher_api_key_env: str | None = HfArg(
        default=None, help="Served teachers: environment variable that holds the key."
    )
    teacher_api_key_file: str | None = HfArg(default=None, help="Served teachers: file that holds the key.")
    hint_max_new_tokens: int = HfArg(default=256, help="Longest hint, in the teacher's tokens.")
    hint_temperature: float = HfArg(default=1.0, help="Sampling temperature of hints; 0 is greedy.")
