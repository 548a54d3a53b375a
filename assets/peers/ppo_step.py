"""Seconds of a PPO iteration in plain PyTorch, as fast as we could write it: the peer of `temper ppo` with a critic.

    python ppo_step.py --model DIR --data FILE --answers 64 --passes 4 --minibatch 16 --steps 3

Policy, reference, reward model and critic are GPT-2s of one size. Each iteration samples one answer of 48 tokens to each
prompt through a cache of keys and values, records log-probabilities, values and scores without gradients, and makes
`--passes` passes of clipped updates of policy and critic. Everything reads only the places that matter: the head over
the vocabulary sees the answers and not the prompts. All prompts have the same number of tokens, so there is no padding.
The first iteration does not count.
"""

import argparse
import json
import os
import statistics
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import torch.nn.functional as F
from transformers import AutoTokenizer, DynamicCache, GPT2LMHeadModel, GPT2Model

NEW_TOKENS = 48
KL_COEF, CLIP, LAMBDA, LEARNING_RATE = 0.05, 0.2, 0.95, 1e-5


class Scalar(torch.nn.Module):
    """A backbone with one number for each token: a reward model or a critic."""

    def __init__(self, directory):
        super().__init__()
        self.backbone = GPT2Model.from_pretrained(directory)
        self.head = torch.nn.Linear(self.backbone.config.n_embd, 1)

    def forward(self, ids):
        return self.head(self.backbone(ids, use_cache=False).last_hidden_state).squeeze(-1)


@torch.inference_mode()
def sample(policy, prompts):
    cache = DynamicCache()
    ids, new = prompts, []
    for _ in range(NEW_TOKENS):
        logits = policy(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
        ids = torch.multinomial(F.softmax(logits, -1), 1)
        new.append(ids)
    return torch.cat([prompts, *new], 1)


def log_probs(policy, rows, start):
    hidden = policy.transformer(rows, use_cache=False).last_hidden_state[:, start - 1 : -1]
    logits = policy.lm_head(hidden)
    taken = logits.gather(-1, rows[:, start:].unsqueeze(-1)).squeeze(-1)
    return taken - logits.logsumexp(-1)


def in_chunks(function, rows, size):
    return torch.cat([function(chunk) for chunk in rows.split(size)])


def advantages_of(values, rewards):
    advantage, following, all_advantages = 0.0, 0.0, []
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + following - values[:, t]
        advantage = delta + LAMBDA * advantage
        following = values[:, t]
        all_advantages.append(advantage)
    return torch.stack(all_advantages[::-1], 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--answers", type=int, default=64)
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--minibatch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    with open(args.data) as lines:
        prompts = torch.tensor([tokenizer(json.loads(line)["prompt"])["input_ids"] for line in lines])
    policy, reference = (GPT2LMHeadModel.from_pretrained(args.model).eval() for _ in range(2))
    critic, reward_model = (Scalar(args.model).eval() for _ in range(2))
    optimizers = [torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE) for module in (policy, critic)]
    start = prompts.shape[1]
    rollout_seconds, update_seconds = [], []
    for step in range(args.steps + 1):
        began = time.perf_counter()
        first = step * args.answers % (len(prompts) - args.answers + 1)
        rows = sample(policy, prompts[first : first + args.answers])
        with torch.inference_mode():
            size = args.minibatch
            scores = in_chunks(lambda chunk: reward_model(chunk)[:, -1], rows, size)
            old = in_chunks(lambda chunk: log_probs(policy, chunk, start), rows, size)
            of_reference = in_chunks(lambda chunk: log_probs(reference, chunk, start), rows, size)
            values = in_chunks(lambda chunk: critic(chunk)[:, start - 1 : -1], rows, size)
            rewards = KL_COEF * (of_reference - old)
            rewards[:, -1] += scores
            advantages = advantages_of(values, rewards)
            returns = advantages + values
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        # Tensors of inference mode cannot be saved for a backward pass.
        rows, old, values, advantages, returns = (x.clone() for x in (rows, old, values, advantages, returns))
        recorded = time.perf_counter()
        for _ in range(args.passes):
            for index in torch.randperm(args.answers).split(args.minibatch):
                ratio = (log_probs(policy, rows[index], start) - old[index]).exp()
                clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
                policy_loss = torch.max(-advantages[index] * ratio, -advantages[index] * clipped).mean()
                new_values = critic(rows[index])[:, start - 1 : -1]
                near = values[index] + (new_values - values[index]).clamp(-CLIP, CLIP)
                errors = torch.max((new_values - returns[index]) ** 2, (near - returns[index]) ** 2)
                policy_loss.backward()
                (0.5 * errors.mean()).backward()
                for module, optimizer in zip((policy, critic), optimizers):
                    torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                    optimizer.step()
                    optimizer.zero_grad()
        ended = time.perf_counter()
        rollout_seconds.append(recorded - began)
        update_seconds.append(ended - recorded)
    rollout, update = (statistics.median(seconds[1:]) for seconds in (rollout_seconds, update_seconds))
    print(json.dumps({"peer": "torch", "step_seconds": rollout + update, "rollout_seconds": rollout, "update_seconds": update}))


if __name__ == "__main__":
    main()
