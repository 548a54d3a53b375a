//! Every kernel against its formula, with all gradients, with and without a tape.

use burn::tensor::{Device, Tensor, TensorData};

use crate::formula;

fn wave<const D: usize>(dims: [usize; D], phase: f32, device: &Device) -> Tensor<D> {
    let n: usize = dims.iter().product();
    let values: Vec<f32> = (0..n).map(|i| 3.0 * (i as f32 * 0.7 + phase).sin() + 0.2).collect();
    Tensor::from_data(TensorData::new(values, dims), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec::<f32>().expect("f32")
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= 2e-6 * largest, "number {i}: {found}, not {expected}");
    }
}

/// Rows of two numbers more, if `x` is to be cut out of them, so that its numbers do not lie one after the other.
fn wider<const D: usize>(mut dims: [usize; D], is_cut: bool) -> [usize; D] {
    dims[D - 1] += 2 * usize::from(is_cut);
    dims
}

/// Output and gradients of an operation on `x` and some vectors, under the loss Σ output · weights.
fn learned<const D: usize>(
    dims: [usize; D],
    is_cut: bool,
    n_vectors: usize,
    op: impl Fn(Tensor<D>, &[Tensor<1>]) -> Tensor<D>,
) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let leaf = wave(wider(dims, is_cut), 0.3, &device).require_grad();
    let width = dims[D - 1];
    let x = leaf.clone().narrow(D - 1, usize::from(is_cut), width);
    assert!(crate::flex::is_flex(&x), "or the formula would be compared with itself");
    let vectors: Vec<Tensor<1>> =
        (0..n_vectors).map(|i| wave([width], i as f32, &device).require_grad()).collect();
    let output = op(x.clone(), &vectors);
    let found = values(output.clone().inner());
    let gradients = (output * wave(dims, 1.9, &device)).sum().backward();
    let mut all = vec![found, values(leaf.grad(&gradients).expect("a gradient"))];
    all.extend(vectors.iter().map(|vector| values(vector.grad(&gradients).expect("a gradient"))));
    all
}

#[track_caller]
fn compare<const D: usize>(
    dims: [usize; D],
    n_vectors: usize,
    kernel: impl Fn(Tensor<D>, &[Tensor<1>]) -> Tensor<D>,
    formula: impl Fn(Tensor<D>, &[Tensor<1>]) -> Tensor<D>,
) {
    let (device, width) = (Device::flex(), dims[D - 1]);
    for is_cut in [false, true] {
        let expected = learned(dims, is_cut, n_vectors, &formula);
        for (found, expected) in learned(dims, is_cut, n_vectors, &kernel).iter().zip(expected) {
            assert_close(found, &expected);
        }
        // Without a tape.
        let x = wave(wider(dims, is_cut), 0.3, &device).narrow(D - 1, usize::from(is_cut), width);
        let vectors: Vec<Tensor<1>> = (0..n_vectors).map(|i| wave([width], i as f32, &device)).collect();
        assert_close(&values(kernel(x.clone(), &vectors)), &values(formula(x, &vectors)));
    }
}

/// Output and gradients of a linear map of rows of 7 numbers to 5, the rows cut out of wider ones or not. The weight or x may have
/// no gradient.
fn learned_linear(
    is_cut: bool,
    has_bias: bool,
    [learns_x, learns_weight]: [bool; 2],
    weight_dims: [usize; 2],
    op: impl Fn(Tensor<3>, Tensor<2>, Option<Tensor<1>>) -> Tensor<3>,
) -> Vec<Option<Vec<f32>>> {
    let device = Device::flex().autodiff();
    let leaf = wave(wider([2, 3, 7], is_cut), 0.3, &device).set_require_grad(learns_x);
    let weight = wave(weight_dims, 0.8, &device).set_require_grad(learns_weight);
    let bias = has_bias.then(|| wave([5], 2.0, &device).require_grad());
    let x = leaf.clone().narrow(2, usize::from(is_cut), 7);
    let output = op(x, weight.clone(), bias.clone());
    let values_of_output = values(output.clone().inner());
    let gradients = (output * wave([2, 3, 5], 1.9, &device)).sum().backward();
    let of_bias = bias.and_then(|bias| bias.grad(&gradients)).map(values);
    vec![
        Some(values_of_output),
        leaf.grad(&gradients).map(values),
        weight.grad(&gradients).map(values),
        of_bias,
    ]
}

