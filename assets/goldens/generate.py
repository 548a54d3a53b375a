"""Golden numbers for `tests/parity`: PyTorch evaluates the same models and formulas, in float64.

    pip install -r requirements.txt
    python generate.py            writes the files beside this script
    python generate.py --check    generates them again elsewhere and compares

Weights and inputs come from numpy's seeded generator and are float32 numbers; everything computed from them is
float64 until it is stored. What a test finds is therefore the rounding of the code under test alone.

    <model>/config.json, model.safetensors   a model directory that Temper loads
    <model>/golden.safetensors               row.N, prompt_lens: input tokens (right-padded here)
                                             logits: [real tokens of all rows, vocab]
                                             loss: over the completions; grad.<weight>: in the file's own layout
    <model>-reward/                          scores [rows] and values [real tokens of all rows] instead of logits
    maths.json                               formulas without a model
"""

import argparse
import json
import math
import os
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model
from transformers.utils import logging

CHECK_TOLERANCE = 1e-5
SHAPE = {"vocab_size": 61, "max_seq_len": 32, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 24}

# Prompts and completions of unequal lengths. 1 begins, 2 separates, 3 ends; 0 is padding.
DIALOGUES = [([1, 17, 40, 5, 33, 2], [21, 9, 58, 9, 44, 3]), ([1, 60, 12, 2], [30, 7, 3])]
# Chosen and rejected completions of two prompts, in this order.
COMPARISONS = [
    ([1, 17, 40, 5, 33, 2], [21, 9, 58, 9, 44, 3]),
    ([1, 60, 12, 2], [30, 7, 3]),
    ([1, 17, 40, 5, 33, 2], [50, 4, 3]),
    ([1, 60, 12, 2], [11, 11, 25, 36, 3]),
]


class NotebookBackbone(nn.Module):
    """The notebook's decoder without its head: post-norm blocks on scaled, normed embeddings."""

    def __init__(self, vocab_size, max_seq_len, d_model, n_layers, n_heads, d_ff):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, d_model)
        self.positions = nn.Embedding(max_seq_len, d_model)
        self.norm = nn.LayerNorm(d_model)
        layer = nn.TransformerEncoderLayer(d_model, n_heads, d_ff, dropout=0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)

    def forward(self, tokens, real):
        seq, d_model = tokens.shape[1], self.tokens.embedding_dim
        x = self.tokens(tokens) * math.sqrt(d_model) + self.positions.weight[:seq]
        future = torch.ones(seq, seq, dtype=torch.bool).triu(1)
        return self.blocks(self.norm(x), mask=future, src_key_padding_mask=~real)

    def weights(self):
        """(name, parameter, whether the file holds its transpose): GPT-2 keeps its matrices as [in, out]."""
        yield "transformer.wte.weight", self.tokens.weight, False
        yield "transformer.wpe.weight", self.positions.weight, False
        yield "transformer.ln_e.weight", self.norm.weight, False
        yield "transformer.ln_e.bias", self.norm.bias, False
        for i, block in enumerate(self.blocks.layers):
            at, ff = block.self_attn, (block.linear1, block.linear2)
            for name, weight, bias in [
                ("attn.c_attn", at.in_proj_weight, at.in_proj_bias),
                ("attn.c_proj", at.out_proj.weight, at.out_proj.bias),
                ("mlp.c_fc", ff[0].weight, ff[0].bias),
                ("mlp.c_proj", ff[1].weight, ff[1].bias),
                ("ln_1", block.norm1.weight, block.norm1.bias),
                ("ln_2", block.norm2.weight, block.norm2.bias),
            ]:
                yield f"transformer.h.{i}.{name}.weight", weight, weight.dim() == 2
                yield f"transformer.h.{i}.{name}.bias", bias, False


class NotebookLm(nn.Module):
    """The notebook's language model: the head is the token embedding."""

    def __init__(self, **shape):
        super().__init__()
        self.backbone = NotebookBackbone(**shape)

    def forward(self, tokens, real):
        return F.linear(self.backbone(tokens, real), self.backbone.tokens.weight)

    def weights(self):
        return self.backbone.weights()


class Gpt2Lm(nn.Module):
    """Hugging Face's GPT-2 with its own names."""

    def __init__(self, **settings):
        super().__init__()
        self.model = GPT2LMHeadModel(gpt2_config(**settings))

    def forward(self, tokens, real):
        return self.model(tokens, attention_mask=real.long()).logits

    def weights(self):
        return ((name, weight, False) for name, weight in self.model.named_parameters())


class Gpt2Backbone(nn.Module):
    """Hugging Face's GPT-2 without a head."""

    def __init__(self):
        super().__init__()
        self.model = GPT2Model(gpt2_config())

    def forward(self, tokens, real):
        return self.model(tokens, attention_mask=real.long()).last_hidden_state

    def weights(self):
        return ((f"transformer.{name}", weight, False) for name, weight in self.model.named_parameters())


