"""How the goldens are stored."""

import json

import torch


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


def write_sections(path, golden):
    """One line per section, so that a change shows where it is."""
    lines = (f" {json.dumps(name)}: {json.dumps(plain(value))}" for name, value in golden.items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
