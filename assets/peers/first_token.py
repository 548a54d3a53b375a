"""The first token of an answer by transformers, from the start of the process; the caller takes the time.

    pip install -r requirements-bench.txt
    python first_token.py --model DIR --prompt TEXT
"""

import argparse
import json
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    inputs = tokenizer(args.prompt, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        model.generate(**inputs, do_sample=False, max_new_tokens=1)
    print(json.dumps({"peer": "transformers"}))


if __name__ == "__main__":
    main()
