"""The notebook's three stages in PyTorch, timed: the peer of `temper`'s `notebook` recipe.

    pip install -r requirements.txt
    python notebook.py --threads 2 --seed 0

This is the notebook's work, defects included: the policy starts from random weights, its prompts end with an end
token, log-probabilities carry no gradient, logits and values come from two forward passes, and generation keeps no
keys and values. It prints one JSON line; `seconds` runs from after the imports, `process_seconds` from before them.
"""

import time

PROCESS_START = time.perf_counter()

import argparse
import copy
import json
import math

import torch
import torch.nn.functional as F
from torch import nn

PAD, BEGIN, SEPARATOR, END, FIRST_BYTE, VOCAB = 0, 1, 2, 3, 4, 260
MAX_LEN, D_MODEL, HEADS, LAYERS, DROPOUT = 128, 128, 4, 4, 0.1
NO_LOSS = -100
NEW_TOKENS = 32

DEMONSTRATIONS = [
    ("What is AI?", "AI is technology that can simulate human intelligence."),
    ("What is 1+1?", "1+1 equals 2."),
    ("Write a greeting", "Hello, nice to meet you!"),
    (
        "What is machine learning?",
        "Machine learning is technology that enables computers to learn from data.",
    ),
    ("How to protect the environment?", "Reduce waste, save energy, and travel green."),
]
COMPARISONS = [
    (
        "What is AI?",
        "AI is technology that can simulate human intelligence, such as speech recognition and image recognition.",
        "AI is just robots.",
    ),
    ("What is 1+1?", "The result of 1+1 is 2.", "1+1 might equal 3, depending on the situation."),
    (
        "Write a greeting",
        "Hello! I'm glad to have the opportunity to communicate with you.",
        "Hey, hello.",
    ),
    (
        "What is machine learning?",
        "Machine learning is a branch of artificial intelligence that enables computers to learn and improve from data.",
        "Machine learning is teaching machines to read.",
    ),
]


def encode(instruction, response):
    """Padded ids, which of them are real, and next-token labels after the separator."""
    ids = [BEGIN, *(b + FIRST_BYTE for b in f"Instruct:{instruction}".encode()), SEPARATOR]
    ids += [*(b + FIRST_BYTE for b in response.encode()), END]
    if len(ids) > MAX_LEN:
        ids = ids[: MAX_LEN - 1] + [END]
    ids = torch.tensor(ids + [PAD] * (MAX_LEN - len(ids)))
    labels = torch.cat([ids[1:], torch.tensor([END])])
    labels[: ids.tolist().index(SEPARATOR) + 1] = NO_LOSS
    labels[ids == PAD] = NO_LOSS
    return ids, (ids != PAD).long(), labels


class Decoder(nn.Module):
    def __init__(self, tied=True):
        super().__init__()
        self.tokens = nn.Embedding(VOCAB, D_MODEL, padding_idx=PAD)
        self.positions = nn.Embedding(MAX_LEN, D_MODEL)
        layer = nn.TransformerEncoderLayer(D_MODEL, HEADS, dropout=DROPOUT, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, LAYERS)
        self.head = nn.Linear(D_MODEL, VOCAB, bias=False)
        if tied:
            self.head.weight = self.tokens.weight
        self.dropout, self.norm = nn.Dropout(DROPOUT), nn.LayerNorm(D_MODEL)
        self.register_buffer("future", torch.ones(MAX_LEN, MAX_LEN).triu(1).bool())
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)
        if not tied:
            nn.init.normal_(self.head.weight, std=0.02)

    def hidden(self, ids, real):
        rows, seq = ids.shape
        columns = torch.arange(seq).expand(rows, seq)
        x = self.tokens(ids) * math.sqrt(D_MODEL) + self.positions(columns)
        x = self.norm(self.dropout(x))
        return self.blocks(x, mask=self.future[:seq, :seq], src_key_padding_mask=~real.bool())

    def forward(self, ids, real):
        return self.head(self.hidden(ids, real))


class RewardModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Decoder(tied=False)
        self.score = nn.Linear(D_MODEL, 1)

    def forward(self, ids, real):
        hidden = self.backbone.hidden(ids, real)
        separator = (ids == SEPARATOR).float().argmax(1, keepdim=True)
        answer = (torch.arange(ids.shape[1]) > separator) & real.bool()
        weight = answer.float().unsqueeze(-1)
        pooled = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
        return self.score(pooled).squeeze(-1)


class Policy(Decoder):
    def __init__(self):
        super().__init__()
        self.value = nn.Linear(D_MODEL, 1)
        nn.init.zeros_(self.value.bias)
        nn.init.normal_(self.value.weight, std=0.01)

    def logits_and_values(self, ids, real):
        return self(ids, real), self.value(self.hidden(ids, real)).squeeze(-1)


def update(model, optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def fine_tune():
    model = Decoder().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    data = [encode(*pair) for pair in DEMONSTRATIONS]
    for _ in range(30):
        losses = []
        for chosen in torch.randperm(len(data)).split(2):
            ids, real, labels = (torch.stack(part) for part in zip(*(data[i] for i in chosen)))
            loss = F.cross_entropy(model(ids, real).view(-1, VOCAB), labels.view(-1), ignore_index=NO_LOSS)
            update(model, optimizer, loss)
            losses.append(loss.item())
    return model, sum(losses) / len(losses)


@torch.no_grad()
def answer(model, instruction):
    ids, real, _ = encode(instruction, "")
    ids = ids[: real.sum()].unsqueeze(0)
    start = ids.shape[1]
    for _ in range(NEW_TOKENS):
        token = model(ids, torch.ones_like(ids))[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, token], 1)
        if token.item() == END:
            break
    return bytes(max(0, i - FIRST_BYTE) for i in ids[0, start:].tolist() if i not in (PAD, END))


