"""One update of PPO on a given rollout, from the formulas: episodes one at a time, so there are no masks and no padding.

Policy, reference and critic are the golden models of models.py. The rows are what Temper samples from them at the seed in
the case's settings, and the minibatches what it draws; the tests check that they still are. Everything after that is
computed here.

    ppo/<case>.json          settings under Temper's own names, rollout, minibatches, metrics under TRL's names
    ppo/<case>.safetensors   policy.<weight>, critic.<weight>: after the update, in the files' own layout
"""

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

from files import write_sections
from models import (
    SHAPE,
    Gpt2Backbone,
    Gpt2Lm,
    NotebookBackbone,
    NotebookLm,
    Scalar,
    adamw,
    randomise,
    stored,
)

PROMPTS = [
    [1, 17, 40, 5, 33, 2],
    [1, 60, 12, 2],
    [1, 8, 8, 25, 2],
    [1, 44, 2],
    [1, 31, 7, 19, 52, 14, 2],
    [1, 27, 2],
]
SCORES = [0.75, -1.25, 2.0, 0.25, -0.5, 1.5]

# A critic of its own with a rate of its own; three epochs of minibatches of unequal size.
SEPARATE = {
    "config": {
        "max_steps": 1,
        "learning_rate": 2e-3,
        "batch_size": 6,
        "checkpoint_every": 0,
        "seed": 259,
        "rollout": {
            "max_new_tokens": 12,
            "temperature": 0.8,
            "missing_eos": "subtract",
            "missing_eos_value": 1.0,
        },
        "kl": {"coef": 0.05},
        "ppo": {"ppo_epochs": 3, "minibatch_size": 4, "microbatch_size": 1, "clip_range": 0.2, "value_clip_range": 0.15},
        "critic": {"kind": "reward_model", "learning_rate": 3e-3},
        "optimizer": {"beta_1": 0.9, "beta_2": 0.95, "epsilon": 1e-5, "weight_decay": 0.01, "max_grad_norm": 0.5},
    },
    "rows": [
        [1, 44, 2, 48, 3],
        [1, 27, 2, 3],
        [1, 31, 7, 19, 52, 14, 2, 46, 14, 47, 46, 31, 56, 16, 59, 10, 60, 4, 10],
        [1, 17, 40, 5, 33, 2, 16, 22, 53, 20, 21, 4, 40, 58, 46, 42, 47, 1],
        [1, 8, 8, 25, 2, 24, 60, 46, 14, 24, 59, 39, 39, 60, 59, 60, 43],
        [1, 60, 12, 2, 45, 29, 46, 48, 1, 1, 43, 45, 20, 10, 51, 29],
    ],
    "minibatches": [
        [[4, 1, 2, 3], [5, 0]],
        [[1, 4, 0, 3], [5, 2]],
        [[5, 1, 3, 2], [4, 0]],
    ],
}
# A value head on the policy, rewards of unit variance, an entropy bonus, a discount; four epochs of the whole rollout.
SHARED = {
    "config": {
        "max_steps": 1,
        "learning_rate": 2e-3,
        "batch_size": 6,
        "checkpoint_every": 0,
        "seed": 3,
        "rollout": {
            "max_new_tokens": 8,
            "temperature": 1.0,
            "missing_eos": "replace",
            "missing_eos_value": -1.0,
        },
        "kl": {"coef": 0.02},
        "ppo": {
            "ppo_epochs": 4,
            "minibatch_size": 0,
            "clip_range": 0.2,
            "value_clip_range": 0.02,
            "vf_coef": 0.5,
            "entropy_coef": 0.01,
            "gamma": 0.97,
            "gae_lambda": 0.9,
            "whiten_rewards": True,
        },
        "critic": {"kind": "value_head"},
        "optimizer": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-5, "weight_decay": 0.0, "max_grad_norm": 1.0},
    },
    "rows": [
        [1, 8, 8, 25, 2, 22, 38, 22, 40, 19, 17, 21, 38],
        [1, 60, 12, 2, 24, 60, 36, 25, 17, 52, 52, 52],
        [1, 31, 7, 19, 52, 14, 2, 52, 40, 4, 23, 3],
        [1, 17, 40, 5, 33, 2, 21, 53, 49, 44, 57, 28, 3],
        [1, 44, 2, 58, 45, 6, 52, 49, 22, 31, 58],
        [1, 27, 2, 27, 27, 23, 0, 50, 28, 26, 47],
    ],
    "minibatches": [[list(range(6))]] * 4,
}
# All of the paper at once on the rollout of the first case: the score one past the end, pretraining text in each update,
# the averaged policy, and TensorFlow's epsilon.
FULL = {
    "config": SEPARATE["config"]
    | {
        "ema_decay": 0.75,
        "rollout": SEPARATE["config"]["rollout"] | {"score_at": "past_end"},
        "ptx": {"coef": 1.5, "sequences_per_episode": 0.5},
        "optimizer": SEPARATE["config"]["optimizer"] | {"epsilon_style": "tensorflow", "epsilon": 1e-4},
    },
    "rows": SEPARATE["rows"],
    "minibatches": SEPARATE["minibatches"],
    # Each with its first target; the third is the rest of a longer text, without a start token of its own.
    "texts": [[[1, 50, 41, 9, 3], 1], [[1, 23, 58, 3], 1], [[35, 18, 18, 30, 3], 0]],
    # Half a row for each episode of a minibatch of four or two, from one shuffled pass after another.
    "text_minibatches": [[[2, 1], [0]], [[0, 2], [1]], [[2, 1], [0]]],
}
EOS = 3


