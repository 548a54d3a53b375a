//! The decoder without a head: token ids in, hidden states out.

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Initializer};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::Rng;

use crate::adapters::Lora;
use crate::batch::TokenBatch;
use crate::carried::Carried;
use crate::config::{ModelConfig, Positions};
use crate::families::{self, Family};
use crate::generation::cache::KvCache;
use crate::init::initialise;
use crate::layers::attention::Columns;
use crate::layers::block::Block;
use crate::layers::dropout::Dropout;
use crate::layers::linear::Linear;
use crate::layers::norm::Norm;
use crate::layers::positions::add_learned;
use crate::layers::rotary::Rotary;

/// Embeddings, blocks, and the norms around them.
#[derive(Module, Debug)]
pub struct Decoder {
    /// Token embedding, `[vocab, d_model]`; also the output head where that is tied.
    pub token_embedding: Embedding,
    /// Position embedding, `[max_seq_len, d_model]`.
    pub position_embedding: Option<Embedding>,
    /// Norm right after the embedding.
    pub embedding_norm: Option<Norm>,
    /// The blocks.
    pub blocks: Vec<Block>,
    /// Norm after the last block.
    pub final_norm: Option<Norm>,
    /// The angles of rotary positions.
    #[module(skip)]
    rotary: Option<Rotary>,
    #[module(skip)]
    config: ModelConfig,
    /// Whose files this decoder is read from and written to.
    #[module(skip)]
    pub(crate) family: &'static dyn Family,
    #[module(skip)]
    pub(crate) carried: Carried,
    /// How the linear layers are adapted, where they are.
    #[module(skip)]
    pub(crate) lora: Option<Lora>,
}

impl Decoder {
    /// A decoder with fresh weights drawn from `rng`, a host generator: the same on every backend.
    pub fn new(config: &ModelConfig, rng: &mut impl Rng, device: &Device) -> Self {
        initialise(Self::blank(config, families::of(config), device), config, rng)
    }

    /// A decoder whose weights are still to be loaded or drawn.
    pub(crate) fn blank(config: &ModelConfig, family: &'static dyn Family, device: &Device) -> Self {
        let embedding =
            |n| EmbeddingConfig::new(n, config.d_model).with_initializer(Initializer::Zeros).init(device);
        let norm = || Norm::of_stream(config, device);
        Self {
            token_embedding: embedding(config.vocab_size),
            position_embedding: (config.positions == Positions::Learned)
                .then(|| embedding(config.max_seq_len)),
            embedding_norm: config.embedding_norm.then(norm),
            blocks: (0..config.n_layers).map(|_| Block::blank(config, device)).collect(),
            final_norm: config.final_norm.then(norm),
            rotary: Rotary::new(config),
            config: config.clone(),
            family,
            carried: Carried::default(),
            lora: None,
        }
    }

    /// The shape of this decoder.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The angles of rotary positions, if it has these.
    pub(crate) fn rotary(&self) -> Option<&Rotary> {
        self.rotary.as_ref()
    }

    /// Where the weights are; with the autodiff mark while training.
    pub fn device(&self) -> Device {
        self.token_embedding.weight.device()
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

    /// Hidden states of left-padded prompts, whose keys and values are kept in `cache`.
    pub(crate) fn prefill(&self, batch: &TokenBatch, cache: &mut KvCache) -> Tensor<3> {
        self.run(batch, &mut Dropout::off(), Some(cache))
    }

    fn run(&self, batch: &TokenBatch, dropout: &mut Dropout, cache: Option<&mut KvCache>) -> Tensor<3> {
        let (needed, context) = (batch.n_positions, self.config.max_seq_len);
        assert!(needed <= context, "a sequence of {needed} tokens in a context of {context}");
        let rotation = self.rotary.as_ref().map(|rotary| rotary.of_batch(batch, &self.device().inner()));
        let columns = Columns { rotation: rotation.as_ref(), bias: Some(&batch.attend_bias) };
        self.hidden(batch.tokens.clone(), batch.positions.clone(), columns, dropout, cache)
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
        let rotation = self.rotary.as_ref().map(|rotary| rotary.of_column(positions, &device));
        let columns = Columns { rotation: rotation.as_ref(), bias: None };
        let positions = column(positions.iter().map(|&p| p as i32).collect());
        let tokens = column(tokens.iter().map(|&t| t as i32).collect());
        self.hidden(tokens, Some(positions), columns, &mut Dropout::off(), Some(cache))
    }

    /// Embedding, blocks, and the last norm.
    fn hidden(
        &self,
        tokens: Tensor<2, Int>,
        positions: Option<Tensor<2, Int>>,
        columns: Columns<'_>,
        dropout: &mut Dropout,
        mut cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let mut x = self.embed(tokens, positions, dropout);
        for (i, block) in self.blocks.iter().enumerate() {
            let layer = cache.as_mut().map(|cache| &mut cache.layers[i]);
            x = block.forward(x, columns, dropout, layer);
        }
        match &self.final_norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }

    fn embed(
        &self,
        tokens: Tensor<2, Int>,
        positions: Option<Tensor<2, Int>>,
        dropout: &mut Dropout,
    ) -> Tensor<3> {
        let mut x = self.token_embedding.forward(tokens); // [batch, seq, d_model]
        if self.config.embedding_scale {
            x = x.mul_scalar((self.config.d_model as f64).sqrt());
        }
        if let Some(table) = &self.position_embedding {
            x = add_learned(x, table, positions);
        }
        let x = dropout.apply(x, self.config.dropout);
        match &self.embedding_norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }

    /// The same decoder with every adapter folded into its weight.
    #[must_use]
    pub fn merged(self) -> Self {
        let merged = self.map_linear(|_, layer| layer.merge());
        Self { lora: None, ..merged }
    }

    /// Replaces every linear layer of the blocks, in order.
    pub(crate) fn map_linear(mut self, mut f: impl FnMut(&str, Linear) -> Linear) -> Self {
        let change = |(i, mut block): (usize, Block)| {
            let mut f = |name: &str, layer| f(&format!("blocks.{i}.{name}"), layer);
            block.attention.input = f("attention.input", block.attention.input);
            block.attention.output = f("attention.output", block.attention.output);
            block.mlp.gate = block.mlp.gate.map(|gate| f("mlp.gate", gate));
            block.mlp.input = f("mlp.input", block.mlp.input);
            block.mlp.output = f("mlp.output", block.mlp.output);
            block
        };
        self.blocks = std::mem::take(&mut self.blocks).into_iter().enumerate().map(change).collect();
        self
    }
}