#[test]
fn a_linear_map_is_its_formula() {
    for (i, learns) in [[true, true], [true, false], [false, true]].into_iter().enumerate() {
        for is_cut in [false, true] {
            for has_bias in [false, true] {
                let kernel = learned_linear(is_cut, has_bias, learns, [7, 5], crate::linear);
                let expected = learned_linear(is_cut, has_bias, learns, [7, 5], formula::linear);
                assert_eq!(
                    [kernel[1].is_some(), kernel[2].is_some(), kernel[3].is_some()],
                    [learns[0], learns[1], has_bias],
                    "{i}"
                );
                for (computed, expected) in kernel.iter().zip(&expected) {
                    assert_close(
                        computed.as_deref().unwrap_or_default(),
                        expected.as_deref().unwrap_or_default(),
                    );
                }
            }
            let kernel =
                learned_linear(is_cut, false, learns, [5, 7], |x, m, _| crate::transposed_linear(x, m));
            let expected =
                learned_linear(is_cut, false, learns, [5, 7], |x, m, _| formula::transposed_linear(x, m));
            for (computed, expected) in kernel.iter().zip(&expected) {
                assert_close(
                    computed.as_deref().unwrap_or_default(),
                    expected.as_deref().unwrap_or_default(),
                );
            }
        }
    }
    // Without a tape, of one vector, and so large that threads share it: [1 .. 200] times a matrix of ones.
    let device = Device::flex();
    let x = Tensor::<2>::ones([200, 300], &device);
    let output =
        values(crate::linear(x, Tensor::ones([300, 250], &device), Some(Tensor::ones([250], &device))));
    assert!(output.len() == 200 * 250 && output.iter().all(|number| *number == 301.0));
    let vector = Tensor::<1>::from_data([1.0, 2.0], &device);
    let matrix = Tensor::<2>::from_data([[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]], &device);
    assert_eq!(values(crate::linear(vector.clone(), matrix.clone(), None)), [15.0, 18.0, 21.0]);
    assert_eq!(values(crate::transposed_linear(vector, matrix.transpose())), [15.0, 18.0, 21.0]);
}

#[test]
fn gelu_is_its_formula() {
    compare([2, 3, 37], 0, |x, _| crate::gelu_tanh(x), |x, _| formula::gelu_tanh(x));
    let swapped = wave([3, 5], 0.1, &Device::flex()).swap_dims(0, 1);
    assert_close(&values(crate::gelu_tanh(swapped.clone())), &values(formula::gelu_tanh(swapped)));
    // Far away it is 0 and x; torch.nn.functional.gelu(torch.tensor([1.5, -1.5]), approximate="tanh") in float64 is
    // 1.3995715769802328 and -0.1004284230197672.
    let far = Tensor::<1>::from_data([-50.0, 50.0, 1.5, -1.5], &Device::flex());
    assert_close(&values(crate::gelu_tanh(far)), &[0.0, 50.0, 1.399_571_6, -0.100_428_42]);
}

#[test]
fn softmax_is_its_formula_with_one_bias_and_with_one_for_each_row() {
    for bias_batch in [1, 3] {
        let device = Device::flex();
        let (queries, keys) = (5, 21);
        let hidden = |i: usize| {
            let (row, key) = (i / keys, i % keys);
            if key > row % queries + 4 { f32::NEG_INFINITY } else { row as f32 * 0.1 }
        };
        let numbers: Vec<f32> = (0..bias_batch * queries * keys).map(hidden).collect();
        let bias = Tensor::<4>::from_data(TensorData::new(numbers, [bias_batch, 1, queries, keys]), &device);
        let bias_of = |x: &Tensor<4>| bias.clone().to_device(&x.device());
        compare(
            [3, 2, queries, keys],
            0,
            |x, _| crate::softmax_with_bias(x.clone(), bias_of(&x)),
            |x, _| formula::softmax_with_bias(x.clone(), bias_of(&x)),
        );
        let probs = values(crate::softmax_with_bias(wave([3, 2, queries, keys], 0.3, &device), bias.clone()));
        assert!(probs.chunks(keys).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-6));
        assert_eq!(probs[5], 0.0, "the first query sees five keys");
    }
}

#[test]
fn norms_are_their_formulas() {
    compare(
        [2, 3, 37],
        2,
        |x, p| crate::layer_norm(x, p[0].clone(), p[1].clone(), 1e-5),
        |x, p| formula::layer_norm(x, p[0].clone(), p[1].clone(), 1e-5),
    );
    compare(
        [4, 18],
        1,
        |x, p| crate::rms_norm(x, p[0].clone(), 1e-6),
        |x, p| formula::rms_norm(x, p[0].clone(), 1e-6),
    );
}

#[test]
fn a_gated_activation_is_its_formula() {
    // The vector is the gate of every row.
    let gated = |swiglu: fn(Tensor<2>, Tensor<2>) -> Tensor<2>| {
        move |x: Tensor<2>, p: &[Tensor<1>]| swiglu(p[0].clone().unsqueeze::<2>().repeat_dim(0, 4), x)
    };
    compare([4, 37], 1, gated(crate::swiglu), gated(formula::swiglu));
}

