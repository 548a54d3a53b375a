"""One update without a critic on a given rollout: RLOO and GRPO from their papers' formulas, for `tests/parity`.

Three answers to each of two prompts, neighbours in the rollout. As in ppo.py the rows and minibatches are what Temper
draws at the case's seed, episodes go through the network one at a time, and everything else is computed here.

    ppo/rloo.json, ppo/grpo.json   settings, rollout, minibatches, metrics
    ppo/<case>.safetensors         policy.<weight>: after the update
"""

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

from files import write_sections
from models import Gpt2Lm, adamw, randomise, stored
from ppo import EOS, PROMPTS, SCORES, completion_logprobs, final_score

K = 3
COMMON = {
    "max_steps": 1,
    "learning_rate": 2e-3,
    "batch_size": 2,
    "checkpoint_every": 0,
    "rollout": {
        "samples_per_prompt": K,
        "max_new_tokens": 16,
        "temperature": 1.3,
        "missing_eos": "subtract",
        "missing_eos_value": 1.0,
    },
    "optimizer": {"beta_1": 0.9, "beta_2": 0.95, "epsilon": 1e-5, "weight_decay": 0.01, "max_grad_norm": 0.5},
}
CASES = {
    # Minibatches that split the groups, one episode at a time.
    "rloo": {
        "config": COMMON
        | {
            "seed": 0,
            "kl": {"coef": 0.05},
            "ppo": {"ppo_epochs": 3, "minibatch_size": 4, "microbatch_size": 1, "clip_range": 0.2},
            "advantage": {"kind": "rloo"},
        },
        "rows": [
            [1, 31, 7, 19, 52, 14, 2, 58, 52, 4, 41, 58, 46, 49, 1, 14, 30, 46, 14, 30, 21, 46, 33],
            [1, 31, 7, 19, 52, 14, 2, 34, 20, 21, 23, 58, 14, 39, 6, 59, 0, 26, 27, 20, 55, 1, 7],
            [1, 31, 7, 19, 52, 14, 2, 37, 47, 14, 16, 16, 48, 30, 2, 10, 3],
            [1, 17, 40, 5, 33, 2, 55, 50, 26, 32, 20, 24, 53, 58, 20, 5, 43, 46, 20, 15, 45, 4],
            [1, 17, 40, 5, 33, 2, 16, 51, 39, 59, 14, 10, 40, 58, 39, 4, 41, 20, 1, 22, 12, 57],
            [1, 17, 40, 5, 33, 2, 17, 16, 53, 60, 3],
        ],
        "minibatches": [
            [[3, 2, 5, 4], [0, 1]],
            [[5, 2, 1, 0], [4, 3]],
            [[3, 5, 4, 2], [1, 0]],
        ],
    },
    # Minibatches of five and one, two episodes at a time, and an entropy bonus.
    "grpo": {
        "config": COMMON
        | {
            "seed": 22,
            "kl": {"coef": 0.3},
            "ppo": {"ppo_epochs": 3, "minibatch_size": 5, "microbatch_size": 2, "clip_range": 0.2, "entropy_coef": 0.01},
            "advantage": {"kind": "grpo", "scale_by_std": True},
        },
        "rows": [
            [1, 27, 2, 4, 26, 10, 41, 60, 10, 37, 59, 59, 26, 59, 8, 56, 50, 60, 8],
            [1, 27, 2, 46, 52, 7, 3],
            [1, 27, 2, 38, 1, 41, 58, 2, 41, 60, 24, 17, 39, 20, 0, 54, 14, 60, 46],
            [1, 44, 2, 60, 17, 38, 58, 51, 30, 56, 3],
            [1, 44, 2, 29, 47, 28, 26, 42, 51, 60, 48, 59, 45, 52, 54, 8, 60, 22, 57],
            [1, 44, 2, 34, 42, 35, 10, 57, 41, 59, 21, 0, 2, 47, 16, 57, 56, 60, 43],
        ],
        "minibatches": [
            [[2, 0, 5, 1, 3], [4]],
            [[0, 1, 2, 3, 4], [5]],
            [[5, 0, 1, 2, 3], [4]],
        ],
    },
}


def group_advantages(episodes, kind):
    """One number for each answer, from those to the same prompt."""
    for start in range(0, len(episodes), K):
        group = episodes[start : start + K]
        rewards = torch.tensor([e["reward"] for e in group], dtype=torch.float64)
        for i, e in enumerate(group):
            if kind == "rloo":
                others = torch.cat([rewards[:i], rewards[i + 1 :]])
                e["advantage"] = rewards[i] - others.mean()
            else:
                e["advantage"] = (rewards[i] - rewards.mean()) / (torch.std(rewards) + 1e-4)


