//! Small models of every shape with weights that matter, and rows of tokens for them.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use temper_model::{
    Activation, Bias, CausalLm, FeedForward, Heads, Init, ModelConfig, NormKind, NormPlacement, Pooling,
    Positions, ScalarModel,
};
use temper_tokenizer::Example;
use temper_train::AdamWConfig;

pub const VOCAB: u32 = 24;
pub const CONTEXT: usize = 32;

/// f32 sums of a few hundred numbers around 1, taken in another order; what a wrong row changes is around 0.1.
pub const TOLERANCE: f32 = 2e-4;

/// Fixed cases, so that a failure is the same for everybody. `PROPTEST_CASES` and `PROPTEST_RNG_SEED` look further.
pub fn cases(cases: u32) -> ProptestConfig {
    let given = ProptestConfig::default();
    let set = |name: &str| std::env::var_os(name).is_some();
    ProptestConfig {
        cases: if set("PROPTEST_CASES") { given.cases } else { cases },
        rng_seed: if set("PROPTEST_RNG_SEED") { given.rng_seed } else { RngSeed::Fixed(2017) },
        failure_persistence: None,
        ..given
    }
}

pub fn configs() -> impl Strategy<Value = ModelConfig> {
    let n_kv_heads = prop_oneof![Just(None), Just(Some(1))];
    let d_head = prop_oneof![Just(None), Just(Some(6))];
    let heads = (n_kv_heads, d_head, any::<bool>()).prop_map(|(n_kv_heads, d_head, qk_norm)| Heads {
        n_kv_heads,
        d_head,
        qk_norm,
    });
    let shape = (1usize..=2, prop_oneof![Just(1usize), Just(2)], heads);
    let rotary = |share| Positions::Rotary { theta: 100.0, share, scaling: None };
    let norms = (
        prop_oneof![Just(NormPlacement::Pre), Just(NormPlacement::Post), Just(NormPlacement::Parallel)],
        prop_oneof![Just(NormKind::Layer), Just(NormKind::Rms)],
    );
    let positions =
        prop_oneof![Just(Positions::Learned), Just(Positions::None), Just(rotary(1.0)), Just(rotary(0.5))];
    let activations = [Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Silu];
    let mlp = (
        prop::sample::select(activations.to_vec()),
        prop_oneof![Just(FeedForward::Plain), Just(FeedForward::Gated)],
    );
    let bias =
        prop_oneof![Just(Bias::None), Just(Bias::QueriesKeysValues), Just(Bias::Attention), Just(Bias::All)];
    (shape, norms, positions, mlp, bias, any::<[bool; 4]>()).prop_map(
        move |(
            (n_layers, n_heads, heads),
            (norm, norm_kind),
            positions,
            (activation, feed_forward),
            bias,
            flags,
        )| {
            let [embedding_scale, embedding_norm, final_norm, tie_head] = flags;
            // Half of 6 numbers cannot be rotated in pairs.
            let d_head = heads.d_head.filter(|_| positions != rotary(0.5));
            ModelConfig {
                vocab_size: VOCAB as usize,
                max_seq_len: CONTEXT,
                d_model: 8,
                n_layers,
                n_heads,
                heads: Heads { d_head, ..heads },
                d_ff: 12,
                activation,
                feed_forward,
                norm,
                norm_kind,
                norm_eps: 1e-5,
                positions,
                embedding_scale,
                embedding_norm,
                final_norm,
                bias,
                tie_head,
                dropout: 0.0,
                attention_dropout: 0.0,
                ff_dropout: 0.0,
                init: Init::Normal,
            }
        },
    )
}

pub fn language_model(config: &ModelConfig, seed: u64) -> CausalLm {
    strong(CausalLm::new(config, &mut ChaCha8Rng::seed_from_u64(seed), &Device::flex()), seed)
}

pub fn scalar_model(config: &ModelConfig, pooling: Pooling, seed: u64) -> ScalarModel {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let backbone = CausalLm::new(config, &mut rng, &Device::flex()).transformer;
    strong(ScalarModel::new(backbone, pooling, &mut rng), seed)
}

/// Fresh weights are so small that a model hardly looks at its tokens: these are uniform in ±0.8.
fn strong<M: Module>(module: M, seed: u64) -> M {
    struct Strong(ChaCha8Rng);
    impl ModuleMapper for Strong {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|value| {
                let dims = value.dims();
                let n: usize = dims.iter().product();
                let drawn: Vec<f32> = (0..n).map(|_| self.0.random::<f32>() * 1.6 - 0.8).collect();
                let wants_grad = value.is_require_grad();
                Tensor::from_data(TensorData::new(drawn, dims), &value.device()).set_require_grad(wants_grad)
            })
        }
    }
    module.map(&mut Strong(ChaCha8Rng::seed_from_u64(seed ^ 0x5eed)))
}

pub fn tokens(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0..VOCAB, len)
}

/// Rows of one to a dozen tokens.
pub fn rows(n: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<Vec<u32>>> {
    prop::collection::vec(tokens(1..13), n)
}

pub fn example(prompt: &[u32], completion: &[u32]) -> Example {
    Example::new([prompt, completion].concat(), prompt.len())
}

/// Examples with something to learn.
pub fn examples(n: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<Example>> {
    let one = (tokens(1..8), tokens(1..8)).prop_map(|(prompt, completion)| example(&prompt, &completion));
    prop::collection::vec(one, n)
}

/// Every weight of a module, in the order of its fields.
pub fn weights<M: Module>(module: &M) -> Vec<f32> {
    struct All(Vec<f32>);
    impl ModuleVisitor for All {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.extend(values(param.val().inner()));
        }
    }
    let mut all = All(Vec::new());
    module.visit(&mut all);
    all.0
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().as_slice::<f32>().expect("everything here is f32").to_vec()
}

/// An update that is a smooth function of the gradient, g / (|g| + 1): Adam's own first step would be its sign.
pub fn smooth() -> AdamWConfig {
    AdamWConfig { beta_1: 0.0, beta_2: 0.0, epsilon: 1.0, max_grad_norm: 0.0, ..AdamWConfig::default() }
}

/// Equal up to rounding, relative to numbers beyond 1.
pub fn check_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (a, b)) in found.iter().zip(expected).enumerate() {
        let allowed = TOLERANCE * b.abs().max(1.0);
        assert!((a - b).abs() <= allowed, "{what}: at {at} {a}, expected {b}");
    }
}

/// `items` in the order of `keys`: any permutation, for any keys.
pub fn shuffled_by<T: Clone>(items: &[T], keys: &[u32]) -> Vec<T> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&i| (keys[i % keys.len()], std::cmp::Reverse(i)));
    order.into_iter().map(|i| items[i].clone()).collect()
}
