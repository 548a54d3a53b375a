"""Formulas without a model, written from the papers."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from files import write_sections
from models import OPTIMIZER


def tensor(values, **options):
    return torch.tensor(values, dtype=torch.float64, **options)


def masked_mean(x, mask):
    return (x * mask).sum() / mask.sum()


def gae(rewards, values, mask, gamma, lam):
    """Schulman et al. (2016), equation 16, backwards; after the end rewards and values are 0."""
    rewards, values = rewards * mask, values * mask
    advantages, following = torch.zeros_like(values), torch.zeros(len(values), dtype=torch.float64)
    for t in reversed(range(values.shape[1])):
        next_value = values[:, t + 1] if t + 1 < values.shape[1] else 0.0
        following = rewards[:, t] + gamma * next_value - values[:, t] + gamma * lam * following
        advantages[:, t] = following
    return {
        "gamma": gamma,
        "lambda": lam,
        "rewards": rewards,
        "values": values,
        "mask": mask,
        "advantages": advantages,
        "returns": advantages + values,
    }


def gae_of_the_notebook():
    # Its first column belongs to the prompt, yet it prints an advantage there.
    mask = torch.ones(2, 5, dtype=torch.float64)
    values = tensor([[0.0, 0.8, 0.6, 0.4, 0.2], [0.0, 0.7, 0.5, 0.3, 0.1]])
    rewards = tensor([[0.0, -0.01, -0.02, -0.03, 1.2], [0.0, -0.005, -0.015, -0.025, 0.8]])
    golden = gae(rewards, values, mask, 0.99, 0.95)
    printed = {
        "advantages": [[0.9801, 0.2000, 0.4423, 0.7085, 1.0000], [0.6623, -0.0326, 0.1886, 0.4323, 0.7000]],
        "returns": [[0.9801, 1.0000, 1.0423, 1.1085, 1.2000], [0.6623, 0.6674, 0.6886, 0.7323, 0.8000]],
    }
    for name, numbers in printed.items():
        assert torch.allclose(golden[name], tensor(numbers), atol=5.1e-5), f"{name} are not what the notebook prints"
    return golden


def gae_of_unequal_rows():
    mask = tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    rewards = tensor([[-0.1, 0.05, -0.2, 0.0, 1.5], [0.3, -0.4, -0.7, 0, 0], [0.25, 0, 0, 0, 0]])
    values = tensor([[0.4, -0.3, 0.9, 0.1, 0.6], [-0.5, 0.2, 0.35, 0, 0], [0.8, 0, 0, 0, 0]])
    golden = gae(rewards, values, mask, 1.0, 0.95)
    assert (golden["advantages"] * (1 - mask) == 0).all()
    return golden


def whitening(scale):
    x = scale * tensor([[0.5, -1.25, 2.0, 0.75], [3.5, -0.5, 90.0, -70.0]])
    mask = tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean) ** 2, mask)
    whitened = (x - mean) / (variance + 1e-8).sqrt()
    return {
        "x": x,
        "mask": mask,
        "mean": mean,
        "variance": variance,
        "whitened": whitened * mask,
        "scaled": (whitened + mean) * mask,
    }


def log_probs_and_entropy():
    logits = np.random.default_rng(5).standard_normal((4, 6)) * 2
    logits = tensor(logits.round(3), requires_grad=True)
    targets, mask, temperature = torch.tensor([5, 0, 2, 3]), tensor([1, 1, 0, 1]), 0.7
    log_probs = F.log_softmax(logits / temperature, -1)
    entropy = torch.distributions.Categorical(logits=logits / temperature).entropy()
    loss = masked_mean(entropy, mask)
    loss.backward()
    return {
        "logits": logits,
        "temperature": temperature,
        "targets": targets,
        "mask": mask,
        "log_probs": log_probs,
        "token_logprobs": log_probs[torch.arange(4), targets],
        "entropy": entropy,
        "mean_entropy": loss,
        "grad_logits": logits.grad,
    }


def policy_loss():
    """Clipped above and below, with advantages of both signs; the last two tokens of row 1 do not count."""
    old = tensor([[-1.2, -0.7, -2.5, -1.9, -0.3], [-0.9, -1.4, -3.1, -0.6, -5.0]])
    moved = tensor([[0.35, 0.30, -0.40, -0.33, 0.05], [-0.10, 0.60, -0.05, 2.0, -2.0]])
    advantages = tensor([[1.1, -0.8, 0.9, -1.3, 0.4], [-0.6, 2.0, 0.7, 50.0, -50.0]])
    mask = tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    new, clip = (old + moved).requires_grad_(), 0.2
    ratio = (new - old).exp()
    plain, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    loss = masked_mean(torch.maximum(plain, clipped), mask)
    loss.backward()
    return {
        "clip": clip,
        "logprobs": new,
        "old_logprobs": old,
        "advantages": advantages,
        "mask": mask,
        "loss": loss,
        "grad_logprobs": new.grad,
        "mean_ratio": masked_mean(ratio, mask),
        "clip_fraction": masked_mean((clipped > plain).double(), mask),
        "approx_kl": masked_mean((new - old) ** 2, mask) / 2,
    }


def value_loss():
    """Clipped above and below, and clipping that the maximum overrules."""
    old = tensor([[0.5, -0.2, 0.1, 0.8], [0.0, 0.3, 0.6, -4.0]])
    moved = tensor([[0.5, -0.6, 0.1, 0.45], [-0.3, 0.15, 3.0, 7.0]])
    returns = tensor([[1.6, -1.1, 0.4, 0.2], [0.9, 0.35, -30.0, 40.0]])
    mask = tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    new, clip = (old + moved).requires_grad_(), 0.2
    plain = (new - returns) ** 2
    clipped = (torch.clamp(new, old - clip, old + clip) - returns) ** 2
    loss = masked_mean(torch.maximum(plain, clipped), mask) / 2
    loss.backward()
    return {
        "clip": clip,
        "values": new,
        "old_values": old,
        "returns": returns,
        "mask": mask,
        "loss": loss,
        "grad_values": new.grad,
        "clip_fraction": masked_mean((clipped > plain).double(), mask),
    }


def adamw():
    gradients = tensor([[0.5, -0.02, 0.0, 3.0], [-0.1, 0.04, 1e-4, -2.0], [0.3, 0.01, -1e-3, 0.5]])
    cases = []
    for betas, eps, decay in [((0.9, 0.95), 1e-5, 0.1), ((0.9, 0.999), 1e-8, 0.0)]:
        parameter = nn.Parameter(tensor([1.0, -0.5, 0.25, 2.0]))
        initial, steps = parameter.detach().clone(), []
        optimizer = torch.optim.AdamW([parameter], lr=0.01, betas=betas, eps=eps, weight_decay=decay)
        for gradient in gradients:
            parameter.grad = gradient.clone()
            optimizer.step()
            steps.append(parameter.detach().clone())
        cases.append(
            {
                "learning_rate": 0.01,
                "beta_1": betas[0],
                "beta_2": betas[1],
                "epsilon": eps,
                "weight_decay": decay,
                "initial": initial,
                "gradients": gradients,
                "parameters": torch.stack(steps),
            }
        )
    return cases


def clip_grad_norm():
    """Norms above, below and above the limit over two parameters together, then AdamW, whose epsilon lets lengths show."""
    parameters = [nn.Parameter(tensor([1.0, -0.5])), nn.Parameter(tensor([[0.25, 2.0], [-1.5, 0.0]]))]
    shapes = [tensor([3.0, -4.0]), tensor([[12.0, 0.5], [-1.0, 2.0]])]
    initial = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=0.1, betas=(0.5, 0.75), eps=0.5, weight_decay=0.0)
    steps = []
    for scale in (1.0, 0.1, -0.5):
        gradients = [scale * shape for shape in shapes]
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient.clone()
        norm = nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        steps.append({"gradients": gradients, "norm": norm, "parameters": [p.detach().clone() for p in parameters]})
    assert steps[0]["norm"] > 2.0 > steps[1]["norm"] and steps[2]["norm"] > 2.0
    return {
        "learning_rate": 0.1,
        "beta_1": 0.5,
        "beta_2": 0.75,
        "epsilon": 0.5,
        "weight_decay": 0.0,
        "max_grad_norm": 2.0,
        "initial": initial,
        "steps": steps,
    }


def pairwise_loss():
    """Equal, right, wrong, and so far apart that exp overflows a float32."""
    chosen = tensor([0.5, 1.75, -2.0, 60.0, -45.0], requires_grad=True)
    rejected = tensor([0.5, -0.25, 1.5, -60.0, 50.0], requires_grad=True)
    loss = -torch.log(torch.sigmoid(chosen - rejected)).mean()
    loss.backward()
    return {
        "chosen": chosen,
        "rejected": rejected,
        "loss": loss,
        "grad_chosen": chosen.grad,
        "grad_rejected": rejected.grad,
    }


def shaped_rewards():
    """−β (log π_old − log π_ref) on every token, and the score on the last; row by row, so there are no masks."""
    coef, lens = 0.15, [4, 2, 1]
    old = tensor([[-1.2, -0.7, -2.5, -1.9], [-0.9, -1.4, -7.0, -7.0], [-0.3, -7.0, -7.0, -7.0]])
    ref = tensor([[-1.5, -0.4, -2.5, -4.0], [-2.0, -0.2, -1.0, -1.0], [-0.8, -1.0, -1.0, -1.0]])
    scores, rewards, kl = tensor([1.25, -0.5, 2.0]), torch.zeros_like(old), []
    for row, n in enumerate(lens):
        difference = old[row, :n] - ref[row, :n]
        rewards[row, :n] = -coef * difference
        rewards[row, n - 1] += scores[row]
        kl.append(difference.sum())
    return {
        "kl_coef": coef,
        "mask": [[1.0] * n + [0.0] * (4 - n) for n in lens],
        "old_logprobs": old,
        "ref_logprobs": ref,
        "scores": scores,
        "rewards": rewards,
        "kl": kl,
    }


def objective_from_logits():
    """Clipped policy loss minus an entropy bonus, as a function of logits; ratios on both sides of both bounds."""
    rng = np.random.default_rng(7)
    lens, vocab, temperature, clip, coef = [4, 3, 1], 7, 0.8, 0.2, 0.05
    logits = tensor((1.5 * rng.standard_normal((3, 4, vocab))).round(3), requires_grad=True)
    targets = torch.tensor([[3, 0, 6, 2], [5, 1, 4, 0], [2, 0, 0, 0]])
    moved = tensor([[0.4, -0.05, -0.5, 0.3], [-0.4, 0.1, 0.5, 0.0], [0.15, 0.0, 0.0, 0.0]])
    advantages = tensor([[1.1, -0.8, -0.9, -1.3], [0.6, 2.0, 0.7, 30.0], [-0.4, 30.0, 30.0, 30.0]])
    log_probs = F.log_softmax(logits / temperature, -1)
    new = log_probs.gather(2, targets[..., None])[..., 0]
    old = (new - moved).detach().round(decimals=6)
    losses, entropies, clipped = [], [], []
    for row, n in enumerate(lens):
        ratio = (new[row, :n] - old[row, :n]).exp()
        plain, bounded = -advantages[row, :n] * ratio, -advantages[row, :n] * ratio.clamp(1 - clip, 1 + clip)
        losses.append(torch.maximum(plain, bounded))
        clipped.append(bounded > plain)
        entropies.append(torch.distributions.Categorical(logits=logits[row, :n] / temperature).entropy())
    losses, clipped, entropy = torch.cat(losses), torch.cat(clipped), torch.cat(entropies).mean()
    assert 0 < clipped.sum() < len(clipped)
    objective = losses.mean() - coef * entropy
    objective.backward()
    return {
        "temperature": temperature,
        "clip": clip,
        "entropy_coef": coef,
        "logits": logits,
        "targets": targets,
        "mask": [[1.0] * n + [0.0] * (4 - n) for n in lens],
        "old_logprobs": old,
        "advantages": advantages,
        "loss": losses.mean(),
        "entropy": entropy,
        "clip_fraction": clipped.double().mean(),
        "grad_logits": logits.grad,
    }


def write_maths(out):
    golden = {
        "gae_notebook": gae_of_the_notebook(),
        "gae_unequal": gae_of_unequal_rows(),
        # The second is so narrow that the 1e-8 under the root shows.
        "whitening": [whitening(1.0), whitening(1e-4)],
        "log_probs": log_probs_and_entropy(),
        "shaped_rewards": shaped_rewards(),
        "policy_loss": policy_loss(),
        "objective_from_logits": objective_from_logits(),
        "value_loss": value_loss(),
        "pairwise_loss": pairwise_loss(),
        "adamw": adamw(),
        "clip_grad_norm": clip_grad_norm(),
        "three_steps": OPTIMIZER,
    }
    write_sections(out / "maths.json", golden)
