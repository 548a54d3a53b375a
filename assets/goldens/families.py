"""Golden models of the families of transformers: the same numbers as in models.py, greedy answers, and scalar heads."""

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from models import COMPARISONS, DIALOGUES, SHAPE, language_model_golden, pad

N_GREEDY = 20
# A greedy token is the best one by more than the rounding of float32.
MARGIN = 1e-2

COMMON = {
    "vocab_size": SHAPE["vocab_size"],
    "max_position_embeddings": 48,
    "hidden_size": SHAPE["d_model"],
    "num_hidden_layers": SHAPE["n_layers"],
    "num_attention_heads": 4,
    "intermediate_size": SHAPE["d_ff"],
    "bos_token_id": 1,
    "eos_token_id": 3,
    "attn_implementation": "eager",
}
GPT2_IDS = {key: COMMON[key] for key in ("bos_token_id", "eos_token_id", "attn_implementation")}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 50.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def configs():
    """Every model by the name of its directory, with the seed of its weights."""
    rope = {"rope_type": "default", "rope_theta": 1e3}
    groups = {"num_key_value_heads": 2, "rope_parameters": rope}
    half, whole = ({"rope_parameters": rope | {"partial_rotary_factor": share}} for share in (0.5, 1.0))
    return {
        "gpt_neox": (GPTNeoXConfig(**COMMON, **half), 14),
        "gpt_neox-sequential": (
            GPTNeoXConfig(**COMMON, **whole, use_parallel_residual=False, tie_word_embeddings=True),
            15,
        ),
        "llama": (LlamaConfig(**COMMON, **groups, tie_word_embeddings=True), 12),
        "llama-scaled": (
            LlamaConfig(**COMMON, num_key_value_heads=1, head_dim=8, rope_parameters=LLAMA_3, attention_bias=True),
            12,
        ),
        "qwen2": (Qwen2Config(**COMMON, **groups), 16),
        "qwen3": (Qwen3Config(**COMMON, **groups, head_dim=6, tie_word_embeddings=True), 18),
    }


def scalar_configs():
    """Families of which only the scalar head has golden numbers here: models.py has a language model of GPT-2, and Mistral
    computes what Llama does."""
    return {
        "gpt2": (GPT2Config(vocab_size=61, n_positions=48, n_embd=16, n_layer=2, n_head=4, n_inner=24, **GPT2_IDS), 20),
        "mistral": (MistralConfig(**COMMON, num_key_value_heads=2, sliding_window=None), 22),
    }


class Lm(nn.Module):
    """A language model of transformers, with the names that its file has."""

    def __init__(self, config):
        super().__init__()
        self.model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)

    def forward(self, tokens, real):
        return self.model(tokens, attention_mask=real.long()).logits

    def weights(self):
        is_neox = self.model.config.model_type == "gpt_neox"
        for name, weight in self.model.named_parameters():
            yield ("embed_out.weight" if is_neox and name == "lm_head.weight" else name), weight, False


def randomise(parameters, seed):
    """As in models.py: every part of the model shows in the logits, no bias is 0 and no norm 1."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, weight in parameters:
            noise = torch.from_numpy(rng.standard_normal(tuple(weight.shape)).astype(np.float32))
            is_norm = weight.dim() == 1 and name.endswith("weight")
            weight.copy_(1 + 0.1 * noise if is_norm else (0.3 if weight.dim() == 2 else 0.1) * noise)


def left_padded(rows):
    seq = max(map(len, rows))
    tokens = torch.tensor([[0] * (seq - len(row)) + row for row in rows])
    real = torch.tensor([[i >= seq - len(row) for i in range(seq)] for row in rows])
    return tokens, real


def greedy(model):
    """Twenty tokens after each prompt, from one left-padded batch, whether or not the end token is among them."""
    prompts = [prompt for prompt, _ in DIALOGUES]
    tokens, real = left_padded(prompts)
    output = model.generate(
        tokens,
        attention_mask=real.long(),
        do_sample=False,
        max_new_tokens=N_GREEDY,
        min_new_tokens=N_GREEDY,
        eos_token_id=None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    for logits in output.logits:
        best = logits.topk(2, dim=-1).values
        assert best.isfinite().all()
        assert (best[:, 0] - best[:, 1]).min() > MARGIN, "a greedy token is hardly better than the second best"
    return output.sequences[:, tokens.shape[1] :]


def check_left_padding(model):
    """Pads on the left with positions from the first real token: transformers finds the same logits."""
    rows = [prompt + completion for prompt, completion in DIALOGUES]
    (tokens, real), (right, right_real, _) = left_padded(rows), pad(DIALOGUES)
    positions = (real.long().cumsum(1) - 1).clamp(min=0)
    left = model.model(tokens, attention_mask=real.long(), position_ids=positions).logits[real]
    torch.testing.assert_close(left, model(right, right_real)[right_real], rtol=1e-4, atol=1e-4)


def save(model, directory):
    model.save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)


def scalar_golden(config, seed, directory):
    """Scores of one row at a time: so no token must be known to be a pad."""
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    randomise(model.named_parameters(), seed)
    save(model, directory)
    model.double().eval()
    rows = [prompt + completion for prompt, completion in COMPARISONS]
    with torch.no_grad():
        scores = torch.cat([model(torch.tensor([row])).logits[0] for row in rows])
    tensors = {f"row.{i}": np.array(row, np.int64) for i, row in enumerate(rows)}
    tensors["prompt_lens"] = np.array([len(prompt) for prompt, _ in COMPARISONS], np.int64)
    save_file(tensors | {"scores": scores.float().numpy()}, directory / "golden.safetensors")


def write_families(out):
    for name, (config, seed) in configs().items():
        directory, scalar = out / name, out / f"{name}-scalar"
        directory.mkdir(exist_ok=True)
        scalar.mkdir(exist_ok=True)
        model = Lm(config)
        randomise(((name, weight) for name, weight, _ in model.weights()), seed)
        save(model.model, directory)
        # In float32: the float64 mask of transformers is −∞ in its float32 softmax, and pads on the left become NaN.
        model.eval()
        with torch.no_grad():
            answers = greedy(model.model)
            check_left_padding(model)
        language_model_golden(model, directory)
        golden = load_file(directory / "golden.safetensors")
        golden |= {f"greedy.{i}": answer.numpy() for i, answer in enumerate(answers)}
        save_file(golden, directory / "golden.safetensors")
        config.num_labels = 1
        scalar_golden(config, seed + 100, scalar)
    for name, (config, seed) in scalar_configs().items():
        scalar = out / f"{name}-scalar"
        scalar.mkdir(exist_ok=True)
        config.num_labels = 1
        scalar_golden(config, seed, scalar)
