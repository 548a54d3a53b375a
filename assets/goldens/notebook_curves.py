"""The notebook's training in PyTorch on five seeds: the spread in which Temper's curves must lie.

    python notebook_curves.py        writes notebook_curves.json; two minutes on two cores

Model and settings are the notebook's own: Adam at 1e-3 and 1e-4, gradients clipped at norm 1, 30 epochs of batches of
2, then 50 epochs of all comparisons. Its mistakes in the labels are not here: every token of an answer and its end
token is a target and padding is none, a comparison that is too long loses the left of its prompt, and the reward model
learns without dropout. One choice is Temper's, because it moves the curve: every layer starts from a draw of its own,
where nn.TransformerEncoder copies the first. With the notebook's choice the last epoch's loss is 1.34 to 1.59 on these
seeds.

    sft      mean of the batches' losses, for each seed and epoch
    reward   loss, for each seed and epoch
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from files import write_sections
from models import NotebookBackbone, Scalar

SEEDS = range(5)
SHAPE = {"vocab_size": 260, "max_seq_len": 128, "d_model": 128, "n_layers": 4, "n_heads": 4, "d_ff": 2048}
DATA = Path(__file__).resolve().parent.parent / "recipes" / "notebook"
PAD, BEGIN, SEPARATOR, END, FIRST_BYTE = 0, 1, 2, 3, 4


def read(name):
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def encode(prompt, completion):
    """[BOS]Instruct:…[SEP] and …[EOS], and how long the former is."""

    def ids(text):
        return [FIRST_BYTE + byte for byte in text.encode()]

    completion = ids(completion) + [END]
    frame, text = len(ids("Instruct:")) + 2, ids(prompt)
    room = SHAPE["max_seq_len"] - frame - len(completion)
    prompt = [BEGIN] + ids("Instruct:") + text[max(0, len(text) - room) :] + [SEPARATOR]
    return prompt + completion, len(prompt)


def collate(examples):
    seq = max(len(row) for row, _ in examples)
    tokens = torch.tensor([row + [PAD] * (seq - len(row)) for row, _ in examples])
    return tokens, tokens != PAD, [prompt_len for _, prompt_len in examples]


def descend(optimizer, module, loss):
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def supervised(backbone, examples):
    """Batches of 2, 2 and 1, shuffled anew each epoch."""
    optimizer, curve = torch.optim.Adam(backbone.parameters(), lr=1e-3), []
    for _ in range(30):
        losses = []
        for batch in torch.randperm(len(examples)).split(2):
            tokens, real, prompt_lens = collate([examples[i] for i in batch])
            columns = torch.arange(1, tokens.shape[1])
            counts = real[:, 1:] & (columns >= torch.tensor(prompt_lens)[:, None])
            logits = F.linear(backbone(tokens, real)[:, :-1][counts], backbone.tokens.weight)
            losses.append(descend(optimizer, backbone, F.cross_entropy(logits, tokens[:, 1:][counts])))
        curve.append(sum(losses) / len(losses))
    return curve


def compare(model, chosen, rejected):
    optimizer, curve = torch.optim.Adam(model.parameters(), lr=1e-4), []
    tokens, real, prompt_lens = collate(chosen + rejected)
    for _ in range(50):
        better, worse = model(tokens, real, prompt_lens).chunk(2)
        curve.append(descend(optimizer, model, -F.logsigmoid(better - worse).mean()))
    return curve


def curves(seed):
    torch.manual_seed(seed)
    backbone = NotebookBackbone(**SHAPE, dropout=0.1).train()
    backbone.blocks.layers = nn.ModuleList(
        nn.TransformerEncoderLayer(SHAPE["d_model"], SHAPE["n_heads"], SHAPE["d_ff"], 0.1, batch_first=True)
        for _ in range(SHAPE["n_layers"])
    )
    for embedding in (backbone.tokens, backbone.positions):
        nn.init.normal_(embedding.weight, std=0.02)
    demonstrations = [encode(row["prompt"], row["completion"]) for row in read("demonstrations.jsonl")]
    sft = supervised(backbone, demonstrations)

    model = Scalar(backbone, "mean", SHAPE["d_model"])
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    rows = read("comparisons.jsonl")
    chosen, rejected = ([encode(row["prompt"], row[side]) for row in rows] for side in ("chosen", "rejected"))
    return sft, compare(model, chosen, rejected)


def main():
    found = [curves(seed) for seed in SEEDS]
    rounded = [[[round(loss, 6) for loss in curve] for curve in pair] for pair in found]
    golden = {"seeds": list(SEEDS), "sft": [sft for sft, _ in rounded], "reward": [reward for _, reward in rounded]}
    write_sections(Path(__file__).resolve().parent / "notebook_curves.json", golden)
    for seed, (sft, reward) in zip(SEEDS, rounded):
        print(f"seed {seed}: sft {sft[0]:.3f} to {sft[-1]:.3f}, reward {reward[0]:.3f} to {reward[-1]:.4f}")


if __name__ == "__main__":
    main()
