//! The decoder without a head: token ids in, hidden states out.

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Initializer, LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Int, Tensor, TensorData, s};
use rand::Rng;

use crate::block::Block;
use crate::carried::Carried;
use crate::config::{ModelConfig, Positions};
use crate::dropout::Dropout;
use crate::init;
use crate::input::TokenBatch;
use crate::kv_cache::KvCache;

/// Embeddings, blocks, and the norms around them. Field names are GPT-2's.
#[derive(Module, Debug)]
pub struct Backbone {
    /// Token embedding, `[vocab, d_model]`; also the output head where that is tied.
    pub wte: Embedding,
    /// Position embedding, `[max_seq_len, d_model]`.
    pub wpe: Option<Embedding>,
    /// Norm right after the embedding.
    pub ln_e: Option<LayerNorm>,
    /// The blocks.
    pub h: Vec<Block>,
    /// Norm after the last block.
    pub ln_f: Option<LayerNorm>,
    #[module(skip)]
    config: ModelConfig,
    #[module(skip)]
    pub(crate) carried: Carried,
}

impl Backbone {
    /// A backbone with fresh weights drawn from `rng`, a host generator: the same on every backend.
    pub fn new(config: &ModelConfig, rng: &mut impl Rng, device: &Device) -> Self {
        init::initialise(Self::blank(config, device), config, rng)
    }

    /// A backbone whose weights are still to be loaded.
    pub(crate) fn blank(config: &ModelConfig, device: &Device) -> Self {
        let embedding =
            |n| EmbeddingConfig::new(n, config.d_model).with_initializer(Initializer::Zeros).init(device);
        let layer_norm = || LayerNormConfig::new(config.d_model).with_epsilon(config.norm_eps).init(device);
        Self {
            wte: embedding(config.vocab_size),
            wpe: (config.positions == Positions::Learned).then(|| embedding(config.max_seq_len)),
            ln_e: config.embedding_norm.then(layer_norm),
            h: (0..config.n_layers).map(|_| Block::new(config, device)).collect(),
            ln_f: config.final_norm.then(layer_norm),
            config: config.clone(),
            carried: Carried::default(),
        }
    }

    /// The shape of this decoder.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the weights are; with the autodiff mark while training.
    pub fn device(&self) -> Device {
        self.wte.weight.device()
    }

    /// Hidden states of whole sequences.
    ///
    /// # Shapes
    /// - `batch`: `[batch, seq]`
    /// - output: `[batch, seq, d_model]`
    ///
    /// # Panics
    /// If a sequence is longer than the context.
    pub fn forward(&self, batch: &TokenBatch, dropout: &mut Dropout) -> Tensor<3> {
        self.run(batch, dropout, None)
    }

    /// The same for left-padded prompts, keeping their keys and values.
    pub(crate) fn prefill(&self, batch: &TokenBatch, cache: &mut KvCache) -> Tensor<3> {
        self.run(batch, &mut Dropout::off(), Some(cache))
    }

    fn run(&self, batch: &TokenBatch, dropout: &mut Dropout, mut cache: Option<&mut KvCache>) -> Tensor<3> {
        let (needed, context) = (batch.n_positions, self.config.max_seq_len);
        assert!(needed <= context, "a sequence of {needed} tokens in a context of {context}");
        let mut x = self.embed(batch.tokens.clone(), batch.positions.clone(), dropout);
        for (i, block) in self.h.iter().enumerate() {
            let layer = cache.as_mut().map(|cache| &mut cache.layers[i]);
            x = block.forward(x, &batch.attend_bias, dropout, layer);
        }
        self.finish(x)
    }

    /// Hidden state of one new token per row.
    ///
    /// # Shapes
    /// - `tokens` and `positions`: one per row
    /// - output: `[batch, 1, d_model]`
    pub(crate) fn decode(&self, tokens: &[u32], positions: &[usize], cache: &mut KvCache) -> Tensor<3> {
        let device = self.device().inner();
        let column =
            |ids: Vec<i32>| Tensor::<2, Int>::from_data(TensorData::new(ids, [tokens.len(), 1]), &device);
        let tokens = column(tokens.iter().map(|&t| t as i32).collect());
        let positions = column(positions.iter().map(|&p| p as i32).collect());
        let mut x = self.embed(tokens, Some(positions), &mut Dropout::off());
        for (block, layer) in self.h.iter().zip(&mut cache.layers) {
            x = block.decode(x, layer);
        }
        self.finish(x)
    }

    fn embed(
        &self,
        tokens: Tensor<2, Int>,
        positions: Option<Tensor<2, Int>>,
        dropout: &mut Dropout,
    ) -> Tensor<3> {
        let [_, seq] = tokens.dims();
        let mut x = self.wte.forward(tokens); // [batch, seq, d_model]
        if self.config.embedding_scale {
            x = x.mul_scalar((self.config.d_model as f64).sqrt());
        }
        if let Some(wpe) = &self.wpe {
            x = x + match positions {
                Some(positions) => wpe.forward(positions),
                None => wpe.weight.val().slice(s![0..seq, ..]).unsqueeze::<3>(),
            };
        }
        let x = dropout.apply(x, self.config.dropout);
        self.ln_e.as_ref().map_or(x.clone(), |norm| norm.forward(x))
    }

    fn finish(&self, x: Tensor<3>) -> Tensor<3> {
        self.ln_f.as_ref().map_or(x.clone(), |norm| norm.forward(x))
    }
}