class Scalar(nn.Module):
    """A linear head to one number on a pooled hidden state."""

    def __init__(self, backbone, pooling):
        super().__init__()
        self.backbone, self.pooling = backbone, pooling
        self.score = nn.Linear(SHAPE["d_model"], 1)

    def values(self, tokens, real):
        return self.score(self.backbone(tokens, real)).squeeze(2)

    def forward(self, tokens, real, prompt_lens):
        hidden = self.backbone(tokens, real)
        lens = real.sum(1)
        if self.pooling == "last":
            pooled = hidden[torch.arange(len(lens)), lens - 1]
        else:
            pooled = torch.stack([h[p:n].mean(0) for h, p, n in zip(hidden, prompt_lens, lens)])
        return self.score(pooled).squeeze(1)

    def weights(self):
        yield from self.backbone.weights()
        yield "score.weight", self.score.weight, False
        yield "score.bias", self.score.bias, False


def gpt2_config(activation="gelu_new", tied=True):
    return GPT2Config(
        vocab_size=SHAPE["vocab_size"],
        n_positions=SHAPE["max_seq_len"],
        n_embd=SHAPE["d_model"],
        n_layer=SHAPE["n_layers"],
        n_head=SHAPE["n_heads"],
        n_inner=SHAPE["d_ff"],
        activation_function=activation,
        tie_word_embeddings=tied,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=1,
        eos_token_id=3,
        attn_implementation="eager",
    )


def temper_config():
    """What Temper writes for the notebook's architecture."""
    return {
        "model_type": "temper",
        "eos_token_id": 3,
        "temper": {
            **SHAPE,
            "activation": "relu",
            "norm": "post",
            "norm_eps": 1e-5,
            "positions": "learned",
            "embedding_scale": True,
            "embedding_norm": True,
            "final_norm": False,
            "bias": True,
            "tie_head": True,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "ff_dropout": 0.0,
            "init": "torch",
        },
    }


