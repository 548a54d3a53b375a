//! The shape of a model with fresh weights, as settings.

use temper_model::{Heads, ModelConfig};
use temper_tokenizer::TextSide;
use temper_train::{resolve, settings};

use crate::Error;

/// The architecture of a fresh model, as transformers names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// GPT-2: learned positions, GELU or the activation of the preset, layer norms.
    Gpt2,
    /// Llama: rotary positions, SwiGLU, RMS norms, no biases.
    Llama,
}

settings! {
    /// What a fresh model may have other than its preset.
    pub struct ShapeConfig {
        /// Rows of the embedding; 0: as many as the tokenizer has tokens. More rows than tokens are never used.
        pub vocab_size: usize = 0,
        /// The context, in tokens.
        pub max_seq_len: usize = 512, in 1..,
        /// Width of the residual stream.
        pub d_model: usize = 256, in 1..,
        /// Number of blocks.
        pub n_layers: usize = 6, in 1..,
        /// Number of attention heads; it must divide d_model.
        pub n_heads: usize = 8, in 1..,
        /// Heads of keys and values, which must divide n_heads; 0: as many as n_heads. GPT-2 has only this.
        pub n_kv_heads: usize = 0,
        /// Width of the feed-forward layer; 0: four times d_model, and 8/3 of it for Llama, whose layer has three maps.
        pub d_ff: usize = 0,
        /// Dropout on the embedding and on each residual branch; GPT-2 only.
        pub dropout: f64 = 0.0, in 0.0..=0.9,
        /// Dropout on the attention probabilities.
        pub attention_dropout: f64 = 0.0, in 0.0..=0.9,
        /// The output head shares the weights of the embedding.
        pub tie_head: bool = true,
    }
}

/// The width of Llama's feed-forward layer is a multiple of this.
const FF_MULTIPLE: usize = 32;

