"""Compares the losses of the first SFT steps of several runs with those of the first one.

    python3 same_losses.py --steps 10 --tolerance 1e-3 runs/flex runs/ndarray runs/wgpu
"""

import argparse
import json
import math
import sys
from pathlib import Path


def losses(run, steps):
    lines = [json.loads(line) for line in (Path(run) / "sft/metrics.jsonl").read_text().splitlines()]
    found = [line["loss"] for line in lines if "loss" in line][:steps]
    if len(found) < steps:
        sys.exit(f"{run}: {len(found)} steps, {steps} are needed")
    return [math.nan if loss is None else loss for loss in found]


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--tolerance", type=float, default=1e-3)
parser.add_argument("runs", nargs="+")
args = parser.parse_args()

first, *others = args.runs
expected = losses(first, args.steps)
print(f"{first}: {expected[0]:.6f} to {expected[-1]:.6f}")
apart = False
for run in others:
    most = max((abs(a - b) for a, b in zip(expected, losses(run, args.steps))), key=lambda x: (math.isnan(x), x))
    print(f"{run}: at most {most:.2e} from {first} in {args.steps} steps")
    apart |= not most <= args.tolerance
if apart:
    sys.exit(f"losses differ by more than {args.tolerance}")
