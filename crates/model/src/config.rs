//! What a decoder looks like: one configurable architecture, and named presets.

use serde::{Deserialize, Serialize};

use crate::Error;

/// Standard deviation of the normal initialisation of GPT-2 (Radford et al. 2019) and of the notebook's embeddings.
pub const INIT_STD: f64 = 0.02;

/// Token ids and positions are 32-bit integers on every backend; nothing else of a model comes near this.
const MOST: usize = i32::MAX as usize;

/// Positions of the longest context. Room for a whole answer is reserved before its first token, and a model without
/// learned positions may name any length in a file of a few kilobytes.
const MOST_POSITIONS: usize = 1 << 20;

/// Non-linearity of the feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// max(0, x).
    Relu,
    /// x Φ(x), with the error function.
    Gelu,
    /// GELU with the tanh approximation; Hugging Face calls it `gelu_new`.
    GeluTanh,
}

/// Where the layer norms are placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormPlacement {
    /// x + f(norm(x)), as GPT-2.
    Pre,
    /// norm(x + f(x)), as the original transformer and the notebook.
    Post,
}

/// How token positions enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// A learned vector for each position, added to the token embedding.
    Learned,
    /// None: only the causal mask tells the order.
    None,
}

/// How the weights start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// Every matrix N(0, 0.02), residual projections divided by √(2 · layers), biases 0 (Radford et al. 2019, section 2.3).
    Normal,
    /// Embeddings N(0, 0.02); the rest as `torch.nn.TransformerEncoderLayer` starts: Xavier-uniform q, k, v,
    /// uniform ±1/√fan_in for the other matrices and the feed-forward biases. The notebook's.
    Torch,
}

/// A decoder's shape. Every field is legal in any combination that [`ModelConfig::validate`] accepts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Longest sequence, in tokens; the number of learned positions.
    pub max_seq_len: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of blocks.
    pub n_layers: usize,
    /// Number of attention heads; divides `d_model`.
    pub n_heads: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Non-linearity of the feed-forward layer.
    pub activation: Activation,
    /// Where the layer norms are placed.
    pub norm: NormPlacement,
    /// Added to the variance in every layer norm.
    pub norm_eps: f64,
    /// How positions enter.
    pub positions: Positions,
    /// Multiply token embeddings by √d_model (Vaswani et al. 2017, section 3.4).
    pub embedding_scale: bool,
    /// A layer norm right after the embedding.
    pub embedding_norm: bool,
    /// A layer norm after the last block.
    pub final_norm: bool,
    /// Biases in attention and feed-forward.
    pub bias: bool,
    /// The output head shares the token embedding's weights.
    pub tie_head: bool,
    /// Dropout on the embedding and on each residual branch.
    pub dropout: f64,
    /// Dropout on the attention probabilities.
    pub attention_dropout: f64,
    /// Dropout after the feed-forward activation.
    pub ff_dropout: f64,
    /// How the weights start.
    pub init: Init,
}

/// Names that [`ModelConfig::preset`] knows.
pub const PRESETS: [&str; 6] = ["notebook", "tiny", "small", "medium", "gpt2-tiny", "gpt2-small"];

impl ModelConfig {
    /// A named shape. Vocabulary and context can be changed afterwards by struct update.
    ///
    /// - `notebook`: the notebook's decoder (N3): 128 wide, 4 heads, 4 layers, feed-forward 2048, ReLU, post-norm.
    /// - `tiny`, `small`, `medium`: pre-norm byte models of 0.2, 0.8 and 4.9 million parameters.
    /// - `gpt2-tiny`: GPT-2's architecture at toy size, for tests; `gpt2-small`: the published 124M one.
    ///
    /// # Errors
    /// [`Error::UnknownPreset`].
    pub fn preset(name: &str) -> Result<Self, Error> {
        let byte_model = |d_model, n_layers, n_heads| Self {
            vocab_size: 260,
            max_seq_len: 128,
            d_model,
            n_layers,
            n_heads,
            d_ff: 4 * d_model,
            activation: Activation::GeluTanh,
            norm: NormPlacement::Pre,
            norm_eps: 1e-5,
            positions: Positions::Learned,
            embedding_scale: false,
            embedding_norm: false,
            final_norm: true,
            bias: true,
            tie_head: true,
            dropout: 0.0,
            attention_dropout: 0.0,
            ff_dropout: 0.0,
            init: Init::Normal,
        };
        Ok(match name {
            "notebook" => Self {
                d_ff: 2048,
                activation: Activation::Relu,
                norm: NormPlacement::Post,
                embedding_scale: true,
                embedding_norm: true,
                final_norm: false,
                dropout: 0.1,
                attention_dropout: 0.1,
                ff_dropout: 0.1,
                init: Init::Torch,
                ..byte_model(128, 4, 4)
            },
            "tiny" => Self { activation: Activation::Relu, ..byte_model(64, 4, 4) },
            "small" => Self { max_seq_len: 256, activation: Activation::Relu, ..byte_model(128, 4, 4) },
            "medium" => Self { max_seq_len: 512, ..byte_model(256, 6, 8) },
            "gpt2-tiny" => Self { vocab_size: 260, ..byte_model(32, 2, 4) },
            "gpt2-small" => Self {
                vocab_size: 50257,
                max_seq_len: 1024,
                dropout: 0.1,
                attention_dropout: 0.1,
                ..byte_model(768, 12, 12)
            },
            _ => return Err(Error::UnknownPreset { name: name.into() }),
        })
    }