/// The shape of a fresh model: that of a preset, with what `sets` change (`d_model=128`), for the tokenizer of `text`. Without
/// an `architecture` it is that of the preset.
///
/// # Errors
/// An unknown preset, or one of no architecture that transformers has; settings that are unknown or out of range;
/// [`Error::VocabularyTooSmall`]; a shape that cannot be a model.
pub fn fresh_shape(
    preset: &str,
    architecture: Option<Architecture>,
    sets: &[String],
    text: &TextSide,
) -> Result<ModelConfig, Error> {
    let base = ModelConfig::preset(preset)?;
    let of_preset = match (base.is_gpt2(), base.is_llama()) {
        (true, _) => Architecture::Gpt2,
        (_, true) => Architecture::Llama,
        _ => return Err(Error::NotTransformers { preset: preset.to_owned() }),
    };
    let ModelConfig { max_seq_len, d_model, n_layers, n_heads, dropout, attention_dropout, .. } = base;
    let defaults = format!(
        "max_seq_len = {max_seq_len}\nd_model = {d_model}\nn_layers = {n_layers}\nn_heads = {n_heads}\n\
         dropout = {dropout:?}\nattention_dropout = {attention_dropout:?}"
    );
    let settings: ShapeConfig = resolve(Some(&defaults), None, sets)?;
    settings.validate()?;
    let architecture = architecture.unwrap_or(of_preset);
    let is_llama = architecture == Architecture::Llama;
    let n_tokens = text.tokenizer.vocab_size();
    let vocab_size = if settings.vocab_size == 0 { n_tokens } else { settings.vocab_size };
    if vocab_size < n_tokens {
        return Err(Error::VocabularyTooSmall { vocab_size, n_tokens });
    }
    if !is_llama && settings.n_kv_heads != 0 {
        return Err(Error::OnlyLlama { setting: "n_kv_heads" });
    }
    if is_llama && sets.iter().any(|set| set.trim_start().starts_with("dropout")) {
        return Err(Error::OnlyGpt2 { setting: "dropout" });
    }
    let d_model = settings.d_model;
    let d_ff = match settings.d_ff {
        0 if is_llama => d_model.saturating_mul(8).div_ceil(3).next_multiple_of(FF_MULTIPLE),
        0 => d_model.saturating_mul(4),
        d_ff => d_ff,
    };
    let n_kv_heads = Some(settings.n_kv_heads).filter(|&n| n != 0 && n != settings.n_heads);
    let config = ModelConfig {
        vocab_size,
        max_seq_len: settings.max_seq_len,
        d_model,
        n_layers: settings.n_layers,
        n_heads: settings.n_heads,
        heads: Heads { n_kv_heads, ..Heads::default() },
        d_ff,
        dropout: settings.dropout,
        attention_dropout: settings.attention_dropout,
        tie_head: settings.tie_head,
        ..base
    };
    let config = match architecture {
        same if same == of_preset => config,
        Architecture::Gpt2 => config.into_gpt2(),
        Architecture::Llama => config.into_llama(),
    };
    config.validate()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use temper_model::{Activation, Bias, NormKind, Positions};
    use temper_tokenizer::{Template, Tokenizer};

    use super::*;

    fn shape(
        preset: &str,
        architecture: impl Into<Option<Architecture>>,
        sets: &[&str],
    ) -> Result<ModelConfig, Error> {
        let text = TextSide::new(Tokenizer::byte(), Template::bare());
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        fresh_shape(preset, architecture.into(), &sets, &text)
    }

    #[test]
    fn the_declaration_is_sound() {
        assert_eq!(temper_train::declaration_faults::<ShapeConfig>(), [""; 0]);
    }

    #[test]
    fn a_shape_is_its_preset_with_the_vocabulary_of_the_tokenizer() {
        for preset in ["tiny", "small", "medium", "gpt2-tiny"] {
            assert_eq!(shape(preset, None, &[]).unwrap(), ModelConfig::preset(preset).unwrap());
        }
        let medium = shape("medium", Architecture::Gpt2, &[]).unwrap();
        assert!(medium.is_gpt2() && medium.d_ff == 1024, "{medium:?}");
        let large = shape("gpt2-small", Architecture::Gpt2, &[]).unwrap();
        assert_eq!((large.vocab_size, large.d_model, large.dropout), (260, 768, 0.1));
        let padded = shape("tiny", Architecture::Gpt2, &["vocab_size=320", "d_model=32"]).unwrap();
        assert_eq!((padded.vocab_size, padded.d_model, padded.d_ff), (320, 32, 128));
    }

    #[test]
    fn a_llama_has_its_own_parts_and_no_dropout() {
        let config = shape("medium", Architecture::Llama, &["n_kv_heads=2"]).unwrap();
        // 8/3 of 256 is 682.7, and the next multiple of 32 is 704.
        assert_eq!((config.d_model, config.d_ff, config.heads.n_kv_heads), (256, 704, Some(2)));
        assert_eq!((config.activation, config.bias), (Activation::Silu, Bias::None));
        assert_eq!((config.norm_kind, config.dropout), (NormKind::Rms, 0.0));
        assert!(matches!(config.positions, Positions::Rotary { .. }));
    }

    #[test]
    fn what_cannot_be_a_model_is_refused() {
        for (preset, sets, says) in [
            ("huge", &[][..], "huge"),
            ("notebook", &[], "notebook"),
            ("tiny", &["vocab_size=100"], "260"),
            ("tiny", &["n_heads=3"], "n_heads"),
            ("tiny", &["d_modle=3"], "did you mean `d_model`"),
            ("tiny", &["n_layers=0"], "n_layers"),
            ("tiny", &["n_kv_heads=2"], "Llama"),
        ] {
            let error = shape(preset, Architecture::Gpt2, sets).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let error = shape("tiny", Architecture::Llama, &["dropout=0.1"]).unwrap_err().to_string();
        assert!(error.contains("dropout") && error.contains("GPT-2"), "{error}");
    }
}
