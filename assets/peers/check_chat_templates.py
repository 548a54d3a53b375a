"""Compares what Temper and transformers write with chat templates.

    pip install transformers==5.24.0 jinja2==3.1.6
    pip install --no-deps trl==1.16.0
    cargo build --release -p temper-tokenizer --example render_chat
    python check_chat_templates.py --render target/release/examples/render_chat

The templates are those that TRL ships, or those given by `--templates`; the conversations are those of
assets/goldens/chat_templates.py. A template that fails must fail in both, and a refusal must have the template's own
message. It prints one JSON line and exits with 1 if anything differs.

With `--stored`, what transformers writes is read from assets/goldens/chat_templates.json, which has the results of the
72 templates of trl 1.16.0 but not the templates. Then nothing but the templates is needed:

    python check_chat_templates.py --stored --render target/release/examples/render_chat --templates DIR/*.jinja
"""

import argparse
import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

GOLDENS = Path(__file__).parent.parent / "goldens"


class Live:
    """What transformers writes now."""

    def __init__(self):
        sys.path.insert(0, str(GOLDENS))
        import chat_templates

        self.conversations, self.date = chat_templates.CONVERSATIONS, chat_templates.DATE
        self.special_tokens = chat_templates.SPECIAL_TOKENS
        self.render = chat_templates.render

    def expected(self, template, source, name, prompt):
        return self.render(source, self.conversations[name], prompt)


class Stored:
    """What transformers wrote when the golden file was made."""

    def __init__(self):
        golden = json.loads((GOLDENS / "chat_templates.json").read_text())
        self.conversations = {row["name"]: row["messages"] for row in golden["conversations"]}
        self.date, self.special_tokens = golden["date"], golden["special_tokens"]
        self.peers, self.texts = golden["peers"], golden["texts"]

    def expected(self, template, source, name, prompt):
        peer = self.peers.get(template)
        if peer is None or peer["sha256"] != sha256(source):
            sys.exit(f"{template} is not one of the templates that transformers has rendered")
        return self.texts[peer["results"][list(self.conversations).index(name)][prompt]]


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def read(path):
    return path.read_bytes().decode()


def shipped():
    return sorted(Path(importlib.util.find_spec("trl").origin).with_name("chat_templates").glob("*.jinja"))


def equal(expected, got):
    if "sha256" in expected:
        return "text" in got and sha256(got["text"]) == expected["sha256"]
    if "text" in expected or "text" in got:
        return expected.get("text") == got.get("text")
    # A message that is long or has several lines is shortened for the error's one line.
    return "fails" in expected or " ".join(expected["refused"].split())[:300] in got["error"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--render", required=True, help="the example `render_chat` of temper-tokenizer")
    parser.add_argument("--templates", nargs="+", type=Path)
    parser.add_argument("--stored", action="store_true", help="compare with the golden file, without transformers")
    args = parser.parse_args()
    peer = Stored() if args.stored else Live()
    cases = [
        (path.stem, read(path), name, prompt)
        for path in args.templates or shipped()
        for name in peer.conversations
        for prompt in (False, True)
    ]
    requests = [
        {
            "source": source,
            "special_tokens": peer.special_tokens,
            "date": peer.date,
            "messages": peer.conversations[name],
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
        expected = peer.expected(template, source, name, prompt)
        counts["text" if "sha256" in expected else next(iter(expected))] += 1
        if not equal(expected, got):
            different[f"{template} {name} {prompt}"] = [expected, got]
    for where, (expected, got) in different.items():
        print(where, json.dumps(expected)[:600], json.dumps(got)[:600], sep="\n  ", file=sys.stderr)
    print(json.dumps({"templates": len({case[0] for case in cases}), **counts, "different": len(different)}))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