def randomise(model, seed):
    """Weights large enough that every part of the model shows in the logits; no bias 0, no norm 1."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, weight, _ in model.weights():
            noise = torch.from_numpy(rng.standard_normal(tuple(weight.shape)).astype(np.float32))
            is_norm = ".ln_" in name and name.endswith("weight")
            weight.copy_(1 + 0.1 * noise if is_norm else (0.25 if weight.dim() == 2 else 0.1) * noise)


def pad(dialogues):
    rows = [prompt + completion for prompt, completion in dialogues]
    seq = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (seq - len(row)) for row in rows])
    real = torch.tensor([[i < len(row) for i in range(seq)] for row in rows])
    return tokens, real, [len(prompt) for prompt, _ in dialogues]


def stored(weight, transposed):
    return (weight.T if transposed else weight).detach().to(torch.float32).contiguous().numpy()


def save_weights(model, directory, config):
    write_json(directory / "config.json", config)
    tensors = {name: stored(weight, transposed) for name, weight, transposed in model.weights()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def save_golden(model, directory, dialogues, loss, **outputs):
    loss.backward()
    tensors = {f"row.{i}": np.array(p + c, np.int64) for i, (p, c) in enumerate(dialogues)}
    tensors["prompt_lens"] = np.array([len(p) for p, _ in dialogues], np.int64)
    for name, output in {"loss": loss.reshape(1), **outputs}.items():
        tensors[name] = stored(output, False)
    for name, weight, transposed in model.weights():
        tensors[f"grad.{name}"] = stored(weight.grad, transposed)
    save_file(tensors, directory / "golden.safetensors")


def language_model_golden(model, directory):
    """Cross-entropy of the completion tokens, the first and the end token among them; pads and prompts cost nothing."""
    model.double().train()
    tokens, real, prompt_lens = pad(DIALOGUES)
    logits = model(tokens, real)
    targets = tokens[:, 1:].clone()
    for row, prompt_len in enumerate(prompt_lens):
        targets[row, : prompt_len - 1] = -100
    targets[~real[:, 1:]] = -100
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=-100)
    save_golden(model, directory, DIALOGUES, loss, logits=logits[real])


def scalar_golden(model, directory):
    """The pairwise loss of Ouyang et al. (2022), equation 1: −log σ(r_chosen − r_rejected)."""
    model.double().train()
    tokens, real, prompt_lens = pad(COMPARISONS)
    scores = model(tokens, real, prompt_lens)
    chosen, rejected = scores.chunk(2)
    loss = F.softplus(-(chosen - rejected)).mean()
    save_golden(model, directory, COMPARISONS, loss, scores=scores, values=model.values(tokens, real)[real])


def write_models(out):
    def directory(name):
        (out / name).mkdir(exist_ok=True)
        return out / name

    notebook = NotebookLm(**SHAPE)
    randomise(notebook, 1)
    save_weights(notebook, directory("notebook"), temper_config() | {"architectures": ["TemperCausalLm"]})
    language_model_golden(notebook, out / "notebook")

    for name, settings in [("gpt2", {}), ("gpt2-untied", {"activation": "relu", "tied": False})]:
        gpt2 = Gpt2Lm(**settings)
        randomise(gpt2, 2)
        gpt2.model.save_pretrained(directory(name))
        (out / name / "generation_config.json").unlink(missing_ok=True)
        language_model_golden(gpt2, out / name)

    scalar = {"architectures": ["GPT2ForSequenceClassification"], "num_labels": 1}
    reward = Scalar(NotebookBackbone(**SHAPE), "mean")
    randomise(reward, 3)
    save_weights(reward, directory("notebook-reward"), temper_config() | scalar | {"temper_pooling": "mean"})
    scalar_golden(reward, out / "notebook-reward")

    reward = Scalar(Gpt2Backbone(), "last")
    randomise(reward, 4)
    config = json.loads((out / "gpt2" / "config.json").read_text())
    save_weights(reward, directory("gpt2-reward"), config | scalar | {"temper_pooling": "last"})
    scalar_golden(reward, out / "gpt2-reward")


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
    mask = tensor([[0, 1, 1, 1, 1]] * 2)
    values = tensor([[0.0, 0.8, 0.6, 0.4, 0.2], [0.0, 0.7, 0.5, 0.3, 0.1]])
    rewards = tensor([[0.0, -0.01, -0.02, -0.03, 1.2], [0.0, -0.005, -0.015, -0.025, 0.8]])
    golden = gae(rewards, values, mask, 0.99, 0.95)
    printed = [[0.9801, 0.2000, 0.4423, 0.7085, 1.0000], [0.6623, -0.0326, 0.1886, 0.4323, 0.7000]]
    assert torch.allclose(golden["advantages"], tensor(printed), atol=5.1e-5), "not what the notebook prints"
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
    cases = []
    for scale in (1.0, 0.1):
        gradients = [scale * tensor([3.0, -4.0]), scale * tensor([[12.0, 0.5], [-1.0, 2.0]])]
        parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient.clone()
        norm = nn.utils.clip_grad_norm_(parameters, 2.0)
        cases.append(
            {"max_norm": 2.0, "gradients": gradients, "norm": norm, "clipped": [p.grad for p in parameters]}
        )
    assert cases[0]["norm"] > 2.0 > cases[1]["norm"]
    return cases


def plain(value):
    """Tensors as nested lists of numbers with ten digits."""
    if isinstance(value, torch.Tensor):
        return plain(value.detach().tolist())
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return float(f"{value:.10g}") if isinstance(value, float) else value


def write_json(path, value):
    path.write_text(json.dumps(plain(value), indent=1) + "\n")


def write_maths(out):
    golden = {
        "gae_notebook": gae_of_the_notebook(),
        "gae_unequal": gae_of_unequal_rows(),
        # The second is so narrow that the 1e-8 under the root shows.
        "whitening": [whitening(1.0), whitening(1e-4)],
        "log_probs": log_probs_and_entropy(),
        "policy_loss": policy_loss(),
        "value_loss": value_loss(),
        "adamw": adamw(),
        "clip_grad_norm": clip_grad_norm(),
    }
    lines = (f" {json.dumps(name)}: {json.dumps(plain(value))}" for name, value in golden.items())
    (out / "maths.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def generate(out):
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    write_models(out)
    write_maths(out)


def files(directory):
    return {str(p.relative_to(directory)) for kind in ("json", "safetensors") for p in directory.rglob(f"*.{kind}")}


def differences(found, expected, where):
    """Places where two values are not the same: numbers by the tolerance, all else exactly."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in expected.keys() | found.keys():
            yield from differences(found.get(key), expected.get(key), f"{where} {key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for i, (a, b) in enumerate(zip(found, expected)):
            yield from differences(a, b, f"{where}[{i}]")
    elif isinstance(expected, np.ndarray) and isinstance(found, np.ndarray):
        same = found.shape == expected.shape and found.dtype == expected.dtype
        if not same or not np.allclose(found, expected, rtol=CHECK_TOLERANCE, atol=CHECK_TOLERANCE):
            yield where
    elif isinstance(expected, float) and isinstance(found, (int, float)):
        if not math.isclose(found, expected, rel_tol=CHECK_TOLERANCE, abs_tol=CHECK_TOLERANCE):
            yield where
    elif found != expected:
        yield where


def check(here):
    def read(path):
        return load_file(path) if path.suffix == ".safetensors" else json.loads(path.read_text())

    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        generate(fresh)
        wrong = [f"{name} is on one side only" for name in sorted(files(here) ^ files(fresh))]
        for name in sorted(files(here) & files(fresh)):
            wrong += differences(read(here / name), read(fresh / name), name)
    for line in wrong:
        print(f"differs: {line}", file=sys.stderr)
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser(description="Golden numbers for tests/parity.")
    parser.add_argument("--check", action="store_true", help="compare a fresh generation with the files here")
    here = Path(__file__).resolve().parent
    if parser.parse_args().check:
        return check(here)
    generate(here)
    return 0


if __name__ == "__main__":
    sys.exit(main())
