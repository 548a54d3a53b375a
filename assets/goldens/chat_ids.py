"""Ids and masks that transformers gives to conversations, for the tests of `temper-tokenizer`.

    pip install transformers==5.24.0 jinja2==3.1.6
    python chat_ids.py

It trains two small tokenizers into chat_tokenizers: one on bytes, like GPT-2, and one that marks the start of words,
like Llama 2. chat_ids.json has for each of them, each template and each conversation of chat_templates.py the ids
without and with a generation prompt, and the mask of the assistant if the template has `{% generation %}`.

Control tokens in messages are read as text (`sanitize_control_tokens`). That also holds for `<think>` where the template
writes it, which Temper takes for a token as transformers does by default; so `special` is left out there.
"""

import json
from pathlib import Path

from chat_templates import CONVERSATIONS, SPECIAL_TOKENS, read
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
TEMPLATES = ["chatml", "generation", "open_generation", "strict", "thinking"]
CORPUS = [
    "system user assistant Hello? What is 2+2? One Two Three Four Five Six Seven You are brief. Count.",
    "word Answer. line leads and trails answer Still there? I begin. And again",
] * 4


def special_tokens():
    yield from SPECIAL_TOKENS.values()
    yield from ["<|im_start|>", "<|im_end|>", "[INST]", "[/INST]"]


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # It moves the places of tokens, which must not move the mask.
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer, pre_tokenizers.ByteLevel.alphabet(), 400


def metaspace():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    bos = ("<s>", 0)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[bos])
    return tokenizer, [], 200


def train(make):
    tokenizer, alphabet, vocab_size = make()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(special_tokens()), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    directory = HERE / "chat_tokenizers" / make.__name__
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL_TOKENS}
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return PreTrainedTokenizerFast.from_pretrained(directory)


def encoded(tokenizer, source, name, messages):
    if "<think>" in source and name == "special":
        return None
    ids = [
        tokenizer.apply_chat_template(
            messages,
            chat_template=source,
            add_generation_prompt=prompt,
            sanitize_control_tokens=True,
            return_dict=False,
        )
        for prompt in (False, True)
    ]
    if "endgeneration" not in source or name == "special":
        return {"ids": ids}
    whole = tokenizer.apply_chat_template(
        messages, chat_template=source, return_assistant_tokens_mask=True, return_dict=True
    )
    assert whole["input_ids"] == ids[0], name
    return {"ids": ids, "mask": whole["assistant_masks"]}


def main():
    golden = {}
    for make in (byte_level, metaspace):
        tokenizer = train(make)
        golden[make.__name__] = {
            template: {
                name: encoded(tokenizer, read(HERE / "chat_templates" / f"{template}.jinja"), name, messages)
                for name, messages in CONVERSATIONS.items()
                if name != "long" and not (template == "strict" and name in ("broken", "tools"))
            }
            for template in TEMPLATES
        }
    text = json.dumps(golden).replace('"ids"', '\n"ids"')
    (HERE / "chat_ids.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
