//! `temper tokenizer train`

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use temper_data::each_text;
use temper_tokenizer::TokenizerTrainer;

use crate::args::TrainTokenizerArgs;
use crate::commands::Outcome;
use crate::failure::hinted;
use crate::session::Session;

pub fn run(session: &Session, args: &TrainTokenizerArgs) -> Result<Outcome> {
    check_empty(&args.out)?;
    let least = TokenizerTrainer::MIN_VOCAB_SIZE;
    if args.vocab_size < least {
        // Before the data are read, which may take long.
        return Err(temper_tokenizer::Error::VocabularyTooSmall { vocab_size: args.vocab_size, least }.into());
    }
    let mut trainer = TokenizerTrainer::default();
    each_text(&args.data, &args.read(), &mut |text| trainer.add(text))?;
    let trained = trainer.train(args.vocab_size)?;
    trained.save(&args.out)?;
    if trained.vocab_size < args.vocab_size {
        session.note(&format!(
            "note: the data give {} tokens, not the {} asked for: no other pair of tokens occurs twice",
            trained.vocab_size, args.vocab_size
        ));
    }
    let bytes_per_token = trained.n_bytes as f64 / trained.n_tokens.max(1) as f64;
    session.note(&format!(
        "wrote a tokenizer of {} tokens into {}; the {} bytes of text are {} tokens, {bytes_per_token:.2} bytes each",
        trained.vocab_size,
        args.out.display(),
        trained.n_bytes,
        trained.n_tokens,
    ));
    Ok(Outcome::Done)
}

/// A directory to write into must be empty, or not be there yet.
pub fn check_empty(dir: &Path) -> Result<()> {
    let is_empty = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        Err(error) => return Err(error).with_context(|| format!("cannot write into {}", dir.display())),
    };
    if is_empty {
        return Ok(());
    }
    Err(hinted(format!("{} is not empty", dir.display()), "choose another `--out`, or remove the directory"))
}
