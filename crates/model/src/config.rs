//! What a decoder looks like: one configurable architecture, and named presets.

use serde::{Deserialize, Serialize};

use crate::{Error, families};

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
    /// x σ(x), also called swish.
    Silu,
}

/// What the feed-forward layer computes from its input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedForward {
    /// f(x W₁) W₂ with the activation f (Vaswani et al. 2017, section 3.3).
    #[default]
    Plain,
    /// (f(x V) · x W₁) W₂: a gate on each hidden number. With SiLU it is SwiGLU (Shazeer 2020, Eq. (6)).
    Gated,
}

/// What a norm computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// γ (x − mean) / √(variance + ε) + β (Ba et al. 2016).
    #[default]
    Layer,
    /// γ x / √(mean of x² + ε) (Zhang and Sennrich 2019).
    Rms,
}

/// Where the norms of a block are placed, and how its two branches join the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormPlacement {
    /// x + f(norm(x)), as GPT-2.
    Pre,
    /// norm(x + f(x)), as the original transformer and the notebook.
    Post,
    /// x + attention(norm₁(x)) + feed_forward(norm₂(x)): both branches read the same x (GPT-J, GPT-NeoX).
    Parallel,
}

/// How token positions enter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// A learned vector for each position, added to the token embedding.
    Learned,
    /// None: only the causal mask tells the order.
    None,
    /// Queries and keys are rotated by angles that grow with the position (Su et al. 2021, section 3.4.2), in the
    /// half-split layout of Hugging Face.
    Rotary {
        /// Base of the wavelengths; 10,000 in the paper.
        theta: f64,
        /// Share of each head that is rotated, from its start; 1 for all of it.
        share: f64,
        /// A change of the frequencies for contexts longer than those of pretraining.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scaling: Option<RotaryScaling>,
    },
}

/// A change of the rotary frequencies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotaryScaling {
    /// Llama 3.1's: long wavelengths become `factor` times as long, short ones stay, and those between are
    /// interpolated (`rope_type: llama3` of transformers).
    Llama3 {
        /// What the frequencies of long wavelengths are divided by.
        factor: f64,
        /// Wavelengths above `original_context / low_freq_factor` are long.
        low_freq_factor: f64,
        /// Wavelengths below `original_context / high_freq_factor` are short.
        high_freq_factor: f64,
        /// The context of pretraining, in tokens.
        original_context: usize,
    },
}

/// How the attention heads differ from `n_heads` heads of width `d_model / n_heads`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Heads {
    /// Heads of keys and values, each shared by a group of query heads (grouped-query attention, Ainslie et al. 2023);
    /// `None` for as many as `n_heads`.
    pub n_kv_heads: Option<usize>,
    /// Width of one head; `None` for `d_model / n_heads`.
    pub d_head: Option<usize>,
    /// An RMS norm of each query and of each key before their rotation (Qwen3).
    pub qk_norm: bool,
}