def prepare(episodes, policy, reference, config):
    rollout, kind, kl_coef = config["rollout"], config["advantage"]["kind"], config["kl"]["coef"]
    with torch.no_grad():
        for e in episodes:
            e["old"], _ = completion_logprobs(policy, e, rollout["temperature"])
            e["ref"], _ = completion_logprobs(reference, e, rollout["temperature"])
            e["kl"] = (e["old"] - e["ref"]).sum().item()
            penalty = kl_coef * e["kl"] if kind == "rloo" else 0.0
            e["reward"] = final_score(e, rollout) - penalty
    group_advantages(episodes, kind)
    kl = np.mean([e["kl"] for e in episodes])
    lens, ended = [len(e["old"]) for e in episodes], [e["row"][-1] == EOS for e in episodes]
    assert len(set(lens)) > 2 and any(ended) and not all(ended), f"a dull rollout: {lens}"
    return {
        "episode": len(episodes),
        "objective/kl": kl,
        "objective/kl_coef": kl_coef,
        "objective/entropy": -np.mean([e["old"].sum().item() for e in episodes]),
        "objective/non_score_reward": -kl_coef * kl,
        "objective/rlhf_reward": np.mean([final_score(e, rollout) for e in episodes]) - kl_coef * kl,
        "objective/scores": np.mean([final_score(e, rollout) for e in episodes]),
        "objective/raw_scores": np.mean([e["score"] for e in episodes]),
        "response_length/mean": np.mean(lens),
    }


def losses(episodes, policy, config):
    """The clipped surrogate and the KL of Eq. (4), both as means over the tokens of the minibatch."""
    clip = config["ppo"]["clip_range"]
    read = [completion_logprobs(policy, e, config["rollout"]["temperature"]) for e in episodes]
    new, entropy = torch.cat([logprobs for logprobs, _ in read]), torch.cat([entropy for _, entropy in read]).mean()
    old, ref = (torch.cat([e[name] for e in episodes]) for name in ("old", "ref"))
    advantages = torch.cat([e["advantage"].expand(len(e["old"])) for e in episodes])
    ratio = (new - old).exp()
    free, bounded = advantages * ratio, advantages * ratio.clamp(1 - clip, 1 + clip)
    policy_loss = -torch.minimum(free, bounded).mean()
    kl_loss = (ref.exp() / new.exp() - (ref - new) - 1).mean()
    logged = {
        "loss/policy_avg": policy_loss,
        "policy/approxkl_avg": ((new - old) ** 2).mean() / 2,
        "policy/clipfrac_avg": (bounded < free).double().mean(),
        "policy/entropy_avg": entropy,
        "val/ratio": ratio.mean(),
    }
    objective = policy_loss - config["ppo"].get("entropy_coef", 0.0) * entropy
    if config["advantage"]["kind"] == "grpo":
        logged["loss/kl_avg"] = kl_loss
        objective = objective + config["kl"]["coef"] * kl_loss
    return objective, {name: value.item() for name, value in logged.items()}


def update(case, episodes, policy, reference):
    config = case["config"]
    metrics = prepare(episodes, policy, reference, config)
    optimizer = adamw(policy, config["optimizer"] | {"learning_rate": config["learning_rate"]})
    limit, steps = config["optimizer"]["max_grad_norm"], []
    for minibatch in (minibatch for epoch in case["minibatches"] for minibatch in epoch):
        objective, logged = losses([episodes[i] for i in minibatch], policy, config)
        optimizer.zero_grad()
        objective.backward()
        norm = nn.utils.clip_grad_norm_(policy.parameters(), limit).item()
        optimizer.step()
        steps.append(logged | {"policy/grad_norm": norm})
    for name in steps[0]:
        metrics[name] = np.mean([step[name] for step in steps])
    assert 0 < metrics["policy/clipfrac_avg"] < 1, f"clipping is not tested: {metrics['policy/clipfrac_avg']}"
    return {name: float(value) for name, value in metrics.items()}


def write_groups(out):
    for name, case in CASES.items():
        policy, reference = Gpt2Lm(), Gpt2Lm(activation="relu", tied=False)
        for model in (policy, reference):
            randomise(model, 2)
            model.double().train()  # No dropout anywhere; as in ppo.py.
        prompts = [next(p for p in PROMPTS if row[: len(p)] == p) for row in case["rows"]]
        assert len({tuple(p) for p in prompts[:K]}) == len({tuple(p) for p in prompts[K:]}) == 1
        episodes = [{"prompt": p, "row": row, "score": s} for p, row, s in zip(prompts, case["rows"], SCORES)]
        metrics = update(case, episodes, policy, reference)
        tensors = {f"policy.{weight}": stored(x, transposed) for weight, x, transposed in policy.weights()}
        save_file(tensors, out / "ppo" / f"{name}.safetensors")
        write_sections(out / "ppo" / f"{name}.json", case | {"prompts": PROMPTS, "scores": SCORES, "metrics": metrics})
