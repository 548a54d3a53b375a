"""Seconds of an SFT step of plain PyTorch on a GPT-2: forward, cross-entropy, backward, clip of the norm, AdamW.

    pip install -r requirements-bench.txt
    python sft_step.py --model DIR --batch 8 --tokens 128 --steps 12 [--compile]

Prints one JSON line; the median of the steps after the first three counts. `matrix_gflops` is what a product of two
matrices of 2048 rows and columns reaches in the same process, which bounds every program here.
"""

import argparse
import json
import os
import statistics
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import GPT2LMHeadModel

WARM_UP = 3


def matrix_gflops(size=2048, repeats=5):
    a, b = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds) / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    gflops = matrix_gflops()
    model = GPT2LMHeadModel.from_pretrained(args.model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    vocab_size = model.config.vocab_size

    def loss_of(ids):
        logits = model(ids).logits[:, :-1]
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    if args.compile:
        loss_of = torch.compile(loss_of)
    seconds = []
    for _ in range(WARM_UP + args.steps):
        ids = torch.randint(4, vocab_size, (args.batch, args.tokens))
        began = time.perf_counter()
        loss = loss_of(ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        seconds.append(time.perf_counter() - began)
    line = {"peer": "torch.compile" if args.compile else "torch", "step_seconds": statistics.median(seconds[WARM_UP:])}
    print(json.dumps(line | {"loss": loss.item(), "matrix_gflops": gflops}))


if __name__ == "__main__":
    main()