    /// Width of one attention head.
    pub fn d_head(&self) -> usize {
        self.d_model / self.n_heads
    }

    /// Parameters in embeddings and blocks, biases and norms left out; `None` if the number does not fit.
    pub(crate) fn n_matrix_params(&self) -> Option<usize> {
        let block = self.d_model.checked_mul(4)?.checked_add(self.d_ff.checked_mul(2)?)?;
        let blocks = block.checked_mul(self.d_model)?.checked_mul(self.n_layers)?;
        let positions = if self.positions == Positions::Learned { self.max_seq_len } else { 0 };
        let embeddings = self.vocab_size.checked_add(positions)?.checked_mul(self.d_model)?;
        blocks.checked_add(embeddings)
    }

    /// Checks that the numbers can be a model.
    ///
    /// # Errors
    /// [`Error::Config`], naming the field.
    pub fn validate(&self) -> Result<(), Error> {
        let refuse = |field: &'static str, reason: String| Err(Error::Config { field, reason });
        for (field, value) in [
            ("vocab_size", self.vocab_size),
            ("max_seq_len", self.max_seq_len),
            ("d_model", self.d_model),
            ("n_layers", self.n_layers),
            ("n_heads", self.n_heads),
            ("d_ff", self.d_ff),
        ] {
            if value == 0 {
                return refuse(field, "must be at least 1".into());
            }
            if value > MOST {
                return refuse(field, format!("{value} is more than {MOST}"));
            }
        }
        if self.max_seq_len > MOST_POSITIONS {
            return refuse("max_seq_len", format!("{} is more than {MOST_POSITIONS}", self.max_seq_len));
        }
        if !self.d_model.is_multiple_of(self.n_heads) {
            return refuse("n_heads", format!("{} does not divide d_model = {}", self.n_heads, self.d_model));
        }
        for (field, p) in [
            ("dropout", self.dropout),
            ("attention_dropout", self.attention_dropout),
            ("ff_dropout", self.ff_dropout),
        ] {
            if !(0.0..1.0).contains(&p) {
                return refuse(field, format!("{p} is not in [0, 1)"));
            }
        }
        if !(self.norm_eps > 0.0 && self.norm_eps <= 1.0) {
            return refuse("norm_eps", format!("{} is not above 0 and at most 1", self.norm_eps));
        }
        Ok(())
    }

    /// Checks that sequences of another model's context fit: what was encoded for it may be run through this one.
    ///
    /// # Errors
    /// [`Error::Config`] for `max_seq_len`.
    pub fn check_context(&self, needed: usize) -> Result<(), Error> {
        if self.max_seq_len < needed {
            let reason = format!("{} in the checkpoint, {needed} when the run started", self.max_seq_len);
            return Err(Error::Config { field: "max_seq_len", reason });
        }
        Ok(())
    }

    /// The same decoder without dropout, as the reward-model and PPO stages use it (InstructGPT trains both without).
    pub fn without_dropout(&self) -> Self {
        Self { dropout: 0.0, attention_dropout: 0.0, ff_dropout: 0.0, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_that_do_not_divide_the_width_are_refused() {
        let config = ModelConfig { n_heads: 3, ..ModelConfig::preset("tiny").unwrap() };
        assert!(config.validate().unwrap_err().to_string().contains("n_heads"));
    }

    #[test]
    fn a_context_or_an_epsilon_beyond_all_reason_is_refused() {
        let tiny = ModelConfig::preset("tiny").unwrap();
        let long = ModelConfig { max_seq_len: i32::MAX as usize, positions: Positions::None, ..tiny.clone() };
        assert!(long.validate().unwrap_err().to_string().contains("max_seq_len"));
        let flat = ModelConfig { norm_eps: 1e300, ..tiny };
        assert!(flat.validate().unwrap_err().to_string().contains("norm_eps"));
    }
}
