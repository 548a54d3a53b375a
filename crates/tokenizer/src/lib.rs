//! Text to token ids and back.
//!
//! A [`Tokenizer`] is one of two: the notebook's bytes ([`ByteTokenizer`]) and any
//! `tokenizer.json` through the `tokenizers` crate ([`PretrainedTokenizer`]). A [`Template`] says, as
//! data, how a prompt and its completion become one sequence, and [`Example`] is that sequence.
//!
//! **Invariant:** this crate knows no tensors and no burn. Ids are `u32`, masks are `true` for what
//! counts, text never turns into special tokens, and [`Tokenizer::decode`] never fails.
//!
//! ```
//! use temper_tokenizer::{Overflow, Template, Tokenizer};
//!
//! let tokenizer = Tokenizer::byte();
//! let template = Template::notebook(); // [BOS]Instruct:{prompt}[SEP]{completion}[EOS]
//! template.check(&tokenizer)?;
//! let example = template.encode_example(&tokenizer, "2+2?", "4", 64, Overflow::Drop)?.expect("it fits");
//! assert_eq!(example.tokens[..example.prompt_len], template.encode_prompt(&tokenizer, "2+2?")?);
//! assert_eq!(example.completion(), [b'4' as u32 + 4, 3]);
//! assert_eq!(tokenizer.decode(&example.tokens), "Instruct:2+2?4");
//! # Ok::<(), temper_tokenizer::Error>(())
//! ```

mod byte;
mod chat;
mod dialog;
mod encode;
mod error;
mod example;
mod guard;
mod hash;
mod padding;
mod pieces;
mod pretrained;
mod special;
mod template;
mod text_side;
mod tokenizer;
mod train;

pub use byte::ByteTokenizer;
pub use chat::{ChatTemplate, Date, EncodedConversation, Message, Prompt, PromptRef, RenderedConversation};
pub use dialog::{Dialog, IGNORE_LABEL, encode_dialog};
pub use error::Error;
pub use example::{Example, LearnedTurns, Overflow, encode_text, pack_texts};
pub use guard::guarded;
pub use pretrained::PretrainedTokenizer;
pub use special::SpecialTokens;
pub use template::{Piece, Template};
pub use text_side::{Rendered, TextSide};
pub use tokenizer::Tokenizer;
pub use train::{TokenizerTrainer, TrainedTokenizer};

/// The snippets of the README are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
