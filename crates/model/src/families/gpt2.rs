//! GPT-2 as Hugging Face stores it (Radford et al. 2019; `modeling_gpt2.py` of transformers).

use serde_json::{Value, json};

use crate::config::{
    Bias, FeedForward, Heads, INIT_STD, Init, ModelConfig, NormKind, NormPlacement, Positions,
};
use crate::families::fields::{Fields, activation_name};
use crate::families::{Family, Stored};
use crate::init::Start;

/// The family of `model_type: gpt2`.
#[derive(Debug)]
pub(crate) struct Gpt2;

/// Parts of our parameters' paths, and what GPT-2 calls them.
const NAMES: [(&str, &str); 11] = [
    ("transformer.token_embedding.", "transformer.wte."),
    ("transformer.position_embedding.", "transformer.wpe."),
    ("transformer.embedding_norm.", "transformer.ln_e."), // GPT-2 has none; only our own models do.
    ("transformer.blocks.", "transformer.h."),
    ("transformer.final_norm.", "transformer.ln_f."),
    (".attention_norm.", ".ln_1."),
    (".attention.input.", ".attn.c_attn."),
    (".attention.output.", ".attn.c_proj."),
    (".feed_forward_norm.", ".ln_2."),
    (".mlp.input.", ".mlp.c_fc."),
    (".mlp.output.", ".mlp.c_proj."),
];

/// The path that a parameter had in optimizer states of Temper before its parameters had names of their own: GPT-2's.
pub fn former_path(path: &str) -> String {
    NAMES.into_iter().fold(path.to_owned(), |path, (ours, theirs)| path.replace(ours, theirs))
}

/// The name of the tensor that stores a parameter.
fn tensor_name(path: &str) -> String {
    let name = former_path(path);
    match name.rsplit_once('.') {
        Some((owner, "gamma")) => format!("{owner}.weight"),
        Some((owner, "beta")) => format!("{owner}.bias"),
        _ => name,
    }
}

/// GPT-2's own matrices are `[in, out]` as ours; the heads are `torch.nn.Linear`, `[out, in]`.
pub(super) fn stored(path: &str, dims: &[usize]) -> Stored {
    let name = tensor_name(path);
    let is_transposed = name == "score.weight" || name == "lm_head.weight";
    Stored::whole(name, dims, is_transposed)
}

/// GPT-2's masks, which some files hold, and the output matrix where it is the embedding.
pub(super) fn is_buffer(name: &str) -> bool {
    name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") || name == "lm_head.weight"
}

/// GPT2LMHeadModel writes `transformer.h.0…`, the hub's `gpt2` plain `h.0…`.
pub(super) fn other_name(name: &str) -> Option<&str> {
    name.strip_prefix("transformer.")
}

/// N(0, 0.02), residual projections divided by √(2 · layers), biases 0 (Radford et al. 2019, section 2.3).
pub(super) fn start(path: &str, config: &ModelConfig) -> Start {
    let (owner, kind) = path.rsplit_once('.').unwrap_or(("", path));
    match kind {
        "bias" => Start::Zeros,
        _ if owner.ends_with(".output") => Start::Normal(INIT_STD / (2.0 * config.n_layers as f64).sqrt()),
        _ => Start::Normal(INIT_STD),
    }
}

/// The keys of a `config.json` that GPT-2 and our own family have in common.
pub(super) fn write_shape(config: &ModelConfig, model_type: &str) -> Value {
    json!({
        "model_type": model_type,
        "vocab_size": config.vocab_size,
        "n_positions": config.max_seq_len,
        "n_ctx": config.max_seq_len,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": config.d_ff,
        "activation_function": activation_name(config.activation),
        "layer_norm_epsilon": config.norm_eps,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "attn_pdrop": config.attention_dropout,
        "tie_word_embeddings": config.tie_head,
        "initializer_range": INIT_STD,
        "torch_dtype": "float32",
    })
}

