//! Text to token ids and back: the byte tokenizer, any tokenizer.json, and the dialogue template
