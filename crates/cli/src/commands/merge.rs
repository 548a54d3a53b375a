//! `temper merge`

use anyhow::Result;
use temper_assistant::{Assistant, Error as AssistantError, RewardModel};
use temper_model::{ADAPTER_DIR, Error as ModelError, is_adapter};

use crate::args::MergeArgs;
use crate::commands::{Outcome, tokenizer::check_empty};
use crate::device;
use crate::failure::hinted;
use crate::session::Session;

pub fn run(session: &Session, args: &MergeArgs) -> Result<Outcome> {
    check_empty(&args.out)?;
    if !is_adapter(&args.model) {
        let hint = if args.model.join(ADAPTER_DIR).is_dir() {
            "this is a whole model already, with its adapter in the weights and also in `adapter/`"
        } else {
            "an adapter has adapter_config.json and adapter_model.safetensors, and no config.json"
        };
        return Err(hinted(format!("{} is not the directory of an adapter", args.model.display()), hint));
    }
    let (device, _) = device::open_named(session.device_name())?;
    let options = args.load.options().on_base(args.base.clone());
    match Assistant::load_with(&args.model, &device, &options) {
        Err(AssistantError::Model(ModelError::WrongHead { .. })) => {
            let model = RewardModel::load_with(&args.model, &device, &options)?;
            std::fs::create_dir_all(&args.out)?;
            model.save(&args.out)?;
        }
        model => {
            let model = model?;
            std::fs::create_dir_all(&args.out)?;
            model.save(&args.out)?;
        }
    }
    session.note(&format!("the model with its adapter is {}", args.out.display()));
    Ok(Outcome::Done)
}