class TensorFlowAdamW:
    """Epsilon next to the root that is not corrected for its bias; the correction is in the step size."""

    def __init__(self, module, settings):
        self.parameters, self.settings, self.updates = list(module.parameters()), settings, 0
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters]

    def zero_grad(self):
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self):
        rate, beta_1, beta_2 = (self.settings[name] for name in ("learning_rate", "beta_1", "beta_2"))
        self.updates += 1
        size = rate * (1 - beta_2**self.updates) ** 0.5 / (1 - beta_1**self.updates)
        for parameter, (first, second) in zip(self.parameters, self.moments):
            if parameter.grad is None:
                continue
            first.mul_(beta_1).add_((1 - beta_1) * parameter.grad)
            second.mul_(beta_2).add_((1 - beta_2) * parameter.grad**2)
            parameter.mul_(1 - rate * self.settings["weight_decay"])
            parameter.sub_(size * first / (second.sqrt() + self.settings["epsilon"]))


def optimizer_of(module, settings, learning_rate):
    settings = settings | {"learning_rate": learning_rate}
    if settings.get("epsilon_style") == "tensorflow":
        return TensorFlowAdamW(module, settings)
    return adamw(module, settings)


class ValueHead(nn.Module):
    """A critic on the policy's own hidden states, zero at the start."""

    def __init__(self, policy):
        super().__init__()
        self.backbone = policy.backbone
        self.score = nn.Linear(SHAPE["d_model"], 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def values(self, tokens, real):
        return self.score(self.backbone(tokens, real)).squeeze(2)

    weights = Scalar.weights


def forward(model, row):
    tokens = torch.tensor([row])
    return model(tokens, torch.ones_like(tokens, dtype=torch.bool))[0]


def completion_logprobs(policy, episode, temperature):
    """log π of each token of the completion, and the entropy where it was drawn: read one column before the token."""
    first, row = len(episode["prompt"]), episode["row"]
    log_probs = (forward(policy, row)[first - 1 : -1] / temperature).log_softmax(-1)
    taken = torch.tensor(row[first:])
    return log_probs[torch.arange(len(taken)), taken], -(log_probs.exp() * log_probs).sum(-1)


def completion_values(critic, episode):
    """The value of the state before each token of the completion; and of the one after the end, where the score is."""
    values = forward(critic.values, episode["row"])[len(episode["prompt"]) - 1 :]
    return values if episode["past_end"] else values[:-1]


def is_past_end(episode, rollout):
    """An answer that ends before the last place has room after its end."""
    ended, n = episode["row"][-1] == EOS, len(episode["row"]) - len(episode["prompt"])
    return rollout.get("score_at") == "past_end" and ended and n < rollout["max_new_tokens"]


def text_loss(policy, texts):
    """Mean negative log-likelihood of every token from the first target on, but for the first of a row."""
    found = []
    for tokens, first in texts:
        log_probs = forward(policy, tokens)[:-1].log_softmax(-1)
        taken = log_probs[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])]
        found.append(taken[max(first, 1) - 1 :])
    return -torch.cat(found).mean()


def final_score(episode, rollout):
    """A missing end costs something, or decides the score."""
    if episode["row"][-1] == EOS:
        return episode["score"]
    value = rollout["missing_eos_value"]
    return value if rollout["missing_eos"] == "replace" else episode["score"] - value


def advantages_and_returns(rewards, values, gamma, lam):
    """Backwards from the last token; nothing after it has a value."""
    advantages, advantage, next_value = [], 0.0, 0.0
    for reward, value in zip(reversed(rewards.tolist()), reversed(values.tolist())):
        advantage = reward + gamma * next_value - value + gamma * lam * advantage
        next_value = value
        advantages.insert(0, advantage)
    advantages = torch.tensor(advantages, dtype=torch.float64)
    return advantages, advantages + values


