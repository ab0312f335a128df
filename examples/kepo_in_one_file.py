"""KEPO (arXiv 2602.00400) in one file: the whole method as one loop, with PyTorch and transformers only.

    python examples/kepo_in_one_file.py                                               # tiny models, under a minute
    python examples/kepo_in_one_file.py --model STUDENT --teacher TEACHER --steps 20  # two folders of one tokenizer

A student learns sums up to 5 + 5. Its objective, with importance weight w_i, advantage A_i, reward r_i of rollout y_i:

    J = E[ sum_i  w_i A_i  -  lambda 1{r_i >= tau} D(pi_T || pi)(y_i | x)  -  beta KL(pi || pi_ref) ]

`KEPOTrainer` makes the same optimizer steps from the same rollouts (tests/integration/test_one_file_example.py), and
adds what real runs need: images, LoRA, vLLM, many GPUs, checkpoints, a divergence that never holds a (B, T, V) tensor.

Shapes: Q prompts of a step, G rollouts per prompt, B = Q * G, T completion tokens, V vocabulary, N gated tokens.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Settings:
    """Defaults are KEPO's and, where the paper is silent, those of TRL's GRPO; sizes are those of the toy task."""

    prompts_per_step: int = 8  # Q
    group_size: int = 8  # G
    num_injected: int = 2  # K: rollouts of an all-failed group replaced at most; 0 switches exploration off
    attempts: int = 5  # of hinted sampling, per all-failed group
    tau: float = 1.0  # quality gate: least accuracy of a rollout that the teacher may teach
    distillation_weight: float = 1.0  # lambda; 0 switches distillation off
    interpolation: float = 0.5  # b of the generalized Jensen-Shannon divergence, 0 < b < 1
    beta: float = 0.0  # weight of the KL to the initial student
    clip: float = 0.2  # epsilon of PPO's clipping
    max_new_tokens: int = 4  # of a rollout; a hint may have twice as many
    learning_rate: float = 1e-3
    max_grad_norm: float = 1.0


@dataclass(frozen=True)
class Question:
    text: str
    answer: str


@dataclass(frozen=True)
class Rollout:
    prompt_ids: list[int]  # what it is trained under: the prompt without a hint
    completion_ids: list[int]  # with its end token, unless it was cut
    accuracy: float  # 0 or 1; exploration and the gate look at it
    reward: float  # accuracy + format; the advantage looks at it
    finished: bool = True  # not cut off before its end token


@dataclass(frozen=True)
class Group:
    question: Question
    rollouts: list[Rollout]  # G
    kept: list[Rollout] = field(default_factory=list)  # correct samples under a hint, at most K

    @property
    def all_failed(self) -> bool:
        return not any(rollout.accuracy >= 1 for rollout in self.rollouts)


# --- 1. rollouts and rewards ---------------------------------------------------------------------------------------
@torch.no_grad()
def generate(model: Any, tokenizer: Any, prompts: list[str], max_new_tokens: int) -> list[tuple[list[int], list[int]]]:
    """Prompt ids and sampled completion ids of each prompt."""
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    sampling = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0}
    output = model.generate(**batch, **sampling, max_new_tokens=max_new_tokens, eos_token_id=end, pad_token_id=pad)
    pairs = []
    for ids, attended, row in zip(batch.input_ids, batch.attention_mask, output, strict=True):
        completion = row[len(ids) :].tolist()
        pairs.append((ids[attended == 1].tolist(), completion[: [*completion, end].index(end) + 1]))
    return pairs


def roll_out(model: Any, tokenizer: Any, questions: list[Question], prompts: list[str], s: Settings) -> list[Rollout]:
    """One rollout per prompt. Accuracy: its first number is the answer. Format: it is nothing but a number."""
    rollouts = []
    for question, pair in zip(questions, generate(model, tokenizer, prompts, s.max_new_tokens), strict=True):
        text = tokenizer.decode(pair[1], skip_special_tokens=True).replace(" ", "")
        accuracy = float(re.findall(r"\d+", text)[:1] == [question.answer])
        finished = pair[1][-1:] == [tokenizer.eos_token_id]
        rollouts.append(Rollout(*pair, accuracy, reward=accuracy + text.isdigit(), finished=finished))
    return rollouts


# --- 2. knowledge-enhanced exploration: hint, rejection, injection -------------------------------------------------
def write_hints(teacher: Any, tokenizer: Any, questions: list[Question], s: Settings) -> list[str]:
    """The teacher sees question and answer, and writes a hint; one that states the answer becomes "" (no hint)."""
    requests = [HINT_REQUEST.format(question=q.text, answer=q.answer) for q in questions]
    hints = [tokenizer.decode(ids, True) for _, ids in generate(teacher, tokenizer, requests, 2 * s.max_new_tokens)]
    states = [q.answer in re.findall(r"\d+", h.replace(" ", "")) for q, h in zip(questions, hints, strict=True)]
    return ["" if stated else hint for hint, stated in zip(hints, states, strict=True)]


def explore(groups: list[Group], hints_for: Callable, sample: Callable, s: Settings) -> None:
    """Fill `kept` of all-failed groups, each on its own budget; those that still search share one call per attempt.

    hints_for(questions) -> one hint each, "" for none; sample(questions, hints) -> one rollout under each hint.
    """
    for _ in range(s.attempts):
        pending = [group for group in groups if group.all_failed and len(group.kept) < s.num_injected]
        hints = hints_for([group.question for group in pending]) if pending else []
        asked = [(g, h) for g, h in zip(pending, hints, strict=True) if h for _ in range(s.num_injected - len(g.kept))]
        samples = sample([group.question for group, _ in asked], [hint for _, hint in asked]) if asked else []
        for (group, _), found in zip(asked, samples, strict=True):
            if found.accuracy >= 1 and found.finished:  # rejection sampling (KEPOTrainer prefers different samples)
                group.kept.append(found)


def inject(group: Group) -> Group:
    """Put kept samples in the first failed slots (rollouts are exchangeable), under the prompt without the hint."""
    rollouts = list(group.rollouts)
    failed = [slot for slot, rollout in enumerate(rollouts) if rollout.accuracy < 1]
    for slot, found in zip(failed, group.kept, strict=False):
        rollouts[slot] = replace(found, prompt_ids=rollouts[slot].prompt_ids)
    return replace(group, rollouts=rollouts)


# --- 3. the objective: pure functions of tensors -------------------------------------------------------------------
def group_advantages(rewards_QG: Tensor) -> Tensor:
    """A_i = (r_i - mean(r)) / (std(r) + eps) within each group: (Q, G). A group of equal rewards gets 0."""
    mean, std = rewards_QG.mean(1, keepdim=True), rewards_QG.std(1, keepdim=True)
    return (rewards_QG - mean) / (std + 1e-4)


def quality_gate(accuracy_B: Tensor, mask_BT: Tensor, tau: float) -> Tensor:
    """1{r_i >= tau} at every completion token: (B, T) bool. Format never opens it."""
    return (accuracy_B >= tau).unsqueeze(1) & mask_BT.bool()


def policy_loss(w_BT: Tensor, A_B1: Tensor, clip: float) -> Tensor:
    """-w_i A_i of each token, with PPO's clipping: (B, T)."""
    return -torch.min(w_BT * A_B1, w_BT.clamp(1 - clip, 1 + clip) * A_B1)


