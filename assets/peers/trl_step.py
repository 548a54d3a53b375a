"""Seconds of a step of TRL's trainers on the CPU.

    python trl_step.py --kind sft|reward|dpo|grpo|rloo --model DIR --data FILE --batch 4 --steps 6

FILE has rows with `text` (sft), with `prompt`, `chosen` and `rejected` (reward, dpo), or with `prompt` (grpo, rloo),
as models.py makes them. `--batch` counts texts, pairs or answers. Answers have 48 tokens, and their score is the number
of their characters. The median of the steps after the first counts, and the line says the arguments' own names.
"""

import argparse
import json
import os
import statistics
import tempfile
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import trl
from datasets import load_dataset
from transformers import AutoTokenizer, TrainerCallback

COLUMNS = {
    "sft": ["text"],
    "reward": ["prompt", "chosen", "rejected"],
    "dpo": ["prompt", "chosen", "rejected"],
    "grpo": ["prompt"],
    "rloo": ["prompt"],
}
NEW_TOKENS = 48


class Clock(TrainerCallback):
    """Takes the time of every step, the rollout included."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, *_args, **_kwargs):
        self.ends.append(time.perf_counter())

    def seconds(self):
        """From the end of a step to that of the next: a trainer may sample before its step begins."""
        return [end - start for start, end in zip(self.ends, self.ends[1:])]


def lengths(completions, **_):
    return [float(len(text)) for text in completions]


def trainer_of(args, clock):
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows = load_dataset("json", data_files=args.data, split="train").select_columns(COLUMNS[args.kind])
    shared = dict(
        output_dir=tempfile.mkdtemp(),
        max_steps=args.steps + 1,
        per_device_train_batch_size=args.batch,
        learning_rate=1e-5,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    parts = dict(model=args.model, train_dataset=rows, processing_class=tokenizer, callbacks=[clock])
    if args.peft:
        from peft import LoraConfig

        parts["peft_config"] = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    if args.kind == "sft":
        return trl.SFTTrainer(args=trl.SFTConfig(max_length=256, **shared), **parts)
    if args.kind == "reward":
        return trl.RewardTrainer(args=trl.RewardConfig(max_length=256, **shared), **parts)
    if args.kind == "dpo":
        return trl.DPOTrainer(args=trl.DPOConfig(max_length=256, **shared), **parts)
    kinds = {"grpo": (trl.GRPOTrainer, trl.GRPOConfig), "rloo": (trl.RLOOTrainer, trl.RLOOConfig)}
    trainer, config = kinds[args.kind]
    config = config(num_generations=args.group, max_completion_length=NEW_TOKENS, beta=0.05, **shared)
    return trainer(args=config, reward_funcs=lengths, **parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=COLUMNS, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peft", action="store_true", help="LoRA instead of all weights")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = Clock()
    trainer_of(args, clock).train()
    print(json.dumps({"peer": f"trl {trl.__version__}", "step_seconds": statistics.median(clock.seconds())}))


if __name__ == "__main__":
    main()
