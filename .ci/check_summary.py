"""Checks that a pipeline has written every key of its summary, with numbers in their ranges.

    python3 check_summary.py runs/notebook
"""

import json
import math
import sys
from pathlib import Path

KEYS = {
    "": ["recipe", "backend", "seed", "threads", "sft", "reward", "ppo", "judge", "seconds", "peak_rss_bytes"],
    "sft": ["loss_first", "loss_last", "seconds", "tokens_per_second"],
    "reward": ["accuracy_heldout", "accuracy_same_manner", "loss_last", "seconds"],
    "ppo": ["score_first", "score_last", "kl_last", "seconds", "rollout_tokens_per_second"],
    "judge": ["gold_sft", "gold_ppo", "right_sft", "right_ppo", "eos_rate", "win_rate", "win_rate_ci95", "prompts"],
}
# The notebook's four comparisons say nothing about manners.
MAY_BE_NULL = {"accuracy_same_manner"}

run = Path(sys.argv[1])
summary = json.loads((run / "summary.json").read_text())
for section, keys in KEYS.items():
    values = summary[section] if section else summary
    for key in keys:
        if key not in values:
            sys.exit(f"{run}/summary.json: no `{section}.{key}`")
        value = values[key]
        bad = value is None and key not in MAY_BE_NULL
        if bad or isinstance(value, float) and not math.isfinite(value):
            sys.exit(f"{run}/summary.json: `{section}.{key}` is {value}")
if not summary["sft"]["loss_last"] < summary["sft"]["loss_first"]:
    sys.exit(f"{run}: SFT has not learned: {summary['sft']}")
low, high = summary["judge"]["win_rate_ci95"]
if not 0 <= low <= summary["judge"]["win_rate"] <= high <= 1:
    sys.exit(f"{run}: no interval: {summary['judge']}")
page = (run / "report.html").read_text()
if "</html>" not in page:
    sys.exit(f"{run}/report.html is not whole")
print(f"{run}: {summary['seconds']:.0f} s, {summary['peak_rss_bytes'] >> 20} MiB, judge {summary['judge']}")
