//! The decoder without a head: token ids in, hidden states out.

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Initializer};
use burn::tensor::{Device, Int, Tensor};
use rand::Rng;
use temper_tensor::{ints, recomputed};

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
    /// Whether blocks are computed again for their gradients: see [`Decoder::with_gradient_checkpointing`].
    pub(crate) recomputes_blocks: bool,
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
            recomputes_blocks: false,
        }
    }

    /// The same decoder; while it is trained, `recomputes_blocks` says that autodiff keeps the input of each block alone, and
    /// the block is computed again for its gradients ([`temper_tensor::recomputed`]). They are the same to the bit.
    #[must_use]
    pub fn with_gradient_checkpointing(self, recomputes_blocks: bool) -> Self {
        Self { recomputes_blocks, ..self }
    }

    /// Whether blocks are computed again for their gradients.
    pub fn has_gradient_checkpointing(&self) -> bool {
        self.recomputes_blocks
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
        let column = |ids: Vec<i32>| ints(ids, [tokens.len(), 1], &device);
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
            x = match self.recomputes_blocks && layer.is_none() {
                true => recomputed(block, x, dropout, block_on(columns)),
                false => block.forward(x, columns, dropout, layer),
            };
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

/// A block on columns that it owns.
fn block_on(columns: Columns<'_>) -> impl Fn(&Block, Tensor<3>, &mut Dropout) -> Tensor<3> + 'static {
    let (rotation, bias) = (columns.rotation.cloned(), columns.bias.cloned());
    move |block, x, dropout| {
        let columns = Columns { rotation: rotation.as_ref(), bias: bias.as_ref() };
        block.forward(x, columns, dropout, None)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use temper_tensor::{Gradients, values_of};

    use super::*;
    use crate::config::PRESETS;
    use crate::heads::CausalLm;

    /// With dropout, where a preset has it: the second run must draw the same masks.
    #[test]
    fn blocks_that_are_computed_again_have_the_same_gradients() {
        let device = Device::flex();
        let batch = TokenBatch::left_padded(&[vec![1, 2, 3, 4], vec![5, 6]], &device);
        for preset in PRESETS.into_iter().filter(|name| *name != "gpt2-small") {
            let config = ModelConfig::preset(preset).unwrap();
            let config = ModelConfig { n_layers: 2, ..config };
            let model = CausalLm::new(&config, &mut ChaCha8Rng::seed_from_u64(5), &device);
            let gradients = |recomputes_blocks: bool| {
                let model = model.clone().with_gradient_checkpointing(recomputes_blocks).train();
                let loss = model.forward(&batch, &mut Dropout::seeded(3)).powf_scalar(2.0).mean();
                let mut gradients = Gradients::of(&model, loss);
                let paths: Vec<String> = gradients.paths().map(str::to_owned).collect();
                let of_path = |path: &String| values_of(gradients.take(path).unwrap());
                paths.iter().map(of_path).zip(paths.clone()).collect::<Vec<_>>()
            };
            let expected = gradients(false);
            assert!(expected.len() > 2 * 7, "{preset} has {} gradients", expected.len());
            assert_eq!(gradients(true), expected, "{preset}");
        }
    }
}
