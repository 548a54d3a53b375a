"""How time and memory of a step grow with the length, the batch, the width and the number of answers.

    pip install -r requirements-bench.txt
    python curves.py --temper target/release/temper --models target/bench --out docs/curves.svg

Every point is the median time from the end of a step to the end of the next, and the highest memory of the process.
The slope is that of a straight line through the logarithms of the last two points: 1 is linear, 2 is quadratic.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import tempfile

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

import models

WIDTH_SHAPE = dict(n_layer=4, vocab_size=260, n_positions=1024)
# What is varied, its values, the number of steps, and the command for one value.
CURVES = [
    ("tokens of a row (SFT, 4 rows, width 256)", [64, 128, 256, 512, 1024], 6, "sft_length"),
    ("rows of a batch (SFT, 128 tokens, width 256)", [1, 2, 4, 8, 16, 32, 64], 6, "sft_batch"),
    ("width (SFT, 8 rows of 128 tokens, 4 layers)", [64, 128, 256, 512, 1024], 5, "sft_width"),
    ("answers to a prompt (GRPO, 4 prompts of 100 tokens, answers of 48, width 256)", [2, 4, 8, 16, 32], 4, "answers"),
]


def prepare(directory):
    """Models of every width, and texts of 1,024 tokens, unless they are there."""
    for width in CURVES[2][1]:
        if not (directory / f"width-{width}").is_dir():
            shape = dict(n_embd=width, n_head=max(1, width // 32), n_inner=4 * width, **WIDTH_SHAPE)
            models.save_model(shape, directory / f"width-{width}", 0.0)
    data = directory / "texts-1024.jsonl"
    if not data.is_file():
        generator = models.random.Random(0)
        models.save_rows(data, [{"text": models.words(generator, 260, 1024)} for _ in range(models.ROWS)])
    return data


def command(kind, value, directory, data):
    sft = f"sft --data {data} --set samples=0"
    if kind == "sft_length":
        return f"{sft} --model {directory}/width-256 --set batch_size=4 --set max_seq_len={value}"
    if kind == "sft_batch":
        return f"{sft} --model {directory}/width-256 --set batch_size={value} --set max_seq_len=128"
    if kind == "sft_width":
        return f"{sft} --model {directory}/width-{value} --set batch_size=8 --set max_seq_len=128"
    prompts = directory / "d256/data/prompts-100.jsonl"
    return (
        f"ppo --policy {directory}/width-256 --prompts {prompts} --reward-program 'awk \"{{print length($0); fflush()}}\"'"
        f" --set advantage.kind=grpo --set batch_size=4 --set rollout.samples_per_prompt={value}"
        " --set rollout.max_new_tokens=48 --set kl.coef=0.05 --set samples=0"
    )


def measure(temper, line, steps, threads):
    """Seconds of a step, and the highest memory in MiB."""
    with tempfile.TemporaryDirectory() as run:
        line = f"{temper} {line} --set max_steps={steps} --set checkpoint_every=0 --seed 0 --quiet --out {run}/run"
        environment = dict(os.environ, RAYON_NUM_THREADS=str(threads))
        process = subprocess.Popen(line, shell=True, env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            raise SystemExit(f"failed: {line}")
        rows = [json.loads(row) for row in open(f"{run}/run/metrics.jsonl")]
    ends = [row["time/elapsed_seconds"] for row in rows if "tokens_per_second" in row]
    return statistics.median(b - a for a, b in zip(ends, ends[1:])), usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--temper", required=True, type=pathlib.Path)
    parser.add_argument("--models", required=True, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    data = prepare(args.models)
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for axis, (what, values, steps, kind) in zip(axes.flat, CURVES):
        points = [measure(args.temper, command(kind, x, args.models, data), steps, args.threads) for x in values]
        seconds, memory = zip(*points)
        slope = math.log(seconds[-1] / seconds[-2]) / math.log(values[-1] / values[-2])
        for value, second, mib in zip(values, seconds, memory):
            print(json.dumps({"curve": kind, "value": value, "seconds": round(second, 4), "peak_mib": round(mib)}))
        print(json.dumps({"curve": kind, "slope": round(slope, 2)}), flush=True)
        axis.loglog(values, seconds, "o-", color="tab:blue", base=2)
        axis.set(xlabel=what, ylabel="seconds of a step", xticks=values, xticklabels=values)
        axis.minorticks_off()
        axis.set_title(f"slope {slope:.2f} at the end", fontsize="medium")
        other = axis.twinx()
        other.loglog(values, memory, "s--", color="tab:gray", base=2)
        other.set_ylabel("highest memory in MiB (gray)")
    figure.savefig(args.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
