#!/usr/bin/env python3
"""Compares an instruct model in Temper with the same model in transformers: the ids of whole chats, the log-probabilities of
their last answers, and greedy answers of 64 tokens.

    python assets/peers/chat_check.py --temper target/release/temper --model DIR

It needs torch and transformers (assets/goldens/requirements.txt). It prints one line of JSON and fails if a difference is
too large.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = [
    "What is the capital of France?",
    "Name three colours.",
    "Write one sentence about the sea.",
    "How do I boil an egg?",
    "What is 12 times 3?",
    "Translate 'good morning' into French.",
    "Why is the sky blue?",
    "Give me a title for a story about a lost dog.",
    "List two uses of a hammer.",
    "Say hello to Ann.",
]
ANSWERS = ["I am not sure.", "Gladly! Here it is.", "That depends on what you need."]
SYSTEM = {"role": "system", "content": "You are a patient teacher."}


def chats():
    """Ten chats of one to three turns, every other one with a system message."""
    for number, prompt in enumerate(PROMPTS):
        messages = [SYSTEM] if number % 2 else []
        for turn in range(number % 3 + 1):
            question = prompt if turn == 0 else PROMPTS[(number + turn) % len(PROMPTS)]
            messages += [
                {"role": "user", "content": question},
                {"role": "assistant", "content": ANSWERS[(number + turn) % len(ANSWERS)]},
            ]
        yield messages


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--temper", required=True)
    parser.add_argument("--model", required=True)
    args = parser.parse_args()

    def temper(command, *arguments):
        line = [args.temper, command, "--model", args.model, *arguments]
        return subprocess.run(line, check=True, capture_output=True, text=True).stdout.splitlines()

    def write(rows):
        path = pathlib.Path(tempfile.mkdtemp()) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()

    def encode(messages, **options):
        ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **options)["input_ids"]
        return ids

    other_ids = 0
    for messages in chats():
        ours = json.loads(temper("tokenize", "--messages", json.dumps(messages), "--json")[0])
        other_ids += ours["input_ids"] != encode(messages)

    greatest = 0.0
    for line in temper("logprobs", "--data", write({"messages": messages} for messages in chats())):
        row = json.loads(line)
        ids = row["prompt_tokens"] + row["completion_tokens"]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        theirs = torch.log_softmax(logits, -1)[range(len(ids) - 1), ids[1:]][len(row["prompt_tokens"]) - 1 :]
        greatest = max(greatest, (theirs - torch.tensor(row["logprobs"])).abs().max().item())

    rows = write({"prompt": prompt} for prompt in PROMPTS)
    answers = temper("generate", "--data", rows, "--greedy", "--max-new-tokens", "64", "--json")
    other_answers = 0
    for prompt, line in zip(PROMPTS, answers, strict=True):
        ids = encode([{"role": "user", "content": prompt}], add_generation_prompt=True)
        output = model.generate(torch.tensor([ids]), max_new_tokens=64, do_sample=False)[0][len(ids) :]
        other_answers += tokenizer.decode(output, skip_special_tokens=True) != json.loads(line)["completion"]

    result = {
        "chats": len(PROMPTS),
        "chats with other ids": other_ids,
        "greatest difference of log-probabilities": greatest,
        "greedy answers that differ": other_answers,
    }
    print(json.dumps(result))
    sys.exit(other_ids + other_answers > 0 or greatest > 1e-3)


if __name__ == "__main__":
    main()
