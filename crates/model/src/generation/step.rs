//! One step of decoding on the CPU: what [`CausalLm::decode`] computes, on rows of numbers in place of tensors.
//!
//! A step of a small model has little to compute, and a tensor operation costs a microsecond or two whatever its size. There
//! are about twenty of them in each layer. The formulas are those of the layers, and a test compares both ways.

use temper_kernels::decode::{
    Numbers, add_to, gelu_tanh_of, multiply_by, norm_rows, relu_of, rotate_heads, silu_of,
};
use temper_kernels::{add_product, has_kernels, transposed_product};

use crate::config::{Activation, NormPlacement};
use crate::generation::cache::{KvCache, LayerCache};
use crate::heads::CausalLm;
use crate::layers::block::Block;
use crate::layers::linear::Linear;
use crate::layers::norm::Norm;
use crate::layers::rotary::{Angles, Rotary};

/// A language model whose weights are read where they are.
#[derive(Debug)]
pub(crate) struct Stepper {
    d_model: usize,
    vocab_size: usize,
    embedding: Numbers,
    /// What the embedding is multiplied by.
    scale: f32,
    positions: Option<Numbers>,
    embedding_norm: Option<RowNorm>,
    blocks: Vec<StepBlock>,
    final_norm: Option<RowNorm>,
    /// The head, where it is not the embedding.
    head: Option<Map>,
    rotary: Option<Rotary>,
}

impl Stepper {
    /// That of a model on flex, without adapters. None for any other, and where a layer has no form for rows.
    pub(crate) fn of(model: &CausalLm) -> Option<Self> {
        let (decoder, config) = (&model.transformer, model.config());
        let weight = decoder.token_embedding.weight.val();
        let is_plain = has_kernels(&weight) && !weight.is_autodiff() && decoder.lora().is_none();
        if !is_plain || config.activation == Activation::Gelu {
            return None;
        }
        Some(Self {
            d_model: config.d_model,
            vocab_size: config.vocab_size,
            embedding: Numbers::of(weight),
            scale: if config.embedding_scale { (config.d_model as f64).sqrt() as f32 } else { 1.0 },
            positions: decoder.position_embedding.as_ref().map(|table| Numbers::of(table.weight.val())),
            embedding_norm: decoder.embedding_norm.as_ref().map(RowNorm::of),
            blocks: decoder.blocks.iter().map(StepBlock::of).collect(),
            final_norm: decoder.final_norm.as_ref().map(RowNorm::of),
            head: model.lm_head.as_ref().map(Map::of),
            rotary: decoder.rotary().cloned(),
        })
    }

    /// Reads one more token per row, and gives the logits of the next one, row by row: `[rows, vocab]`.
    ///
    /// # Panics
    /// If the cache is not in host memory.
    pub(crate) fn logits(&self, tokens: &[u32], positions: &[usize], cache: &mut KvCache) -> Vec<f32> {
        let mut x = self.embed(tokens, positions);
        let angles = self.rotary.as_ref().map(|rotary| rotary.angles(positions));
        let mut room = Room::default();
        for (block, layer) in self.blocks.iter().zip(&mut cache.layers) {
            block.apply(&mut x, angles.as_ref(), layer, &mut room);
        }
        if let Some(norm) = &self.final_norm {
            norm.apply(&mut x);
        }
        let mut logits = Vec::new();
        match &self.head {
            Some(head) => head.apply(&x, &mut logits),
            None => {
                logits.resize(tokens.len() * self.vocab_size, 0.0);
                transposed_product(&x, &self.embedding, self.d_model, &mut logits);
            }
        }
        logits
    }

    fn embed(&self, tokens: &[u32], positions: &[usize]) -> Vec<f32> {
        let d = self.d_model;
        let mut x = Vec::with_capacity(tokens.len() * d);
        for (token, position) in tokens.iter().zip(positions) {
            let start = x.len();
            x.extend_from_slice(&self.embedding[*token as usize * d..][..d]);
            if self.scale != 1.0 {
                x[start..].iter_mut().for_each(|x| *x *= self.scale);
            }
            if let Some(table) = &self.positions {
                add_to(&mut x[start..], &table[position * d..][..d]);
            }
        }
        if let Some(norm) = &self.embedding_norm {
            norm.apply(&mut x);
        }
        x
    }
}

/// Room for what a block computes, kept from one block to the next.
#[derive(Default)]
struct Room {
    normed: Vec<f32>,
    projected: Vec<f32>,
    mixed: Vec<f32>,
    hidden: Vec<f32>,
    gate: Vec<f32>,
    branch: Vec<f32>,
}

impl Room {
    /// Copies the input of a branch.
    fn read(&mut self, x: &[f32]) {
        self.normed.clear();
        self.normed.extend_from_slice(x);
    }
}

