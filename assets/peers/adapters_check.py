"""Trains adapters on a tiny random model of every family with Temper, and opens them in PEFT; then the other way round.

    pip install -r requirements.txt peft==0.21.2
    python adapters_check.py --temper target/release/temper

For each family it makes a base model with transformers and runs `temper sft` and `temper reward` with `adapter.rank=2`.
PEFT loads the adapter on that base, and must compute the log-probabilities and scores that Temper computes from its own
merged model. An adapter that PEFT has made is merged by `temper merge`, and must compute what it computes in PEFT.
It prints a JSON line for each, and exits with 1 if anything is wrong.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast
from transformers.utils import logging

from families_check import ANSWERS, FAMILIES, QUESTIONS, SETTINGS, TOLERANCE, make_base, rows_of, write_rows


def train(temper, out):
    worse = ANSWERS[1:] + ANSWERS[:1]
    write_rows(out / "demonstrations.jsonl", [{"prompt": q, "completion": a} for q, a in zip(QUESTIONS, ANSWERS)])
    write_rows(out / "comparisons.jsonl", [
        {"prompt": q, "chosen": a, "rejected": b} for q, a, b in zip(QUESTIONS, ANSWERS, worse)
    ])  # fmt: skip
    for stage, data in (("sft", "demonstrations.jsonl"), ("reward", "comparisons.jsonl")):
        more = ["--set", "adapter.rank=2", "--set", "pooling=last"] if stage == "reward" else ["--set", "adapter.rank=2"]
        command = [temper, stage, "--model", "base", "--data", data, "--out", stage, *SETTINGS, *more]
        subprocess.run(command, cwd=out, check=True, stdout=subprocess.DEVNULL)


def worst_logprob(network, rows):
    worst = 0.0
    for row in rows:
        prompt, completion = row["prompt_tokens"], row["completion_tokens"]
        tokens = torch.tensor([prompt + completion])
        logits = network.eval()(tokens, attention_mask=torch.ones_like(tokens)).logits[0, len(prompt) - 1 : -1]
        found = logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]
        worst = max(worst, (found - torch.tensor(row["logprobs"])).abs().max().item())
    return worst


def worst_score(network, rows, directory):
    """One row at a time, so that no padding is needed. The head of transformers has no bias: that is not compared."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    found = []
    for question, answer in zip(QUESTIONS, ANSWERS):
        tokens = tokenizer(question + answer + tokenizer.eos_token, add_special_tokens=False, return_tensors="pt")
        found.append(network.eval()(tokens["input_ids"]).logits[0, 0])
    differences = torch.stack(found) - torch.tensor([row["score"] for row in rows])
    return (differences - differences[0]).abs().max().item()


def main():
    parser = argparse.ArgumentParser(description="Adapters of every family in PEFT.")
    parser.add_argument("--temper", required=True, help="the program")
    parser.add_argument("--family", choices=FAMILIES, action="append", help="only this one")
    args = parser.parse_args()
    temper = str(Path(args.temper).resolve())
    logging.disable_progress_bar()
    is_right = True

    def tell(family, what, worst):
        nonlocal is_right
        is_right &= worst <= TOLERANCE
        print(json.dumps({"family": family, "what": what, "greatest_difference": worst}), flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        for family in args.family or FAMILIES:
            out = Path(scratch) / family
            out.mkdir()
            make_base(family, out / "base")
            train(temper, out)
            with torch.no_grad():
                base = AutoModelForCausalLM.from_pretrained(out / "base")
                network = PeftModel.from_pretrained(base, out / "sft/final/adapter")
                tell(family, "sft", worst_logprob(network, rows_of(temper, "logprobs", "sft/final", out)))
                base = AutoModelForSequenceClassification.from_pretrained(out / "base", num_labels=1)
                # Its end token pads, too, and transformers reads the score at the last token that does not.
                base.config.pad_token_id = None
                network = PeftModel.from_pretrained(base, out / "reward/final/adapter")
                scores = rows_of(temper, "score", "reward/final", out)
                tell(family, "reward", worst_score(network, scores, out / "reward/final"))

                torch.manual_seed(1)
                base = AutoModelForCausalLM.from_pretrained(out / "base")
                theirs = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=5, target_modules="all-linear"))
                for name, parameter in theirs.named_parameters():
                    if ".lora_" in name:
                        parameter.copy_(0.1 * torch.randn_like(parameter))
                theirs.save_pretrained(out / "theirs")
            merge = [temper, "merge", "--model", "theirs", "--base", "base", "--out", "merged", "--quiet"]
            subprocess.run(merge, cwd=out, check=True)
            with torch.no_grad():
                tell(family, "merge", worst_logprob(theirs, rows_of(temper, "logprobs", "merged", out)))
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
