"""Golden adapters: LoRA by PEFT on some of the models, with the numbers of models.py for A and B alone."""

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from models import language_model_golden

# Of each model: the layers that are adapted, the rank, and alpha.
ADAPTERS = {
    "gpt2": (["c_attn", "c_proj", "c_fc"], 2, 8),
    "gpt_neox": (["query_key_value", "dense_h_to_4h"], 3, 3),
    "llama": (["q_proj", "v_proj", "down_proj"], 3, 6),
}


class Adapted(nn.Module):
    """A model of PEFT, with the names that its file has."""

    def __init__(self, directory, targets, rank, alpha):
        super().__init__()
        base = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
        config = LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, target_modules=targets)
        self.model = get_peft_model(base, config)

    def forward(self, tokens, real):
        return self.model(tokens, attention_mask=real.long()).logits

    def weights(self):
        for name, weight in self.model.named_parameters():
            if ".lora_" in name:
                yield name.replace(".default.", "."), weight, False


def randomise(model, seed):
    """B as well, which PEFT starts at 0: so that A has a gradient from the first step on."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for _, weight, _ in model.weights():
            noise = torch.from_numpy(rng.standard_normal(tuple(weight.shape)).astype(np.float32))
            weight.copy_(0.2 * noise)


def write_adapters(out):
    for seed, (name, adapter) in enumerate(ADAPTERS.items()):
        directory = out / f"{name}-lora"
        directory.mkdir(exist_ok=True)
        model = Adapted(out / name, *adapter)
        randomise(model, 200 + seed)
        model.model.peft_config["default"].base_model_name_or_path = name
        model.model.save_pretrained(directory)
        (directory / "README.md").unlink(missing_ok=True)
        language_model_golden(model, directory)