/// Which linear maps of a block add a bias. JSON has `true` for all, `false` for none, or a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BiasForm", into = "BiasForm")]
pub enum Bias {
    /// No map.
    None,
    /// The projections to queries, keys and values.
    QueriesKeysValues,
    /// Both projections of attention.
    Attention,
    /// Every map.
    All,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum BiasForm {
    Everywhere(bool),
    Named(BiasName),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BiasName {
    QueriesKeysValues,
    Attention,
}

impl From<BiasForm> for Bias {
    fn from(form: BiasForm) -> Self {
        match form {
            BiasForm::Everywhere(true) => Self::All,
            BiasForm::Everywhere(false) => Self::None,
            BiasForm::Named(BiasName::QueriesKeysValues) => Self::QueriesKeysValues,
            BiasForm::Named(BiasName::Attention) => Self::Attention,
        }
    }
}

impl From<Bias> for BiasForm {
    fn from(bias: Bias) -> Self {
        match bias {
            Bias::All => Self::Everywhere(true),
            Bias::None => Self::Everywhere(false),
            Bias::QueriesKeysValues => Self::Named(BiasName::QueriesKeysValues),
            Bias::Attention => Self::Named(BiasName::Attention),
        }
    }
}

impl Bias {
    /// Whether the projections to queries, keys and values have one.
    pub fn on_queries_keys_values(self) -> bool {
        self != Self::None
    }

    /// Whether the projection from the heads to the residual stream has one.
    pub fn on_attention_output(self) -> bool {
        matches!(self, Self::Attention | Self::All)
    }

    /// Whether the maps of the feed-forward layer have one.
    pub fn on_feed_forward(self) -> bool {
        self == Self::All
    }
}

/// How the weights start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// Every matrix N(0, 0.02), residual projections divided by √(2 · layers), biases 0 (Radford et al. 2019, section 2.3).
    Normal,
    /// Every matrix N(0, 0.02), biases 0: what transformers does for Llama, Qwen and GPT-NeoX.
    Plain,
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
    /// Number of attention heads; divides `d_model` unless `heads` gives their width.
    pub n_heads: usize,
    /// What is special about the attention heads.
    #[serde(default, skip_serializing_if = "is_default")]
    pub heads: Heads,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Non-linearity of the feed-forward layer.
    pub activation: Activation,
    /// What the feed-forward layer computes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub feed_forward: FeedForward,
    /// Where the norms are placed.
    pub norm: NormPlacement,
    /// What every norm computes, but for those of `heads.qk_norm`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub norm_kind: NormKind,
    /// ε of every norm.
    pub norm_eps: f64,
    /// How positions enter.
    pub positions: Positions,
    /// Multiply token embeddings by √d_model (Vaswani et al. 2017, section 3.4).
    pub embedding_scale: bool,
    /// A norm right after the embedding.
    pub embedding_norm: bool,
    /// A norm after the last block.
    pub final_norm: bool,
    /// Biases in attention and feed-forward.
    pub bias: Bias,
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

/// A field at its default is not written, so that files of older shapes keep their bytes.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Names that [`ModelConfig::preset`] knows.
pub const PRESETS: [&str; 6] = ["notebook", "tiny", "small", "medium", "gpt2-tiny", "gpt2-small"];

impl ModelConfig {
    /// A named shape. Vocabulary and context can be changed afterwards by struct update.
    ///
    /// - `notebook`: the notebook's decoder (N3): 128 wide, 4 heads, 4 layers, feed-forward 2048, ReLU, post-norm.
    /// - `tiny`, `small`: byte models of 0.2 and 0.8 million parameters, in GPT-2's architecture.
    /// - `medium`: a byte model of 4.9 million parameters, in Llama's, which learns from fewer tokens.
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
            heads: Heads::default(),
            d_ff: 4 * d_model,
            activation: Activation::GeluTanh,
            feed_forward: FeedForward::Plain,
            norm: NormPlacement::Pre,
            norm_kind: NormKind::Layer,
            norm_eps: 1e-5,
            positions: Positions::Learned,
            embedding_scale: false,
            embedding_norm: false,
            final_norm: true,
            bias: Bias::All,
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
            "medium" => Self { max_seq_len: 512, d_ff: 704, ..byte_model(256, 6, 8).into_llama() },
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

    /// Whether it is GPT-2's architecture, in any size.
    pub fn is_gpt2(&self) -> bool {
        families::of(self).model_type() == "gpt2"
    }

    /// Whether it is Llama's architecture, in any size.
    pub fn is_llama(&self) -> bool {
        families::of(self).model_type() == "llama"
    }

    /// The same sizes as a Llama: SwiGLU, RMS norms, rotary positions, no biases, and no dropout but on attention.
    #[must_use]
    pub fn into_llama(self) -> Self {
        Self {
            activation: Activation::Silu,
            feed_forward: FeedForward::Gated,
            norm_kind: NormKind::Rms,
            positions: Positions::Rotary { theta: 10_000.0, share: 1.0, scaling: None },
            bias: Bias::None,
            dropout: 0.0,
            init: Init::Plain,
            ..self
        }
    }

    /// The same sizes as a GPT-2: GELU, layer norms, learned positions, and a bias in each linear map.
    #[must_use]
    pub fn into_gpt2(self) -> Self {
        Self {
            activation: Activation::GeluTanh,
            feed_forward: FeedForward::Plain,
            norm_kind: NormKind::Layer,
            positions: Positions::Learned,
            bias: Bias::All,
            init: Init::Normal,
            ..self
        }
    }

    /// Width of one attention head.
    pub fn d_head(&self) -> usize {
        self.heads.d_head.unwrap_or(self.d_model / self.n_heads)
    }

    /// Heads of keys and of values.
    pub fn n_kv_heads(&self) -> usize {
        self.heads.n_kv_heads.unwrap_or(self.n_heads)
    }

    /// Numbers of each head that are rotated, from its start; 0 without rotary positions.
    pub fn d_rotary(&self) -> usize {
        match self.positions {
            Positions::Rotary { share, .. } => (self.d_head() as f64 * share) as usize,
            Positions::Learned | Positions::None => 0,
        }
    }

    /// Parameters in embeddings and blocks, biases and norms left out; `None` if the number does not fit.
    pub(crate) fn n_matrix_params(&self) -> Option<usize> {
        let n_heads = self.n_heads.checked_add(self.n_kv_heads())?.checked_mul(2)?;
        let n_maps = if self.feed_forward == FeedForward::Gated { 3 } else { 2 };
        let width = n_heads.checked_mul(self.d_head())?.checked_add(self.d_ff.checked_mul(n_maps)?)?;
        let blocks = width.checked_mul(self.d_model)?.checked_mul(self.n_layers)?;
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
        self.validate_heads()?;
        self.validate_positions()?;
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

    fn validate_heads(&self) -> Result<(), Error> {
        let refuse = |field: &'static str, reason: String| Err(Error::Config { field, reason });
        let n_heads = self.n_heads;
        match self.heads.d_head {
            None if !self.d_model.is_multiple_of(n_heads) => {
                return refuse("n_heads", format!("{n_heads} does not divide d_model = {}", self.d_model));
            }
            Some(0) => return refuse("d_head", "must be at least 1".into()),
            Some(width) if width.checked_mul(n_heads).is_none_or(|width| width > MOST) => {
                return refuse("d_head", format!("{n_heads} heads of {width} are more than {MOST} numbers"));
            }
            _ => {}
        }
        match self.heads.n_kv_heads {
            Some(shared) if shared == 0 || !n_heads.is_multiple_of(shared) => {
                refuse("n_kv_heads", format!("{shared} does not divide n_heads = {n_heads}"))
            }
            _ => Ok(()),
        }
    }

    fn validate_positions(&self) -> Result<(), Error> {
        let refuse = |reason: String| Err(Error::Config { field: "positions", reason });
        let Positions::Rotary { theta, share, scaling } = self.positions else { return Ok(()) };
        if !(theta > 0.0 && theta.is_finite()) {
            return refuse(format!("theta is {theta}, not a positive number"));
        }
        if !(share > 0.0 && share <= 1.0) {
            return refuse(format!("a share of {share} of each head is not above 0 and at most 1"));
        }
        let (width, d_head) = (self.d_rotary(), self.d_head());
        if width == 0 || !width.is_multiple_of(2) {
            return refuse(format!("{width} of the {d_head} numbers of a head cannot be rotated in pairs"));
        }
        match scaling {
            Some(RotaryScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context }) => {
                if !(factor > 0.0 && factor.is_finite()) || original_context == 0 {
                    return refuse(format!("a factor of {factor} on a context of {original_context}"));
                }
                if !(low_freq_factor > 0.0
                    && high_freq_factor > low_freq_factor
                    && high_freq_factor.is_finite())
                {
                    return refuse(format!("wavelengths from {low_freq_factor} to {high_freq_factor}"));
                }
                Ok(())
            }
            None => Ok(()),
        }
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

    fn rotary(share: f64) -> Positions {
        Positions::Rotary { theta: 1e4, share, scaling: None }
    }

    #[test]
    fn heads_and_rotations_that_do_not_fit_are_refused() {
        let tiny = ModelConfig::preset("tiny").unwrap(); // 64 wide, 4 heads
        let heads = |n_kv_heads, d_head| Heads { n_kv_heads, d_head, qk_norm: false };
        let llama3 = |low_freq_factor| RotaryScaling::Llama3 {
            factor: 8.0,
            low_freq_factor,
            high_freq_factor: 4.0,
            original_context: 64,
        };
        let scaled = |low| Positions::Rotary { theta: 1e4, share: 1.0, scaling: Some(llama3(low)) };
        for config in [
            ModelConfig { heads: heads(Some(2), Some(7)), ..tiny.clone() },
            ModelConfig { n_heads: 3, heads: heads(None, Some(5)), ..tiny.clone() },
            ModelConfig { positions: rotary(0.25), ..tiny.clone() },
            ModelConfig { positions: scaled(1.0), ..tiny.clone() },
        ] {
            config.validate().unwrap();
        }
        for (field, config) in [
            ("n_kv_heads", ModelConfig { heads: heads(Some(3), None), ..tiny.clone() }),
            ("n_kv_heads", ModelConfig { heads: heads(Some(0), None), ..tiny.clone() }),
            ("d_head", ModelConfig { heads: heads(None, Some(0)), ..tiny.clone() }),
            ("d_head", ModelConfig { heads: heads(None, Some(usize::MAX)), ..tiny.clone() }),
            ("positions", ModelConfig { positions: rotary(0.0), ..tiny.clone() }),
            ("positions", ModelConfig { positions: rotary(1.5), ..tiny.clone() }),
            // 3 of 16 numbers.
            ("positions", ModelConfig { positions: rotary(0.2), ..tiny.clone() }),
            ("positions", ModelConfig { positions: scaled(4.0), ..tiny.clone() }),
        ] {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{error}");
        }
    }

    /// The `temper` section of a `config.json` that was written before there were rotary positions.
    #[test]
    fn shapes_of_older_files_are_read_and_written_as_before() {
        let config = ModelConfig::preset("notebook").unwrap();
        let json = serde_json::to_value(&config).unwrap();
        let older = [
            "activation",
            "attention_dropout",
            "bias",
            "d_ff",
            "d_model",
            "dropout",
            "embedding_norm",
            "embedding_scale",
            "ff_dropout",
            "final_norm",
            "init",
            "max_seq_len",
            "n_heads",
            "n_layers",
            "norm",
            "norm_eps",
            "positions",
            "tie_head",
            "vocab_size",
        ];
        let mut keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, older);
        assert_eq!((&json["bias"], &json["positions"]), (&true.into(), &"learned".into()));
        assert_eq!(serde_json::from_value::<ModelConfig>(json).unwrap(), config);
        for bias in [Bias::None, Bias::QueriesKeysValues, Bias::Attention, Bias::All] {
            let json = serde_json::to_value(bias).unwrap();
            assert_eq!(serde_json::from_value::<Bias>(json).unwrap(), bias);
        }
    }
}
