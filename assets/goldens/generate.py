"""Golden numbers for `tests/parity`: PyTorch evaluates the same models and formulas, in float64.

    pip install -r requirements.txt
    python generate.py            writes the files next to this script
    python generate.py --check    generates them again elsewhere and compares

Weights and inputs come from numpy's seeded generator and are float32 numbers; everything computed from them is
float64 until it is stored. What a test finds is therefore the rounding of the code under test alone.

    <model>/config.json, model.safetensors   a model directory that Temper loads
    <model>/golden.safetensors               row.N, prompt_lens: input tokens (right-padded here)
                                             logits: [real tokens of all rows, vocab]
                                             grad.<weight>: of the loss over the completions, in the file's own layout
                                             losses, norms: of three steps of AdamW, before each; norms before clipping
                                             after.<weight>: after the third step
                                             greedy.N: twenty greedy tokens after the prompt of row N (families.py)
    <model>-lora/                            an adapter of PEFT, with the same numbers for A and B alone (adapters.py)
    <model>-scalar/                          scores of a model of transformers with a scalar head (families.py)
    <model>-reward/                          scores [rows] and values [real tokens of all rows] instead of logits
    maths.json                               formulas without a model (maths.py)
    dpo.json, dpo.safetensors                the loss of DPO, and its gradients for one of the models (dpo.py)
    ppo/<case>.json, <case>.safetensors      one update of PPO on a given rollout (ppo.py; groups.py without a critic)

notebook_curves.json has a script of its own, notebook_curves.py: it takes minutes, and a curve of float32 training is
not the same on every machine.
"""

import argparse
import json
import math
import os
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers.utils import logging

from adapters import write_adapters
from dpo import write_dpo
from families import write_families
from groups import write_groups
from maths import write_maths
from models import write_models
from ppo import write_ppo

CHECK_TOLERANCE = 1e-5
OTHER_SCRIPTS = {"notebook_curves.json", "chat_templates.json", "chat_ids.json"}


def generate(out):
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    write_models(out)
    write_families(out)
    write_adapters(out)
    write_maths(out)
    write_dpo(out)
    write_ppo(out)
    write_groups(out)


def files(directory):
    found = {str(p.relative_to(directory)) for kind in ("json", "safetensors") for p in directory.rglob(f"*.{kind}")}
    return found - OTHER_SCRIPTS


def differences(found, expected, where):
    """Places where two values are not the same: numbers by the tolerance, all else exactly."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in expected.keys() | found.keys():
            yield from differences(found.get(key), expected.get(key), f"{where} {key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for i, (a, b) in enumerate(zip(found, expected)):
            yield from differences(a, b, f"{where}[{i}]")
    elif isinstance(expected, np.ndarray) and isinstance(found, np.ndarray):
        same = found.shape == expected.shape and found.dtype == expected.dtype
        if not same or not np.allclose(found, expected, rtol=CHECK_TOLERANCE, atol=CHECK_TOLERANCE):
            yield where
    elif isinstance(expected, float) and isinstance(found, (int, float)):
        if not math.isclose(found, expected, rel_tol=CHECK_TOLERANCE, abs_tol=CHECK_TOLERANCE):
            yield where
    elif found != expected:
        yield where


def check(here):
    def read(path):
        return load_file(path) if path.suffix == ".safetensors" else json.loads(path.read_text())

    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        generate(fresh)
        wrong = [f"{name} is on one side only" for name in sorted(files(here) ^ files(fresh))]
        for name in sorted(files(here) & files(fresh)):
            wrong += differences(read(here / name), read(fresh / name), name)
    for line in wrong:
        print(f"differs: {line}", file=sys.stderr)
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser(description="Golden numbers for tests/parity.")
    parser.add_argument("--check", action="store_true", help="compare a fresh generation with the files here")
    here = Path(__file__).resolve().parent
    if parser.parse_args().check:
        return check(here)
    generate(here)
    return 0


if __name__ == "__main__":
    sys.exit(main())