#[derive(Debug)]
struct StepBlock {
    placement: NormPlacement,
    attention_norm: RowNorm,
    projection: Map,
    query_norm: Option<RowNorm>,
    key_norm: Option<RowNorm>,
    output: Map,
    n_heads: usize,
    n_kv_heads: usize,
    feed_forward_norm: RowNorm,
    gate: Option<Map>,
    up: Map,
    down: Map,
    activation: Activation,
}

impl StepBlock {
    fn of(block: &Block) -> Self {
        let (attention, mlp) = (&block.attention, &block.mlp);
        Self {
            placement: block.norm_placement(),
            attention_norm: RowNorm::of(&block.attention_norm),
            projection: Map::of(&attention.input),
            query_norm: attention.query_norm.as_ref().map(RowNorm::of),
            key_norm: attention.key_norm.as_ref().map(RowNorm::of),
            output: Map::of(&attention.output),
            n_heads: attention.n_heads(),
            n_kv_heads: attention.n_kv_heads(),
            feed_forward_norm: RowNorm::of(&block.feed_forward_norm),
            gate: mlp.gate.as_ref().map(Map::of),
            up: Map::of(&mlp.input),
            down: Map::of(&mlp.output),
            activation: mlp.activation(),
        }
    }

    /// The block on one new token per row, in the place of its input: see [`Block::forward`].
    fn apply(&self, x: &mut [f32], angles: Option<&Angles>, cache: &mut LayerCache, room: &mut Room) {
        match self.placement {
            NormPlacement::Pre => {
                room.read(x);
                self.attention_norm.apply(&mut room.normed);
                self.attend(angles, cache, room);
                add_to(x, &room.branch);
                room.read(x);
                self.feed_forward_norm.apply(&mut room.normed);
                self.feed_forward(room);
                add_to(x, &room.branch);
            }
            NormPlacement::Post => {
                room.read(x);
                self.attend(angles, cache, room);
                add_to(x, &room.branch);
                self.attention_norm.apply(x);
                room.read(x);
                self.feed_forward(room);
                add_to(x, &room.branch);
                self.feed_forward_norm.apply(x);
            }
            NormPlacement::Parallel => {
                room.read(x);
                self.attention_norm.apply(&mut room.normed);
                self.attend(angles, cache, room);
                let first = std::mem::take(&mut room.branch);
                room.read(x);
                self.feed_forward_norm.apply(&mut room.normed);
                self.feed_forward(room);
                add_to(&mut room.branch, &first);
                add_to(x, &room.branch);
            }
        }
    }

    /// From `normed` to `branch`.
    fn attend(&self, angles: Option<&Angles>, cache: &mut LayerCache, room: &mut Room) {
        self.projection.apply(&room.normed, &mut room.projected);
        let n_heads = self.n_heads + 2 * self.n_kv_heads;
        let d_head = self.projection.d_out() / n_heads;
        let (q_width, rotated) = (self.n_heads * d_head, (self.n_heads + self.n_kv_heads) * d_head);
        for (row, projected) in room.projected.chunks_exact_mut(n_heads * d_head).enumerate() {
            if let Some((query_norm, key_norm)) = self.query_norm.as_ref().zip(self.key_norm.as_ref()) {
                query_norm.apply(&mut projected[..q_width]);
                key_norm.apply(&mut projected[q_width..rotated]);
            }
            if let Some(angles) = angles {
                let [cos, sin] = angles.of_row(row);
                rotate_heads(&mut projected[..rotated], d_head, cos, sin);
            }
        }
        cache.attend_rows(&room.projected, q_width, d_head, &mut room.mixed);
        self.output.apply(&room.mixed, &mut room.branch);
    }

    /// From `normed` to `branch`: see [`Mlp::forward`](crate::Mlp).
    fn feed_forward(&self, room: &mut Room) {
        self.up.apply(&room.normed, &mut room.hidden);
        match &self.gate {
            None => apply(self.activation, &mut room.hidden),
            Some(gate) => {
                gate.apply(&room.normed, &mut room.gate);
                apply(self.activation, &mut room.gate);
                multiply_by(&mut room.hidden, &room.gate);
            }
        }
        self.down.apply(&room.hidden, &mut room.branch);
    }
}

fn apply(activation: Activation, x: &mut [f32]) {
    match activation {
        Activation::Relu => relu_of(x),
        Activation::GeluTanh => gelu_tanh_of(x),
        Activation::Silu => silu_of(x),
        Activation::Gelu => unreachable!("such a model has no stepper"),
    }
}

/// A linear map.
#[derive(Debug)]
struct Map {
    d_in: usize,
    weight: Numbers,
    bias: Option<Numbers>,
}

impl Map {
    fn of(layer: &Linear) -> Self {
        Self {
            d_in: layer.weight.dims()[0],
            weight: Numbers::of(layer.weight.val()),
            bias: layer.bias.as_ref().map(|bias| Numbers::of(bias.val())),
        }
    }

    fn d_out(&self) -> usize {
        self.weight.len() / self.d_in
    }

