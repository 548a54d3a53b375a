"""Opens a tokenizer that `temper tokenizer train` made in transformers, and compares it with Temper on real text.

    pip install -r requirements.txt
    python tokenizer_check.py --temper target/release/temper --tokenizer DIR --data stories.txt chats.jsonl

Every text of the data is encoded by both, a line of it at a time: the ids must be equal, and transformers must decode
them to the same bytes. Conversations of one to three messages must give the same ids by the chat template. A text that
spells a special token stays text in Temper alone, so transformers is told to split such tokens. It prints one JSON line
and exits with 1 if anything is wrong.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

from transformers import AutoTokenizer

# Texts that are known to be hard: spaces, signs of several bytes, names of special tokens, no text at all.
HARD = ["  two  spaces ", "\t\r\n", "1+1 等于几?", "🧪👩🏽‍🚀", "e\u0301", "don't 'll", "<|end|> <|user|>", "\u3000", "a\u200bb"]

# Linux has 128 KiB for one argument, and a character may take six bytes of JSON in it.
MOST_CHARS = 15_000


def strings(value):
    """Every text in a value of JSON."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    return [text for item in value for text in strings(item)] if hasattr(value, "__iter__") else []


def texts(path):
    """The lines of a plain text, or the texts of JSON lines."""
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8", newline="") as file:
        for line in file:
            yield from strings(json.loads(line)) if line.startswith("{") else [line]


def parts(text):
    """A text in parts that fit into an argument of a command."""
    return [text[start : start + MOST_CHARS] for start in range(0, len(text), MOST_CHARS)]


def groups(given):
    """Many texts at a time, so that the binary starts once for each group, with the index of the first."""
    start, length = 0, 0
    for end, text in enumerate(given):
        if length + len(text) > MOST_CHARS and end > start:
            yield start, given[start:end]
            start, length = end, 0
        length += len(text) + 40
    yield start, given[start:]


def temper_ids(temper, directory, messages):
    """The ids of a conversation, by Temper."""
    command = [temper, "tokenize", "--model", directory, "--json", "--messages", json.dumps(messages)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["input_ids"]


def main():
    parser = argparse.ArgumentParser(description="Compare a tokenizer of Temper's in transformers.")
    parser.add_argument("--temper", default="temper", help="the binary")
    parser.add_argument("--tokenizer", required=True, help="the directory")
    parser.add_argument("--data", nargs="+", required=True, help="plain text or JSON lines, gzipped or not")
    parser.add_argument("--every", type=int, default=1, help="decode and encode only every so many texts")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)

    given = HARD + [part for path in args.data for text in texts(path) for part in parts(text)][:: args.every]
    problems, n_tokens, n_bytes = [], 0, 0
    for start, group in groups(given):
        expected = [tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] for text in group]
        for text, ids in zip(group, expected):
            n_tokens, n_bytes = n_tokens + len(ids), n_bytes + len(text.encode())
            if tokenizer.decode(ids).encode() != text.encode():
                problems.append(f"transformers does not give back {text!r}")
        bos, end, user = (tokenizer.convert_tokens_to_ids(name) for name in ("<|begin|>", "<|end|>", "<|user|>"))
        whole = [bos] + [id for ids in expected for id in [user, *ids, end]]
        if temper_ids(args.temper, args.tokenizer, [{"role": "user", "content": text} for text in group]) != whole:
            problems.append(f"other ids among the texts {start} to {start + len(group)}")

    chat = [("system", "Be brief."), ("user", "What is 1+1?"), ("assistant", "It is 2.")]
    messages = [{"role": role, "content": content} for role, content in chat]
    for part in (messages, messages[1:], messages[1:2]):
        ids = tokenizer.apply_chat_template(part, tokenize=True, return_dict=False)
        if ids != temper_ids(args.temper, args.tokenizer, part):
            problems.append(f"other ids by the chat template for {part}")

    result = {"texts": len(given), "bytes": n_bytes, "tokens": n_tokens, "vocab_size": len(tokenizer)}
    print(json.dumps({**result, "problems": problems[:10]}))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