def generalized_jsd(student_NV: Tensor, teacher_NV: Tensor, b: float) -> Tensor:
    """D(pi_T || pi) of each token, from log-probabilities: (N,) in nats. GKD (arXiv 2306.13649), eq. 1:

    D = b KL(teacher || m) + (1 - b) KL(student || m),  m = b teacher + (1 - b) student.
    """
    m_NV = torch.logaddexp(teacher_NV + math.log(b), student_NV + math.log(1 - b))
    kl_teacher_N = (teacher_NV.exp() * (teacher_NV - m_NV)).sum(-1)
    kl_student_N = (student_NV.exp() * (student_NV - m_NV)).sum(-1)
    return b * kl_teacher_N + (1 - b) * kl_student_N


# --- 4. one optimizer step -----------------------------------------------------------------------------------------
def collate(rollouts: list[Rollout]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids and attention mask of prompt and completion (B, P + T), padded with any token; completion mask (B, T)."""
    P, T = max(len(r.prompt_ids) for r in rollouts), max(len(r.completion_ids) for r in rollouts)
    padding = [(P - len(r.prompt_ids), T - len(r.completion_ids)) for r in rollouts]
    ids = [[0] * p + r.prompt_ids + r.completion_ids + [0] * t for r, (p, t) in zip(rollouts, padding, strict=True)]
    attention = torch.tensor([[0] * p + [1] * (P + T - p - t) + [0] * t for p, t in padding])
    return torch.tensor(ids), attention, attention[:, P:]


def completion_logps(model: Any, ids: Tensor, attention: Tensor, T: int) -> Tensor:
    """Log-probabilities of every token at the T completion positions: (B, T, V). Position t predicts token t + 1."""
    logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits
    return logits[:, -T - 1 : -1].log_softmax(-1)


def kepo_loss(student: Any, teacher: Any, reference: Any, groups: list[Group], s: Settings) -> tuple[Tensor, dict]:
    """-J, with one forward pass of the student; each term is a mean over its tokens. Teacher, reference: frozen."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    ids, attention, mask_BT = collate(rollouts)
    T = mask_BT.size(1)
    tokens_BT1 = ids[:, -T:].unsqueeze(-1)
    rewards_QG = torch.tensor([[rollout.reward for rollout in group.rollouts] for group in groups])
    gate_BT = quality_gate(torch.tensor([rollout.accuracy for rollout in rollouts]), mask_BT, s.tau)

    logps_BTV = completion_logps(student, ids, attention, T)
    logps_BT = logps_BTV.gather(-1, tokens_BT1).squeeze(-1)
    # One step per batch of rollouts, so pi_old = pi: w is 1, with the gradient of log pi. The paper treats injected
    # rollouts the same, although they were sampled under a hint.
    w_BT = torch.exp(logps_BT - logps_BT.detach())
    loss_BT = policy_loss(w_BT, group_advantages(rewards_QG).view(-1, 1), s.clip)
    if s.beta > 0:
        reference_BT = completion_logps(reference, ids, attention, T).gather(-1, tokens_BT1).squeeze(-1)
        gap_BT = reference_BT - logps_BT
        loss_BT = loss_BT + s.beta * w_BT * (gap_BT.exp() - gap_BT - 1)  # KL(pi || pi_ref) at the sampled token (k3)
    loss = (loss_BT * mask_BT).sum() / mask_BT.sum()

    open_B = gate_BT.any(1)
    divergence = torch.zeros(())
    if s.distillation_weight > 0 and open_B.any():  # the teacher sees gated rows only; a closed gate adds exactly 0
        teacher_NV = completion_logps(teacher, ids[open_B], attention[open_B], T)[gate_BT[open_B]]
        divergence = generalized_jsd(logps_BTV[gate_BT], teacher_NV, s.interpolation).mean()
        loss = loss + s.distillation_weight * divergence
    return loss, {"gate": open_B.float().mean().item(), "distillation": divergence.item(), "loss": loss.item()}


def make_optimizer(student: Any, s: Settings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(student.parameters(), lr=s.learning_rate, weight_decay=0.0)


def optimizer_step(student: Any, optimizer: torch.optim.Optimizer, loss: Tensor, s: Settings) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(student.parameters(), s.max_grad_norm)
    optimizer.step()


def train(student: Any, teacher: Any, tokenizer: Any, steps: int, s: Settings) -> Iterator[dict[str, float]]:
    """The loop; yields the numbers of each step."""
    optimizer = make_optimizer(student, s)
    teacher, reference = teacher.requires_grad_(False), copy.deepcopy(student).requires_grad_(False)

    def sample(questions: list[Question], hints: list[str]) -> list[Rollout]:
        prompts = [HINTED.format(question=q.text, hint=h) for q, h in zip(questions, hints, strict=True)]
        return roll_out(student, tokenizer, questions, prompts, s)

    for _ in range(steps):
        questions = [q for q in random.sample(SUMS, s.prompts_per_step) for _ in range(s.group_size)]  # (B,)
        rollouts = roll_out(student, tokenizer, questions, [PROMPT.format(question=q.text) for q in questions], s)
        groups = [Group(questions[i], rollouts[i : i + s.group_size]) for i in range(0, len(rollouts), s.group_size)]
        explore(groups, lambda asked: write_hints(teacher, tokenizer, asked, s), sample, s)
        loss, numbers = kepo_loss(student, teacher, reference, list(map(inject, groups)), s)
        optimizer_step(student, optimizer, loss, s)
        failed, rescued = sum(g.all_failed for g in groups), sum(bool(g.kept) for g in groups)
        reward = sum(rollout.reward for rollout in rollouts) / len(rollouts)
        yield {"reward": reward, "all_failed": failed / len(groups), "rescued": rescued / len(groups), **numbers}


# --- 5. the toy task -----------------------------------------------------------------------------------------------
PROMPT, HINTED = "{question} Answer:", "{question} Hint: {hint} Answer:"
HINT_REQUEST = "{question} The answer is {answer}. Rewrite it as an easier sum. Hint:"
SUMS = [Question(f"What is {a} + {b}?", str(a + b)) for a in range(1, 6) for b in range(1, 6)]


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """Words, signs and single digits."""
    words = sorted(set(re.findall(r"[^\W\d]+|\d|[^\w\s]", HINTED + HINT_REQUEST + SUMS[0].text + "0123456789")))
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<pad>", "<end>", *words])}, "<pad>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\W\d]+|\d|[^\w\s]"), "removed", invert=True)
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<end>")


def supervised_start(model: Any, tokenizer: Any, pairs: list[tuple[str, str]], steps: int) -> None:
    """Cross-entropy on the completions of (prompt, completion) pairs, so that there is a policy to improve."""
    optimizer = make_optimizer(model, s := Settings(learning_rate=3e-3))
    for _ in range(steps):
        batch = [(tokenizer(p).input_ids, tokenizer(c).input_ids) for p, c in random.choices(pairs, k=64)]
        rollouts = [Rollout(p, [*c, tokenizer.eos_token_id], 1.0, 1.0) for p, c in batch]
        ids, attention, mask = collate(rollouts)
        logps = completion_logps(model, ids, attention, mask.size(1)).gather(-1, ids[:, -mask.size(1) :, None])
        optimizer_step(model, optimizer, -(logps.squeeze(-1) * mask).sum() / mask.sum(), s)


def toy_models() -> tuple[Any, Any, Any]:
    """Student (adds 1, and follows a hint), teacher (adds, and writes hints), their tokenizer."""
    tiny = LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
    tokenizer, student, teacher = toy_tokenizer(), LlamaForCausalLM(tiny), LlamaForCausalLM(tiny)
    hints = {q: f"{int(q.answer) - 1} + 1" for q in SUMS}
    hinted = [(HINTED.format(question=q.text, hint=hints[q]), q.answer) for q in SUMS]
    answers = [(PROMPT.format(question=q.text), q.answer) for q in SUMS]
    requests = [(HINT_REQUEST.format(question=q.text, answer=q.answer), hints[q]) for q in SUMS]
    supervised_start(student, tokenizer, hinted + [pair for pair in answers if "+ 1?" in pair[0]], 150)
    supervised_start(teacher, tokenizer, answers + requests, 200)
    return student, teacher, tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description="KEPO on small sums.")
    parser.add_argument("--model", help="folder of the student; none: a tiny one is made here")
    parser.add_argument("--teacher", help="folder of the teacher, of the same tokenizer; none: --model as it starts")
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    random.seed(0), torch.manual_seed(0)
    torch.set_num_threads(torch.get_num_threads() if args.model else 1)  # threads only slow a tiny model down
    if args.model:
        folders = (args.model, args.teacher or args.model)
        student, teacher = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in folders)
        tokenizer = AutoTokenizer.from_pretrained(args.model)
    else:
        student, teacher, tokenizer = toy_models()
    for step, numbers in enumerate(train(student, teacher, tokenizer, args.steps, Settings()), start=1):
        print(f"step {step:3d}  " + "  ".join(f"{name} {value:.3f}" for name, value in numbers.items()), flush=True)


if __name__ == "__main__":
    main()