def train_reward_model(sft):
    model = RewardModel()
    weights = {name: value for name, value in sft.state_dict().items() if not name.startswith("head.")}
    model.backbone.load_state_dict(weights, strict=False)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    good = [encode(instruction, chosen) for instruction, chosen, _ in COMPARISONS]
    bad = [encode(instruction, rejected) for instruction, _, rejected in COMPARISONS]
    for _ in range(50):
        order = torch.randperm(len(COMPARISONS))
        batch = [[torch.stack([side[i][part] for i in order]) for part in (0, 1)] for side in (good, bad)]
        chosen, rejected = (model(*side) for side in batch)
        loss = F.softplus(-(chosen - rejected)).mean()
        update(model, optimizer, loss)
        loss.item(), (chosen > rejected).float().mean().item()
    return model, loss.item()


@torch.no_grad()
def sample(policy, ids, top_p=0.9):
    """One rollout, token by token over the whole prefix: ids, log-probabilities and values."""
    policy.eval()
    logprobs, values = [], []
    for _ in range(min(NEW_TOKENS, MAX_LEN - ids.shape[1])):
        logits, value = policy.logits_and_values(ids, torch.ones_like(ids))
        probs = F.softmax(logits[:, -1], -1)
        ordered, order = probs.sort(descending=True, dim=-1)
        cut = (ordered.cumsum(-1) > top_p).float().argmax(-1, keepdim=True)
        nucleus = ordered.masked_fill(torch.arange(VOCAB) > cut, 0)
        nucleus = nucleus / (nucleus.sum(-1, keepdim=True) + 1e-12)
        token = order.gather(1, torch.multinomial(nucleus, 1))
        logprobs.append(probs.gather(1, token).log())
        values.append(value[:, -1])
        ids = torch.cat([ids, token], 1)
        if (token == END).all():
            break
    return ids, torch.cat(logprobs, 1), torch.stack(values, 1)


@torch.no_grad()
def completion_logprobs(model, ids, start):
    logprobs = F.log_softmax(model(ids, torch.ones_like(ids)), -1)[:, :-1]
    return logprobs.gather(2, ids[:, 1:, None]).squeeze(-1)[:, start - 1 :]


def advantages_and_returns(rewards, values, gamma=0.99, lam=0.95):
    advantages, following, length = torch.zeros_like(rewards), 0, rewards.shape[1]
    for t in reversed(range(length)):
        next_value = values[:, t + 1] if t + 1 < length else 0
        following = rewards[:, t] + gamma * next_value - values[:, t] + gamma * lam * following
        advantages[:, t] = following
    returns = advantages + values
    spread = advantages.std(1, keepdim=True) + 1e-8
    return (advantages - advantages.mean(1, keepdim=True)) / spread, returns


def optimise_policy(reward_model):
    policy = Policy()
    reference = copy.deepcopy(policy).eval()
    optimizer = torch.optim.Adam(policy.parameters(), lr=5e-5)
    tokens = 0
    for _ in range(16):
        instruction, _ = DEMONSTRATIONS[torch.randint(0, len(DEMONSTRATIONS), (1,)).item()]
        prompt, real, _ = encode(instruction, "")
        start = int(real.sum())
        ids, old_logprobs, old_values = sample(policy, prompt[None, :start])
        tokens += old_values.numel()
        everything = torch.ones_like(ids)
        with torch.no_grad():
            rewards = torch.zeros_like(old_logprobs)
            rewards[:, -1] = reward_model(ids, everything)
            kl = (old_logprobs - completion_logprobs(reference, ids, start)).mean().clamp_min(0)
            advantages, returns = advantages_and_returns(rewards, old_values)
        for _ in range(4):
            ratio = (completion_logprobs(policy, ids, start) - old_logprobs).exp()
            policy_loss = -torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()
            _, values = policy.logits_and_values(ids, everything)
            values = values[:, start:]
            clipped = old_values + (values - old_values).clamp(-0.2, 0.2)
            value_loss = 0.5 * torch.max((values - returns) ** 2, (clipped - returns) ** 2).mean()
            update(policy, optimizer, policy_loss + 0.5 * value_loss + 0.02 * kl)
    return tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    clock = [time.perf_counter()]

    def lap():
        clock.append(time.perf_counter())
        return clock[-1] - clock[-2]

    sft, sft_loss = fine_tune()
    sft_seconds = lap()
    sft.eval()
    for instruction, _ in DEMONSTRATIONS:
        answer(sft, instruction)
    answer_seconds = lap()
    reward_model, reward_loss = train_reward_model(sft.train())
    reward_seconds = lap()
    ppo_tokens = optimise_policy(reward_model)
    ppo_seconds = lap()
    line = {
        "name": "notebook",
        "peer": "pytorch",
        "seconds": clock[-1] - clock[0],
        "sft_seconds": sft_seconds,
        "answer_seconds": answer_seconds,
        "reward_seconds": reward_seconds,
        "ppo_seconds": ppo_seconds,
        "process_seconds": clock[-1] - PROCESS_START,
        "sft_loss": sft_loss,
        "reward_loss": reward_loss,
        "ppo_tokens": ppo_tokens,
    }
    print(json.dumps({key: round(v, 3) if isinstance(v, float) else v for key, v in line.items()}))


if __name__ == "__main__":
    main()
