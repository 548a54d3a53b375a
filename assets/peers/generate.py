"""Sampling speed of Hugging Face transformers on the models that Temper's `generate` bench uses.

    pip install -r requirements.txt
    python generate.py --threads 2 --repeats 5

Prints one JSON line for each model and batch size; the time is the median of the repeats, after one warm-up.
"""

import argparse
import json
import os
import statistics
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

PROMPT_TOKENS = 16
NEW_TOKENS = 48
PAD, END, FIRST_BYTE = 0, 3, 4


SHAPES = {
    "d128": dict(n_embd=128, n_layer=4, n_head=4, n_inner=512, vocab_size=260, n_positions=128, activation_function="relu"),
    "d256": dict(n_embd=256, n_layer=6, n_head=8, n_inner=1024, vocab_size=260, n_positions=128, activation_function="relu"),
    "gpt2": dict(n_embd=768, n_layer=12, n_head=12, n_inner=3072, vocab_size=50257, n_positions=1024),
}


def model(shape, attention):
    ids = dict(bos_token_id=1, eos_token_id=END, pad_token_id=PAD)
    config = GPT2Config(**shape, **ids, attn_implementation=attention)
    torch.manual_seed(0)
    return GPT2LMHeadModel(config).eval()


@torch.inference_mode()
def seconds_to_generate(model, batch):
    prompts = torch.randint(FIRST_BYTE, 260, (batch, PROMPT_TOKENS))
    start = time.perf_counter()
    output = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        min_new_tokens=NEW_TOKENS,
        max_new_tokens=NEW_TOKENS,
        use_cache=True,
    )
    seconds = time.perf_counter() - start
    assert output.shape == (batch, PROMPT_TOKENS + NEW_TOKENS)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa", help="transformers' default is sdpa")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    for name, shape in SHAPES.items():
        peer = model(shape, args.attention)
        for batch in (1, 32):
            seconds_to_generate(peer, batch)
            seconds = statistics.median(seconds_to_generate(peer, batch) for _ in range(args.repeats))
            line = {
                "name": f"generate_{name}_b{batch}",
                "peer": "transformers",
                "tokens_per_second": round(batch * NEW_TOKENS / seconds, 1),
                "seconds": round(seconds, 4),
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