/// All numbers of a head are rotated, or only the first six of eight, in all heads or in the first two of three. The angles are
/// the same for every row, or differ.
#[test]
fn a_rotation_is_its_formula() {
    for (angles_batch, n_pairs, n_rotated) in [(1, 4, 3), (3, 4, 3), (1, 3, 3), (3, 4, 2)] {
        let angles = |heads: &Tensor<4>| {
            let angles = wave([angles_batch, 5, 1, n_pairs], 0.7, &Device::flex());
            [angles.clone().cos(), angles.sin()].map(|x| x.to_device(&heads.device()))
        };
        let with = |rotate: fn(Tensor<4>, usize, Tensor<4>, Tensor<4>) -> Tensor<4>| {
            move |heads: Tensor<4>, _: &[Tensor<1>]| {
                let [cos, sin] = angles(&heads);
                rotate(heads, n_rotated, cos, sin)
            }
        };
        compare([3, 5, 3, 8], 0, with(crate::rotate), with(formula::rotate));
    }
}

/// Rows of one block of queries and of several, with a causal bias that has numbers of its own, one for all rows or one for
/// each; heads of their own or shared ones. In the longest rows, the last block of queries is blind to a stretch in the
/// middle, and in the second of them also to the first keys.
#[test]
fn attention_is_its_formula() {
    let device = Device::flex();
    for (seq, n_heads, n_kv_heads, bias_batch) in
        [(5, 2, 2, 1), (70, 4, 2, 3), (230, 4, 1, 1), (230, 2, 2, 3)]
    {
        let hidden = |i: usize| {
            let (row, query, key) = (i / (seq * seq), i / seq % seq, i % seq);
            let is_hidden = query >= 192 && (128..192).contains(&key) || row == 1 && query >= 64 && key < 64;
            let is_seen = key <= query && key >= row.min(query) && !is_hidden;
            if is_seen { (key % 3) as f32 * 0.1 } else { f32::NEG_INFINITY }
        };
        let numbers: Vec<f32> = (0..bias_batch * seq * seq).map(hidden).collect();
        let bias = Tensor::<4>::from_data(TensorData::new(numbers, [bias_batch, 1, seq, seq]), &device);
        let bias_of = |x: &Tensor<3>| bias.clone().to_device(&x.device());
        let width = (n_heads + 2 * n_kv_heads) * 8;
        // The output is narrower than the input, which the comparison wants to be alike.
        let widened = |x: Tensor<3>, output: Tensor<3>| {
            let rest = width - n_heads * 8;
            Tensor::cat(vec![output, x.narrow(2, 0, rest)], 2)
        };
        // Large scores would have large rounding errors.
        let with = |attend: fn(Tensor<3>, Tensor<4>, usize, usize) -> Tensor<3>| {
            move |x: Tensor<3>, _: &[Tensor<1>]| {
                let output = attend(x.clone() * 0.3, bias_of(&x), n_heads, n_kv_heads);
                widened(x, output)
            }
        };
        compare([3, seq, width], 0, with(crate::self_attention), with(formula::self_attention));
    }
}

/// With and without a temperature, and with a logit of −∞ that no target is.
#[test]
fn log_probs_of_targets_and_entropies_are_their_formulas() {
    let targets = |x: &Tensor<2>| {
        let ids: Vec<i32> = (0..5).map(|i| i * 7 % 37).collect();
        Tensor::<1, burn::tensor::Int>::from_data(TensorData::new(ids, [5]), &x.device().inner())
    };
    for temperature in [1.0, 0.7] {
        // As wide as the input, which the comparison wants.
        let spread = |x: Tensor<1>| x.unsqueeze_dim::<2>(1).repeat_dim(1, 37);
        compare(
            [5, 37],
            0,
            |x, _| spread(crate::target_log_probs(x.clone(), targets(&x), temperature)),
            |x, _| spread(formula::target_log_probs(x.clone(), targets(&x), temperature)),
        );
        compare(
            [5, 37],
            0,
            |x, _| spread(crate::entropy(x, temperature)),
            |x, _| spread(formula::entropy(x, temperature)),
        );
        compare(
            [5, 37],
            0,
            |x, _| crate::log_probs(x, temperature),
            |x, _| formula::log_probs(x, temperature),
        );
    }
    // Large logits lose no digits: the same as 0, ln 2 and ln 5, but for the rounding of the logits themselves.
    let shifted = [-120.0f32, -120.0 + 2f32.ln(), -120.0 + 5f32.ln()];
    let differences = shifted.map(|logit| f64::from(logit) + 120.0);
    let log_sum = differences.iter().map(|difference| difference.exp()).sum::<f64>().ln();
    let expected = differences.map(|difference| difference - log_sum);
    let logits = || Tensor::<2>::from_data([shifted], &Device::flex());
    let logprobs = values(crate::log_probs(logits(), 1.0));
    assert!(
        logprobs.iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 3e-7),
        "{logprobs:?} {expected:?}"
    );
    let last = Tensor::from_data([2], &Device::flex());
    assert_eq!(values(crate::target_log_probs(logits(), last, 1.0)), logprobs[2..]);
    let expected_entropy: f64 = expected.iter().map(|logprob| -logprob.exp() * logprob).sum();
    let entropy = f64::from(values(crate::entropy(logits(), 1.0))[0]);
    assert!((entropy - expected_entropy).abs() < 5e-7, "{entropy} {expected_entropy}");

    let logits = Tensor::<2>::from_data([[0.0, 0.0, f32::NEG_INFINITY]], &Device::flex());
    assert_close(&values(crate::entropy(logits.clone(), 1.0)), &[2f32.ln()]);
    let first = Tensor::from_data([0], &Device::flex());
    assert_close(&values(crate::target_log_probs(logits, first, 1.0)), &[0.5f32.ln()]);
}