impl Family for Gpt2 {
    fn model_type(&self) -> &'static str {
        "gpt2"
    }

    fn causal_class(&self) -> &'static str {
        "GPT2LMHeadModel"
    }

    fn scalar_class(&self) -> &'static str {
        "GPT2ForSequenceClassification"
    }

    /// Whether Hugging Face's `GPT2LMHeadModel` computes the same function.
    fn describes(&self, config: &ModelConfig) -> bool {
        config.norm == NormPlacement::Pre
            && config.positions == Positions::Learned
            && !config.embedding_scale
            && !config.embedding_norm
            && config.final_norm
            && config.bias == Bias::All
            && config.heads == Heads::default()
            && config.feed_forward == FeedForward::Plain
            && config.norm_kind == NormKind::Layer
            && config.ff_dropout == 0.0
    }

    fn read_config(&self, fields: &Fields<'_>) -> Result<ModelConfig, String> {
        fields.without_effect(&["n_ctx"]);
        for key in ["scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"] {
            fields.only(key, false)?;
        }
        fields.only("scale_attn_weights", true)?;
        let dropout = fields.number("resid_pdrop", 0.1)?;
        if fields.number("embd_pdrop", 0.1)? != dropout {
            return Err("`embd_pdrop` differs from `resid_pdrop`".into());
        }
        let d_model = fields.count("n_embd")?;
        Ok(ModelConfig {
            vocab_size: fields.count("vocab_size")?,
            max_seq_len: fields.count("n_positions")?,
            d_model,
            n_layers: fields.count("n_layer")?,
            n_heads: fields.count("n_head")?,
            heads: Heads::default(),
            d_ff: fields.optional_count("n_inner")?.unwrap_or(d_model.saturating_mul(4)),
            activation: fields.activation("activation_function", "gelu_new")?,
            feed_forward: FeedForward::Plain,
            norm: NormPlacement::Pre,
            norm_kind: NormKind::Layer,
            norm_eps: fields.number("layer_norm_epsilon", 1e-5)?,
            positions: Positions::Learned,
            embedding_scale: false,
            embedding_norm: false,
            final_norm: true,
            bias: Bias::All,
            tie_head: fields.flag("tie_word_embeddings", true)?,
            dropout,
            attention_dropout: fields.number("attn_pdrop", 0.1)?,
            ff_dropout: 0.0,
            init: Init::Normal,
        })
    }

    fn write_config(&self, config: &ModelConfig) -> Value {
        let mut json = write_shape(config, self.model_type());
        json["temper"] = json!({ "init": config.init });
        json
    }

    fn stored(&self, path: &str, dims: &[usize], _config: &ModelConfig) -> Stored {
        stored(path, dims)
    }

    fn other_name<'a>(&self, name: &'a str) -> Option<&'a str> {
        other_name(name)
    }

    fn is_buffer(&self, name: &str) -> bool {
        is_buffer(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CausalLm, ModelConfig, Pooling, ScalarModel};
    use burn::tensor::Device;
    use rand::SeedableRng;
    use temper_tensor::visit;

    /// Gradient norms are summed in the order of the paths. With the same order they have the same bits as under the
    /// former names.
    #[test]
    fn our_paths_are_in_the_same_order_as_the_former_ones() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
        for preset in ["notebook", "gpt2-tiny"] {
            let config = ModelConfig {
                n_layers: 12,
                d_model: 4,
                tie_head: false,
                ..ModelConfig::preset(preset).unwrap()
            };
            let model = CausalLm::new(&config, &mut rng, &Device::flex());
            let scalar = ScalarModel::new(model.transformer.clone(), Pooling::Last, &mut rng);
            let (mut paths, mut scalar_paths) = (Vec::new(), Vec::new());
            visit(&model, |parameter| paths.push(parameter.path.to_owned()));
            visit(&scalar, |parameter| scalar_paths.push(parameter.path.to_owned()));
            for mut paths in [paths, scalar_paths] {
                paths.sort_unstable();
                let former: Vec<String> = paths.iter().map(|path| former_path(path)).collect();
                assert!(former.is_sorted(), "{former:?}");
            }
        }
    }

    #[test]
    fn parameters_have_the_names_of_hugging_face() {
        for (path, name) in [
            ("transformer.token_embedding.weight", "transformer.wte.weight"),
            ("transformer.blocks.3.attention_norm.gamma", "transformer.h.3.ln_1.weight"),
            ("transformer.blocks.3.attention.input.bias", "transformer.h.3.attn.c_attn.bias"),
            ("transformer.blocks.10.mlp.output.weight", "transformer.h.10.mlp.c_proj.weight"),
            ("transformer.final_norm.beta", "transformer.ln_f.bias"),
            ("lm_head.weight", "lm_head.weight"),
        ] {
            assert_eq!(tensor_name(path), name);
        }
        assert_eq!(former_path("lm.transformer.final_norm.beta"), "lm.transformer.ln_f.beta");
    }
}
