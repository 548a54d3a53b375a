"""Compares what Temper and transformers write with chat templates.

    pip install transformers==5.24.0 jinja2==3.1.6
    pip install --no-deps trl==1.16.0
    cargo build --release -p temper-tokenizer --example render_chat
    python check_chat_templates.py --render target/release/examples/render_chat

The templates are those that TRL ships, or those given by `--templates`; the conversations are those of
assets/goldens/chat_templates.py. A template that fails must fail in both, and a refusal must have the template's own
message. It prints one JSON line and exits with 1 if anything differs.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "goldens"))

from chat_templates import CONVERSATIONS, DATE, SPECIAL_TOKENS, read, render


def shipped():
    return sorted(Path(importlib.util.find_spec("trl").origin).with_name("chat_templates").glob("*.jinja"))


def equal(expected, got):
    if "text" in expected or "text" in got:
        return expected.get("text") == got.get("text")
    # A message that is long or has several lines is shortened for the error's one line.
    return "fails" in expected or " ".join(expected["refused"].split())[:300] in got["error"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--render", required=True, help="the example `render_chat` of temper-tokenizer")
    parser.add_argument("--templates", nargs="+", type=Path)
    args = parser.parse_args()
    cases = [
        (path.stem, read(path), name, prompt)
        for path in args.templates or shipped()
        for name in CONVERSATIONS
        for prompt in (False, True)
    ]
    requests = [
        {
            "source": source,
            "special_tokens": SPECIAL_TOKENS,
            "date": DATE,
            "messages": CONVERSATIONS[name],
            "add_generation_prompt": prompt,
        }
        for _, source, name, prompt in cases
    ]
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    run = subprocess.run([args.render], input=lines, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True)
    answers = [json.loads(line) for line in run.stdout.split("\n") if line]
    different = {}
    counts = {"text": 0, "refused": 0, "fails": 0}
    for (template, source, name, prompt), got in zip(cases, answers, strict=True):
        expected = render(source, CONVERSATIONS[name], prompt)
        counts[next(iter(expected))] += 1
        if not equal(expected, got):
            different[f"{template} {name} {prompt}"] = [expected, got]
    for where, (expected, got) in different.items():
        print(where, json.dumps(expected)[:600], json.dumps(got)[:600], sep="\n  ", file=sys.stderr)
    print(json.dumps({"templates": len({case[0] for case in cases}), **counts, "different": len(different)}))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
