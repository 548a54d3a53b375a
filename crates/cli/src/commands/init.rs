//! `temper init`

use anyhow::Result;
use temper_assistant::Assistant;
use temper_model::CausalLm;
use temper_stage::{Architecture, Error, fresh_shape};
use temper_tokenizer::TextSide;
use temper_train::Seed;

use crate::args::{InitArgs, ModelFamily};
use crate::commands::{Outcome, tokenizer::check_empty};
use crate::device;
use crate::failure::hinted;
use crate::session::Session;

/// What `--shape` takes.
const SHAPES: &str = "shapes: tiny, small, medium, gpt2-tiny, gpt2-small; `--set d_model=…` changes one";

pub fn run(session: &Session, args: &InitArgs) -> Result<Outcome> {
    check_empty(&args.out)?;
    let text = TextSide::load(&args.tokenizer)?;
    let architecture = args.family.map(|family| match family {
        ModelFamily::Gpt2 => Architecture::Gpt2,
        ModelFamily::Llama => Architecture::Llama,
    });
    let config = fresh_shape(&args.shape, architecture, &args.sets, &text).map_err(|error| match error {
        Error::Model(error @ temper_model::Error::Config { .. }) => hinted(
            error.to_string(),
            "the settings of `--set` must fit together, such as d_model=192 n_heads=6",
        ),
        Error::Model(error @ temper_model::Error::UnknownPreset { .. }) => hinted(error.to_string(), SHAPES),
        error => error.into(),
    })?;
    let (device, _) = device::open_named(session.device_name())?;
    let mut rng = Seed(session.seed.unwrap_or(0)).stream("init");
    let model = CausalLm::new(&config, &mut rng, &device);
    let assistant = Assistant { model, text };
    std::fs::create_dir_all(&args.out)?;
    assistant.save_fresh(&args.out)?;
    session.note(&format!(
        "wrote a model of {} parameters with fresh weights into {}: a vocabulary of {}, a context of {} tokens",
        burn::module::Module::num_params(&assistant.model),
        args.out.display(),
        config.vocab_size,
        config.max_seq_len,
    ));
    Ok(Outcome::Done)
}