    /// Writes x W + b of every row to `output`.
    fn apply(&self, x: &[f32], output: &mut Vec<f32>) {
        let (rows, d_out) = (x.len() / self.d_in, self.d_out());
        output.clear();
        match &self.bias {
            Some(bias) => (0..rows).for_each(|_| output.extend_from_slice(bias)),
            None => output.resize(rows * d_out, 0.0),
        }
        add_product(x, &self.weight, self.d_in, output);
    }
}

#[derive(Debug)]
struct RowNorm {
    gamma: Numbers,
    beta: Option<Numbers>,
    epsilon: f64,
}

impl RowNorm {
    fn of(norm: &Norm) -> Self {
        Self {
            gamma: Numbers::of(norm.gamma.val()),
            beta: norm.beta.as_ref().map(|beta| Numbers::of(beta.val())),
            epsilon: norm.epsilon(),
        }
    }

    fn apply(&self, rows: &mut [f32]) {
        norm_rows(rows, &self.gamma, self.beta.as_deref(), self.epsilon);
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::batch::TokenBatch;
    use crate::config::{Bias, FeedForward, Heads, ModelConfig, NormKind, PRESETS, Positions};
    use crate::generation::cache::Place;

    /// Prompts of unequal lengths, two more tokens for each, and one row that leaves in between.
    fn compare(config: &ModelConfig, what: &str) {
        let device = Device::flex();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let model = CausalLm::new(config, &mut rng, &device);
        // Biases and norms that are not 0 and 1.
        let model = temper_tensor::map(model, |parameter| {
            let n = parameter.value.dims()[0];
            let noise: Vec<f32> = (0..n).map(|i| 0.1 * (i as f32 * 0.7).sin()).collect();
            parameter.value + Tensor::<1>::from_data(TensorData::new(noise, [n]), &device)
        });
        if !has_kernels(&model.transformer.token_embedding.weight.val()) {
            return; // A build of this crate alone has no kernels, and so no such steps.
        }
        let stepper = Stepper::of(&model).unwrap();
        let prompts: [Vec<u32>; 5] = [vec![5], vec![6, 7, 8], vec![9, 10], vec![11; 6], vec![12, 13]];
        let batch = TokenBatch::left_padded(&prompts, &device);
        let pads: Vec<usize> = batch.lens.iter().map(|len| 6 - len).collect();
        let caches = || {
            let mut cache = KvCache::new(Place::Host, config, &pads, 9, &device);
            model.prefill(&batch, &mut cache);
            cache
        };
        let (mut cache, mut other) = (caches(), caches());
        let lens: Vec<usize> = prompts.iter().map(Vec::len).collect();
        let mut check = |tokens: &[u32], positions: &[usize], keep: &[usize]| {
            let expected = model.decode(tokens, positions, &mut other).into_data();
            let expected = expected.as_slice::<f32>().unwrap();
            let logits = stepper.logits(tokens, positions, &mut cache);
            let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            assert_eq!(logits.len(), expected.len());
            let worst = logits.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 1e-5 * largest.max(1.0), "{what}: {worst} of {largest}");
            cache.keep_rows(keep);
            other.keep_rows(keep);
        };
        check(&[40, 41, 42, 43, 44], &lens, &[0, 2, 3, 4]);
        let kept: Vec<usize> = [0, 2, 3, 4].map(|row: usize| lens[row] + 1).into();
        check(&[50, 52, 53, 54], &kept, &[1]);
        check(&[60], &[kept[1] + 1], &[0]);
    }

    #[test]
    fn a_step_is_that_of_the_tensors() {
        for preset in PRESETS.into_iter().filter(|preset| *preset != "gpt2-small") {
            compare(&ModelConfig { n_layers: 2, ..ModelConfig::preset(preset).unwrap() }, preset);
        }
        let medium = ModelConfig {
            n_layers: 2,
            d_model: 36,
            n_heads: 4,
            d_ff: 52,
            ..ModelConfig::preset("medium").unwrap()
        };
        let heads = Heads { n_kv_heads: Some(2), d_head: Some(10), qk_norm: true };
        compare(
            &ModelConfig { heads, bias: Bias::All, tie_head: false, ..medium.clone() },
            "grouped heads with norms",
        );
        let rotary = Positions::Rotary { theta: 1e3, share: 0.5, scaling: None };
        let neox = ModelConfig {
            positions: rotary,
            norm: NormPlacement::Parallel,
            norm_kind: NormKind::Layer,
            feed_forward: FeedForward::Plain,
            activation: Activation::GeluTanh,
            bias: Bias::All,
            ..medium
        };
        compare(&neox, "a parallel block");
    }

    #[test]
    fn what_has_no_form_for_rows_is_left_to_the_tensors() {
        let config = ModelConfig { activation: Activation::Gelu, ..ModelConfig::preset("tiny").unwrap() };
        let model = CausalLm::new(&config, &mut ChaCha8Rng::seed_from_u64(0), &Device::flex());
        assert!(Stepper::of(&model).is_none());
    }
}