def standardise(parts, keep_mean):
    """All parts by one mean and one (biased) variance."""
    everything = torch.cat(parts)
    mean, scale = everything.mean(), (everything.var(correction=0) + 1e-8).sqrt()
    return [(part - mean) / scale + (mean if keep_mean else 0.0) for part in parts]


def prepare(episodes, policy, reference, critic, config):
    """What the rollout fixes: old log-probabilities, values, advantages, returns. Returns the metrics known so far."""
    rollout, kl_coef = config["rollout"], config["kl"]["coef"]
    temperature, settings = rollout["temperature"], config["ppo"]
    with torch.no_grad():
        for e in episodes:
            e["past_end"] = is_past_end(e, rollout)
            e["old"], _ = completion_logprobs(policy, e, temperature)
            e["ref"], _ = completion_logprobs(reference, e, temperature)
            e["values"] = completion_values(critic, e)
    rewards = [-kl_coef * (e["old"] - e["ref"]) for e in episodes]
    rewards = [torch.cat([r, r.new_zeros(1)]) if e["past_end"] else r for r, e in zip(rewards, episodes)]
    for reward, e in zip(rewards, episodes):
        reward[-1] += final_score(e, rollout)
    if settings.get("whiten_rewards"):
        rewards = standardise(rewards, keep_mean=True)
    for reward, e in zip(rewards, episodes):
        found = advantages_and_returns(reward, e["values"], settings.get("gamma", 1.0), settings.get("gae_lambda", 0.95))
        e["advantages"], e["returns"] = found
    # Behind the end there is a value to learn, but no token to choose.
    chosen = [e["advantages"][: len(e["old"])] for e in episodes]
    for whitened, e in zip(standardise(chosen, keep_mean=False), episodes):
        e["advantages"] = whitened

    returns = torch.cat([e["returns"] for e in episodes])
    residual = returns - torch.cat([e["values"] for e in episodes])
    kl = torch.stack([(e["old"] - e["ref"]).sum() for e in episodes]).mean()
    lens, ended = [len(e["old"]) for e in episodes], [e["row"][-1] == EOS for e in episodes]
    assert len(set(lens)) > 2 and any(ended) and not all(ended), f"a dull rollout: {lens}"
    return {
        "objective/kl": kl,
        "objective/kl_coef": kl_coef,
        "objective/entropy": -torch.stack([e["old"].sum() for e in episodes]).mean(),
        "objective/non_score_reward": -kl_coef * kl,
        "objective/rlhf_reward": np.mean([final_score(e, rollout) for e in episodes]) - kl_coef * kl,
        "objective/scores": np.mean([final_score(e, rollout) for e in episodes]),
        "objective/raw_scores": np.mean([e["score"] for e in episodes]),
        "val/explained_var": 1 - residual.var(correction=0) / returns.var(correction=0),
        "val/num_eos_tokens": sum(ended),
        "response/eos_rate": np.mean(ended),
        "response_length/mean": np.mean(lens),
        "response_length/min": min(lens),
        "response_length/max": max(lens),
    }


def losses(episodes, policy, critic, config):
    """Both clipped losses and the entropy, as means over the tokens of the minibatch, and what is logged of them."""
    settings = config["ppo"]
    clip, value_clip = settings["clip_range"], settings["value_clip_range"]
    read = [completion_logprobs(policy, e, config["rollout"]["temperature"]) for e in episodes]
    new, entropy = torch.cat([logprobs for logprobs, _ in read]), torch.cat([entropy for _, entropy in read]).mean()
    values = torch.cat([completion_values(critic, e) for e in episodes])
    old, old_values, advantages, returns = (
        torch.cat([e[name] for e in episodes]) for name in ("old", "values", "advantages", "returns")
    )
    ratio = (new - old).exp()
    free, bounded = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    policy_loss = torch.maximum(free, bounded).mean()
    free_value = (values - returns) ** 2
    bounded_value = (values.clamp(old_values - value_clip, old_values + value_clip) - returns) ** 2
    value_loss = torch.maximum(free_value, bounded_value).mean() / 2
    logged = {
        "loss/policy_avg": policy_loss,
        "loss/value_avg": value_loss,
        "policy/approxkl_avg": ((new - old) ** 2).mean() / 2,
        "policy/clipfrac_avg": (bounded > free).double().mean(),
        "policy/entropy_avg": entropy,
        "val/clipfrac_avg": (bounded_value > free_value).double().mean(),
        "val/ratio": ratio.mean(),
    }
    return policy_loss, value_loss, entropy, {name: value.item() for name, value in logged.items()}


