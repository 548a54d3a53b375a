"""Trains a tiny random model of every family with each stage, and opens what Temper wrote in transformers.

    pip install -r requirements.txt
    python families_check.py --temper target/release/temper

For each family it makes a model directory with transformers, runs `temper sft`, `reward` and `ppo` for a few steps, and
compares in float32: the log-probability of each token of a language model, and the score of each row of a reward model
and of a critic, read in one padded batch with the padding of the saved tokenizer. Every weight must be found and none may
be left over. It prints a JSON line for each directory, and exits with 1 if anything is wrong.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.utils import logging

TOLERANCE = 1e-4
QUESTIONS = [f"What is {a} plus {b}?" for a, b in ((1, 1), (2, 5), (3, 4), (9, 8), (20, 7), (6, 6))]
ANSWERS = [" Two.", " It is seven, I think.", " 7", " Seventeen!", " Twenty-seven, of course.", " Twelve"]
SETTINGS = ["--set", "batch_size=3", "--set", "max_steps=2", "--set", "learning_rate=1e-2", "--quiet"]

COMMON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
GROUPS = COMMON | {"num_key_value_heads": 2}
# The class, its shape, and the special tokens of its tokenizer: the end token first, which also pads where there are two.
FAMILIES = {
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4}, ["<|endoftext|>"]),
    "gpt_neox": ("GPTNeoXConfig", COMMON, ["<|endoftext|>", "<|padding|>"]),
    "gpt_neox-sequential": ("GPTNeoXConfig", COMMON | {"use_parallel_residual": False}, ["<|endoftext|>", "<|x|>"]),
    "llama": ("LlamaConfig", GROUPS | {"tie_word_embeddings": True}, ["<|im_end|>", "<repo_name>"]),
    "mistral": ("MistralConfig", GROUPS | {"sliding_window": None}, ["</s>", "<unk>"]),
    "qwen2": ("Qwen2Config", GROUPS, ["<|im_end|>", "<|fim_pad|>"]),
    "qwen3": ("Qwen3Config", GROUPS | {"head_dim": 16}, ["<|im_end|>", "<|fim_pad|>"]),
}


def make_base(name, directory):
    """A random model of a family, with a byte-level tokenizer, as transformers saves them."""
    class_name, shape, special = FAMILIES[name]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(QUESTIONS + ANSWERS, trainer)
    # The end token pads too, as in many models that people share.
    tokens = {"eos_token": special[0], "pad_token": special[0]}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)
    fast.save_pretrained(directory)
    positions = {"n_positions": 96} if name == "gpt2" else {"max_position_embeddings": 96}
    ids = {"vocab_size": len(fast), "eos_token_id": fast.eos_token_id, "pad_token_id": fast.pad_token_id, "bos_token_id": None}
    torch.manual_seed(len(name))
    model = AutoModelForCausalLM.from_config(getattr(transformers, class_name)(**shape, **positions, **ids))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(directory)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def train(temper, out):
    """Runs the stages in `out`, from `base`."""
    dialogues = [{"prompt": q, "completion": a} for q, a in zip(QUESTIONS, ANSWERS)]
    write_rows(out / "demonstrations.jsonl", dialogues)
    worse = ANSWERS[1:] + ANSWERS[:1]
    write_rows(out / "comparisons.jsonl", [
        {"prompt": q, "chosen": a, "rejected": b} for q, a, b in zip(QUESTIONS, ANSWERS, worse)
    ])  # fmt: skip
    write_rows(out / "prompts.jsonl", [{"prompt": q} for q in QUESTIONS])

    def run(*arguments):
        subprocess.run([temper, *arguments], cwd=out, check=True, stdout=subprocess.DEVNULL)

    data = ["--data", "demonstrations.jsonl"]
    run("sft", "--model", "base", *data, "--out", "sft", *SETTINGS)
    run("reward", "--model", "sft/final", "--data", "comparisons.jsonl", "--normalize-data", "demonstrations.jsonl",
        "--out", "reward", "--set", "normalize=mean_std", *SETTINGS)  # fmt: skip
    run("ppo", "--policy", "sft/final", "--reward", "reward/final", "--prompts", "prompts.jsonl", "--out", "ppo",
        "--set", "rollout.max_new_tokens=8", "--set", "update.minibatch_size=3", *SETTINGS)  # fmt: skip


def rows_of(temper, command, model, out):
    arguments = [temper, command, "--model", model, "--data", "demonstrations.jsonl", "--quiet"]
    text = subprocess.run(arguments, cwd=out, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in text.splitlines()]


def compare_logprobs(temper, model, out):
    network, report = AutoModelForCausalLM.from_pretrained(out / model, output_loading_info=True)
    worst = 0.0
    for row in rows_of(temper, "logprobs", model, out):
        prompt, completion = row["prompt_tokens"], row["completion_tokens"]
        tokens = torch.tensor([prompt + completion])
        logits = network.eval()(tokens, attention_mask=torch.ones_like(tokens)).logits[0, len(prompt) - 1 : -1]
        found = logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]
        worst = max(worst, (found - torch.tensor(row["logprobs"])).abs().max().item())
    return network, report, worst, None


def compare_scores(temper, model, out):
    network, report = AutoModelForSequenceClassification.from_pretrained(out / model, output_loading_info=True)
    # Not AutoTokenizer: for `qwen2` it takes the pre-tokenizer of Qwen, whatever `tokenizer.json` says.
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(out / model)
    pad = network.config.pad_token_id
    # Where the padding is an unused row of the embedding, the tokenizer has no name for it.
    assert pad != tokenizer.eos_token_id and tokenizer.pad_token_id in (pad, None), (pad, tokenizer.pad_token_id)
    texts = [q + a + tokenizer.eos_token for q, a in zip(QUESTIONS, ANSWERS)]
    tokenizer.padding_side = "right"
    inputs = tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
    assert (inputs["input_ids"] == pad).any(), "no row is padded"
    bias = json.loads((out / model / "temper.json").read_text())["score_bias"]
    found = network.eval()(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, 0] + bias
    scores = torch.tensor([row["score"] for row in rows_of(temper, "score", model, out)])
    return network, report, (found - scores).abs().max().item(), {"pad": tokenizer.convert_ids_to_tokens(pad), "bias": bias}


def main():
    parser = argparse.ArgumentParser(description="Every family and every stage in transformers.")
    parser.add_argument("--temper", required=True, help="the program")
    parser.add_argument("--family", choices=FAMILIES, action="append", help="only this one")
    parser.add_argument("--keep", help="a directory for the models, which stay there")
    args = parser.parse_args()
    temper = str(Path(args.temper).resolve())
    logging.disable_progress_bar()
    is_right = True
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        for family in args.family or FAMILIES:
            out = Path(args.keep or scratch) / family
            out.mkdir(parents=True, exist_ok=True)
            make_base(family, out / "base")
            train(temper, out)
            for model in ("sft/final", "reward/final", "ppo/final", "ppo/final/critic"):
                compare = compare_scores if "reward" in model or "critic" in model else compare_logprobs
                network, report, worst, more = compare(temper, model, out)
                problems = {name: sorted(map(str, found)) for name, found in report.items() if found}
                is_right &= worst <= TOLERANCE and not problems
                line = {"family": family, "model": model, "class": type(network).__name__, "greatest_difference": worst}
                print(json.dumps(line | (more or {}) | {"problems": problems}))
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
