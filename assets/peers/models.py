"""Makes the models and data of the speed comparisons: random GPT-2s with a tokenizer of whole words, and texts of them.

    pip install -r requirements-bench.txt
    python models.py OUT

OUT gets three models, each with dropout 0 and 0.1 (`-dropout`): `d128` (4 layers, feed-forward 2048), `d256` (6 layers,
feed-forward 1024) and `gpt2` (GPT-2 small, 124 million parameters). Token i is the word `wi`, so the number of tokens of
a text is the number of its words, in every program. What is there already is not made again.
"""

import json
import pathlib
import random
import sys

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

PAD, BEGIN, END, UNKNOWN, FIRST_WORD = 0, 1, 2, 3, 4
SHAPES = {
    "d128": dict(n_embd=128, n_layer=4, n_head=4, n_inner=2048, vocab_size=260, n_positions=512),
    "d256": dict(n_embd=256, n_layer=6, n_head=8, n_inner=1024, vocab_size=260, n_positions=512),
    "gpt2": dict(n_embd=768, n_layer=12, n_head=12, n_inner=3072, vocab_size=50257, n_positions=1024),
}
# Rows in each data file: more than any comparison reads.
ROWS = 400


def words(generator, vocab_size, n):
    return " ".join(f"w{generator.randrange(FIRST_WORD, vocab_size)}" for _ in range(n))


def save_tokenizer(vocab_size, directory):
    vocab = {f"w{i}": i for i in range(vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=f"w{UNKNOWN}"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = dict(pad_token=f"w{PAD}", bos_token=f"w{BEGIN}", eos_token=f"w{END}", unk_token=f"w{UNKNOWN}")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(directory)


def save_model(shape, directory, dropout, weights=None):
    rates = dict(resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout)
    ids = dict(bos_token_id=BEGIN, eos_token_id=END, pad_token_id=PAD)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**shape, **rates, **ids))
    if weights is not None:
        model.load_state_dict(weights)
    model.save_pretrained(directory)
    save_tokenizer(shape["vocab_size"], directory)
    return model.state_dict()


def save_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def save_data(vocab_size, directory):
    generator = random.Random(0)
    text = lambda n: words(generator, vocab_size, n)
    directory.mkdir(parents=True, exist_ok=True)
    for n in (128, 256):
        save_rows(directory / f"texts-{n}.jsonl", [{"text": text(n)} for _ in range(ROWS)])
    pairs = [{"prompt": text(32), "chosen": " " + text(64), "rejected": " " + text(64)} for _ in range(ROWS)]
    save_rows(directory / "pairs.jsonl", pairs)
    for n in (32, 100):
        save_rows(directory / f"prompts-{n}.jsonl", [{"prompt": text(n)} for _ in range(ROWS)])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1])
    for name, shape in SHAPES.items():
        done = out / name / "data"
        if done.is_dir():
            continue
        weights = save_model(shape, out / name, 0.0)
        save_model(shape, out / f"{name}-dropout", 0.1, weights)
        save_data(shape["vocab_size"], done)


if __name__ == "__main__":
    main()