def update(case, episodes, policy, reference, critic):
    """Epochs over minibatches: clip the gradient, step. Returns the metrics."""
    config = case["config"]
    settings, separate = config["ppo"], config["critic"]["kind"] == "reward_model"
    metrics = prepare(episodes, policy, reference, critic, config)
    if separate:
        trained = [(policy, optimizer_of(policy, config["optimizer"], config["learning_rate"]))]
        trained += [(critic, optimizer_of(critic, config["optimizer"], config["critic"]["learning_rate"]))]
    else:
        # The critic holds the policy's backbone, whose embedding is the policy's head: all that there is.
        trained = [(critic, adamw(critic, config["optimizer"] | {"learning_rate": config["learning_rate"]}))]
    steps = []
    average = [weight.detach().clone() for weight in policy.parameters()]
    minibatches = [minibatch for epoch in case["minibatches"] for minibatch in epoch]
    text_minibatches = [rows for epoch in case.get("text_minibatches", []) for rows in epoch]
    for turn, minibatch in enumerate(minibatches):
        policy_loss, value_loss, entropy, logged = losses([episodes[i] for i in minibatch], policy, critic, config)
        objective = policy_loss - settings.get("entropy_coef", 0.0) * entropy
        loss = objective + (1.0 if separate else settings["vf_coef"]) * value_loss
        if text_minibatches:
            ptx_loss = text_loss(policy, [case["texts"][i] for i in text_minibatches[turn]])
            logged["ptx/loss"] = ptx_loss.item()
            loss = loss + config["ptx"]["coef"] * ptx_loss
        for _, optimizer in trained:
            optimizer.zero_grad()
        loss.backward()
        limit = config["optimizer"]["max_grad_norm"]
        norms = [nn.utils.clip_grad_norm_(module.parameters(), limit).item() for module, _ in trained]
        for _, optimizer in trained:
            optimizer.step()
        if "ema_decay" in config:
            decay = config["ema_decay"]
            average = [decay * a + (1 - decay) * w.detach() for a, w in zip(average, policy.parameters())]
        steps.append(logged | {"policy/grad_norm": norms[0]})
    if "ema_decay" in config:
        with torch.no_grad():
            for weight, mean in zip(policy.parameters(), average):
                weight.copy_(mean)
    for name in steps[0]:
        metrics[name] = np.mean([step[name] for step in steps])
    metrics["val/ratio_var"] = np.var([step["val/ratio"] for step in steps])
    for name in ("policy/clipfrac_avg", "val/clipfrac_avg"):
        assert 0 < metrics[name] < 1, f"{name} is {metrics[name]}: clipping is not tested"
    assert max(step["policy/grad_norm"] for step in steps) > config["optimizer"]["max_grad_norm"]
    return {name: float(value) for name, value in metrics.items()}


def models(name):
    """The golden models as Temper loads them, in float64."""
    if name in ("separate", "full"):
        policy, reference, critic = Gpt2Lm(), Gpt2Lm(activation="relu", tied=False), Scalar(Gpt2Backbone(), "last")
        seeds = [(policy, 2), (reference, 2), (critic, 4)]
    else:
        policy, reference = NotebookLm(**SHAPE), Gpt2Lm()
        critic, seeds = ValueHead(policy), [(policy, 1), (reference, 2)]
    for model, seed in seeds:
        randomise(model, seed)
    # No dropout anywhere, but train mode: in eval mode PyTorch takes another path through its encoder layers.
    return [model.double().train() for model in (policy, reference, critic)]


def write_case(out, name, case):
    policy, reference, critic = models(name)
    prompts = [next(p for p in PROMPTS if row[: len(p)] == p) for row in case["rows"]]
    episodes = [{"prompt": p, "row": row, "score": s} for p, row, s in zip(prompts, case["rows"], SCORES)]
    metrics = update(case, episodes, policy, reference, critic)
    tensors = {
        f"{network}.{weight_name}": stored(weight, transposed)
        for network, model in (("policy", policy), ("critic", critic))
        for weight_name, weight, transposed in model.weights()
    }
    save_file(tensors, out / f"{name}.safetensors")
    write_sections(out / f"{name}.json", case | {"prompts": PROMPTS, "scores": SCORES, "metrics": metrics})


def write_ppo(out):
    directory = out / "ppo"
    directory.mkdir(exist_ok=True)
    for name, case in (("separate", SEPARATE), ("shared", SHARED), ("full", FULL)):
        write_case(directory, name, case)
