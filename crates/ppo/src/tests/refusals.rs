//! What `train` refuses before it starts.

use temper_data::{EncodedPrompt, Prompts};
use temper_tokenizer::{TextSide, Tokenizer};

use super::{config, count_fives, language_model, prompts};
use crate::networks::Critic;

#[test]
fn advantage_estimation_without_a_critic_is_refused() {
    let (tokenizer, template) = (Tokenizer::byte(), temper_tokenizer::Template::bare());
    let models =
        crate::Models { policy: language_model(1), ref_policy: language_model(1), critic: Critic::None };
    let text = TextSide::new(tokenizer, template);
    let prompts = Prompts::from(prompts(2));
    let mut run = temper_train::Run::ephemeral().unwrap();
    let error = crate::train(&config(), models, &text, &prompts, &mut count_fives, &mut run).unwrap_err();
    assert_eq!(error.to_string(), "this `advantage.kind` needs a critic, and there is none");
}

#[test]
fn prompts_without_room_for_a_whole_answer_are_refused() {
    let (tokenizer, template) = (Tokenizer::byte(), temper_tokenizer::Template::bare());
    let models =
        crate::Models { policy: language_model(1), ref_policy: language_model(1), critic: Critic::ValueHead };
    let text = TextSide::new(tokenizer, template);
    // Contexts of 32 tokens, answers of 6.
    let long = |len| EncodedPrompt::new("", vec![4; len]);
    let prompts = Prompts::from(vec![long(26), long(27)]);
    let mut run = temper_train::Run::ephemeral().unwrap();
    let error = crate::train(&config(), models, &text, &prompts, &mut count_fives, &mut run).unwrap_err();
    assert_eq!(error.to_string(), "prompt 2 has 27 tokens: with 6 new ones it does not fit into 32");
}
