"""The golden models: what PyTorch computes with them, and what three steps of AdamW make of them."""

import json
import math

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

from files import write_json

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
# Clipping acts on each of the three steps. An epsilon of 1e-8 would turn a gradient that is 0 but for rounding, as that
# of every key's bias and of the reward head's, into a step of full length in an arbitrary direction.
OPTIMIZER = {
    "learning_rate": 0.01,
    "beta_1": 0.9,
    "beta_2": 0.95,
    "epsilon": 1e-4,
    "weight_decay": 0.1,
    "max_grad_norm": 0.25,
}


class NotebookBackbone(nn.Module):
    """The notebook's decoder without its head: post-norm blocks on scaled, normed embeddings."""

    def __init__(self, vocab_size, max_seq_len, d_model, n_layers, n_heads, d_ff, dropout=0.0):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, d_model)
        self.positions = nn.Embedding(max_seq_len, d_model)
        self.norm = nn.LayerNorm(d_model)
        layer = nn.TransformerEncoderLayer(d_model, n_heads, d_ff, dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)

    def forward(self, tokens, real):
        seq, d_model = tokens.shape[1], self.tokens.embedding_dim
        x = self.tokens(tokens) * math.sqrt(d_model) + self.positions.weight[:seq]
        future = torch.ones(seq, seq, dtype=torch.bool).triu(1)
        return self.blocks(self.norm(self.dropout(x)), mask=future, src_key_padding_mask=~real)

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

    def __init__(self, backbone, pooling, d_model=SHAPE["d_model"]):
        super().__init__()
        self.backbone, self.pooling = backbone, pooling
        self.score = nn.Linear(d_model, 1)

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


def adamw(model, settings):
    return torch.optim.AdamW(
        model.parameters(),
        lr=settings["learning_rate"],
        betas=(settings["beta_1"], settings["beta_2"]),
        eps=settings["epsilon"],
        weight_decay=settings["weight_decay"],
    )


def save_golden(model, directory, dialogues, loss_of, **outputs):
    """The first gradient, then losses, gradient norms and weights of three steps."""
    tensors = {f"row.{i}": np.array(p + c, np.int64) for i, (p, c) in enumerate(dialogues)}
    tensors["prompt_lens"] = np.array([len(p) for p, _ in dialogues], np.int64)
    for name, output in outputs.items():
        tensors[name] = stored(output, False)
    optimizer, losses, norms = adamw(model, OPTIMIZER), [], []
    for step in range(3):
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        if step == 0:
            for name, weight, transposed in model.weights():
                tensors[f"grad.{name}"] = stored(weight.grad, transposed)
        losses.append(loss.item())
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER["max_grad_norm"]).item())
        optimizer.step()
    assert min(norms) > OPTIMIZER["max_grad_norm"], f"no clipping at {norms}"
    for name, weight, transposed in model.weights():
        tensors[f"after.{name}"] = stored(weight, transposed)
    tensors["losses"], tensors["norms"] = np.array(losses, np.float32), np.array(norms, np.float32)
    save_file(tensors, directory / "golden.safetensors")


def language_model_golden(model, directory):
    """Cross-entropy of the completion tokens, the first and the end token among them; pads and prompts cost nothing."""
    model.double().train()
    tokens, real, prompt_lens = pad(DIALOGUES)
    targets = tokens[:, 1:].clone()
    for row, prompt_len in enumerate(prompt_lens):
        targets[row, : prompt_len - 1] = -100
    targets[~real[:, 1:]] = -100

    def loss():
        return F.cross_entropy(model(tokens, real)[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=-100)

    save_golden(model, directory, DIALOGUES, loss, logits=model(tokens, real)[real])


def scalar_golden(model, directory):
    """The pairwise loss of Ouyang et al. (2022), equation 1: −log σ(r_chosen − r_rejected)."""
    model.double().train()
    tokens, real, prompt_lens = pad(COMPARISONS)

    def loss():
        chosen, rejected = model(tokens, real, prompt_lens).chunk(2)
        return F.softplus(-(chosen - rejected)).mean()

    scores, values = model(tokens, real, prompt_lens), model.values(tokens, real)[real]
    save_golden(model, directory, COMPARISONS, loss, scores=scores, values=values)


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