/// One query, two keys whose scores are ln 3 · √2 / √2 and 0: probabilities 3/4 and 1/4.
#[test]
fn probabilities_mix_the_values() {
    let device = Device::flex();
    let tensor =
        |values: Vec<f32>, keys| Tensor::<4>::from_data(TensorData::new(values, [1, 1, keys, 2]), &device);
    let root = 2f32.sqrt();
    let q = tensor(vec![3f32.ln(), 0.0], 1);
    let (k, v) = (tensor(vec![root, 0.0, 0.0, 5.0], 2), tensor(vec![4.0, 8.0, 0.0, -4.0], 2));
    let bias = Tensor::zeros([1, 1, 1, 2], &device);
    let mixed = values(formula::attention(q, k, v, bias, |probs| probs));
    assert!((mixed[0] - 3.0).abs() < 1e-5 && (mixed[1] - 5.0).abs() < 1e-5, "{mixed:?}");
}

/// Two heads of keys and values for four of queries: as if each were there twice, written out by hand.
#[test]
fn a_shared_head_serves_its_group_of_queries() {
    let device = Device::flex();
    let q = wave([2, 4, 3, 5], 0.0, &device);
    let (k, v) = (wave([2, 2, 3, 5], 1.0, &device), wave([2, 2, 3, 5], 2.0, &device));
    let twice = |x: &Tensor<4>| {
        let head = |i| x.clone().narrow(1, i, 1);
        Tensor::cat(vec![head(0), head(0), head(1), head(1)], 1)
    };
    let bias = Tensor::zeros([1, 1, 3, 3], &device);
    let repeated = formula::attention(q.clone(), twice(&k), twice(&v), bias.clone(), |probs| probs);
    let shared = formula::attention(q, k, v, bias, |probs| probs);
    assert_eq!(values(shared), values(repeated));
}

/// What has no gradient gets none, and the rest gets its own.
#[test]
fn a_frozen_gamma_has_no_gradient() {
    let device = Device::flex().autodiff();
    let x = wave([2, 8], 0.3, &device).require_grad();
    let [gamma, beta] = [0.1, 0.2].map(|phase| wave::<1>([8], phase, &device));
    let gradients = crate::layer_norm(x.clone(), gamma.clone(), beta, 1e-5).sum().backward();
    assert!(x.grad(&gradients).is_some() && gamma.grad(&gradients).is_none());
}

#[test]
fn what_is_not_a_number_stays_that() {
    let device = Device::flex();
    let x = Tensor::<1>::from_data([f32::NAN, 1.0], &device);
    assert!(values(crate::gelu_tanh(x))[0].is_nan());
    let scores = Tensor::<4>::from_data([[[[f32::NAN, 1.0]]]], &device);
    let probs = values(crate::softmax_with_bias(scores, Tensor::zeros([1, 1, 1, 2], &device)));
    assert!(probs.iter().all(|p| p.is_nan()), "{probs:?}");
    let projected = Tensor::<3>::from_data([[[f32::NAN, 1.0, 1.0], [1.0, 1.0, 1.0]]], &device);
    let mixed = values(crate::self_attention(projected, Tensor::zeros([1, 1, 2, 2], &device), 1, 1));
    assert!(mixed[0].is_nan() && mixed[1] == 1.0, "{mixed:?}");
}
