"""The fields of a recipe beside the training settings: which arm, which rewards, which teacher."""

from __future__ import annotations

from dataclasses import dataclass, field

METHODS = ("kepo", "sft")


@dataclass
class RunArguments:
    """What to run.

    GRPO, distillation and KEPO are all `method: kepo` with other settings (see `KEPOConfig`); `sft` is TRL's
    SFTTrainer on the same data and prompts.
    """

    method: str = field(default="kepo", metadata={"help": "'kepo' (every arm with rollouts) or 'sft'."})
    arm: str | None = field(
        default=None, metadata={"help": "Name of the method in tables and reports; default: the recipe's file name."}
    )
    replicate: str | None = field(
        default=None,
        metadata={"help": "Name of the repetition: reports compare runs of two arms that share it; default: the seed."},
    )
    reward_funcs: list[str] = field(
        default_factory=lambda: ["choice_accuracy", "think_format"],
        metadata={
            "help": "Reward functions: names of kepo.rewards, or 'package.module:function' for any TRL reward function."
        },
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Delete the run that already lies in output_dir and start again."}
    )


@dataclass
class TeacherArguments:
    """The teacher, where the run needs one."""

    teacher_model_name_or_path: str | None = field(
        default=None, metadata={"help": "Folder or hub name of the teacher; None: no teacher."}
    )
    teacher_device: str | None = field(
        default=None,
        metadata={"help": "Device of the teacher, e.g. 'cuda:1'; None: the student's, sharded as the student is."},
    )
    teacher_dtype: str = field(default="auto", metadata={"help": "'auto', 'float32', 'bfloat16' or 'float16'."})
    teacher_batch_size: int = field(default=8, metadata={"help": "Rows the teacher scores at once, >= 1."})
    teacher_load_in_4bit: bool = field(default=False, metadata={"help": "Quantize the teacher (bitsandbytes, 4 bit)."})
    teacher_load_in_8bit: bool = field(default=False, metadata={"help": "Quantize the teacher (bitsandbytes, 8 bit)."})
    hint_max_new_tokens: int = field(default=256, metadata={"help": "Longest hint, in the teacher's tokens."})
    hint_temperature: float = field(default=1.0, metadata={"help": "Sampling temperature of hints; 0 is greedy."})
