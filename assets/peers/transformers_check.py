"""Opens a model directory that Temper wrote in transformers, and compares the log-probabilities of both.

    pip install -r requirements.txt
    temper logprobs --model DIR --data demonstrations.jsonl > logprobs.jsonl
    python transformers_check.py --model DIR --logprobs logprobs.jsonl --data demonstrations.jsonl

Every weight must be found under the name that transformers gives it and none may be left over: it would start a missing
one at random, and only warn. Each token's log-probability must be within the tolerance. With `--data`, rows of `prompt`
and `completion`, the chat template of a byte model must put them together as Temper does, to the same ids. It prints one
JSON line and exits with 1 if anything is wrong.
"""

import argparse
import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

# Two programs that sum float32 numbers in different orders, through at most a dozen blocks.
TOLERANCE = 1e-3


def chat_problems(model, data, rows):
    """Rows whose ids by the chat template are not those that Temper printed."""
    tokenizer = AutoTokenizer.from_pretrained(model)

    def ids(*messages):
        messages = [{"role": role, "content": content} for role, content in zip(("user", "assistant"), messages)]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    problems = []
    with open(data) as lines:
        for line, (given, row) in enumerate(zip(map(json.loads, lines), rows, strict=True), 1):
            prompt, whole = ids(given["prompt"]), ids(given["prompt"], given["completion"])
            if prompt != row["prompt_tokens"] or whole != prompt + row["completion_tokens"]:
                problems.append(f"{data}:{line}")
    return problems


def main():
    parser = argparse.ArgumentParser(description="Compare a directory of Temper's in transformers.")
    parser.add_argument("--model", required=True, help="a model directory, for example RUN/final")
    parser.add_argument("--logprobs", required=True, help="what `temper logprobs` printed for it")
    parser.add_argument("--data", help="the rows that it was printed for, to compare the chat template too")
    args = parser.parse_args()

    logging.disable_progress_bar()
    model, report = AutoModelForCausalLM.from_pretrained(args.model, output_loading_info=True)
    model.eval()
    problems = {name: sorted(map(str, found)) for name, found in report.items() if found}
    worst, tokens = 0.0, 0
    with open(args.logprobs) as lines:
        rows = [json.loads(line) for line in lines]
    if args.data:
        differs = chat_problems(args.model, args.data, rows)
        problems.update({"chat_template": differs} if differs else {})
    with torch.no_grad():
        for row in rows:
            prompt, completion = row["prompt_tokens"], row["completion_tokens"]
            logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
            found = logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]
            differences = (found - torch.tensor(row["logprobs"])).abs().tolist()
            # A NaN is greater than nothing, so that `max` would pass over it.
            worst = max([worst, *(d if d == d else float("inf") for d in differences)])
            tokens += len(completion)
    print(
        json.dumps(
            {
                "class": type(model).__name__,
                "parameters": model.num_parameters(),
                "tokens": tokens,
                "greatest_difference": worst,
                "tolerance": TOLERANCE,
                "problems": problems,
            }
        )
    )
    return 0 if tokens and worst <= TOLERANCE and not problems else 1


if __name__ == "__main__":
    sys.exit(main())
