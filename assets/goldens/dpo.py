"""DPO: the loss of given log-probabilities, and of a model on rankings, with every gradient."""

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

from files import write_sections
from models import Gpt2Lm, pad, randomise, stored

# A prompt with completions, the best first. The last two of the first ranking are tied.
RANKINGS = [
    ([1, 17, 40, 5, 33, 2], [[21, 9, 58, 9, 44, 3], [50, 4, 3], [30, 30, 7, 3], [11, 3]], [0, 1, 2, 2]),
    ([1, 60, 12, 2], [[30, 7, 3], [11, 11, 25, 36, 3]], [0, 1]),
]


def sigmoid_loss(chosen, rejected, ref_chosen, ref_rejected, beta, label_smoothing):
    """Rafailov et al. (2023), equation 7, as TRL's `sigmoid` loss has it: one cost per pair."""
    logits = (chosen - rejected) - (ref_chosen - ref_rejected)
    right, wrong = F.logsigmoid(beta * logits), F.logsigmoid(-beta * logits)
    return -right * (1 - label_smoothing) - wrong * label_smoothing


def given_log_probs(label_smoothing):
    rng, beta, pairs = np.random.default_rng(6), 0.3, 5
    draw = lambda: torch.tensor((-20 * rng.random(pairs)).round(3), dtype=torch.float64)
    chosen, rejected = draw().requires_grad_(), draw().requires_grad_()
    ref_chosen, ref_rejected = draw(), draw()
    loss = sigmoid_loss(chosen, rejected, ref_chosen, ref_rejected, beta, label_smoothing).mean()
    loss.backward()
    return {
        "beta": beta,
        "label_smoothing": label_smoothing,
        "chosen": chosen,
        "rejected": rejected,
        "ref_chosen": ref_chosen,
        "ref_rejected": ref_rejected,
        "loss": loss,
        "grad_chosen": chosen.grad,
        "grad_rejected": rejected.grad,
    }


def completion_log_probs(model, prompt, completions):
    """Each completion by itself after its prompt: the sum over its tokens, the end token among them."""
    tokens, real, prompt_lens = pad([(prompt, completion) for completion in completions])
    log_probs = F.log_softmax(model(tokens, real)[:, :-1], -1).gather(2, tokens[:, 1:, None]).squeeze(2)
    counts = real[:, 1:].clone()
    counts[:, : prompt_lens[0] - 1] = False
    return (log_probs * counts).sum(1)


def model_loss(out):
    """The policy is the golden model `gpt2`; the reference the same with a little noise on its weights."""
    policy, reference = Gpt2Lm(), Gpt2Lm()
    randomise(policy, 2)
    randomise(reference, 2)
    rng = np.random.default_rng(7)
    with torch.no_grad():
        for _, weight, _ in reference.weights():
            weight.add_(torch.from_numpy(0.05 * rng.standard_normal(tuple(weight.shape)).astype(np.float32)))
    policy.double().eval()
    reference.double().eval()

    beta, label_smoothing, losses, found = 0.2, 0.1, [], []
    for prompt, completions, ranks in RANKINGS:
        new = completion_log_probs(policy, prompt, completions)
        ref = completion_log_probs(reference, prompt, completions).detach()
        better = [(a, b) for a in range(len(ranks)) for b in range(len(ranks)) if ranks[a] < ranks[b]]
        a, b = [a for a, _ in better], [b for _, b in better]
        losses.append(sigmoid_loss(new[a], new[b], ref[a], ref[b], beta, label_smoothing).mean())
        found.append(
            {
                "prompt": prompt,
                "completions": completions,
                "ranks": ranks,
                "logprobs": new,
                "ref_logprobs": ref,
                "rewards": beta * (new - ref),
            }
        )
    loss = torch.stack(losses).mean()
    loss.backward()
    gradients = {f"grad.{name}": stored(weight.grad, transposed) for name, weight, transposed in policy.weights()}
    save_file(gradients, out / "dpo.safetensors")
    return {"model": "gpt2", "beta": beta, "label_smoothing": label_smoothing, "rankings": found, "loss": loss}


def write_dpo(out):
    golden = {"plain": given_log_probs(0.0), "conservative": given_log_probs(0.15), "model": model_loss(out)}
    write_sections(out / "dpo.json", golden)
