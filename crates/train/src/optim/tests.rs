//! Tests of the optimizer.

use super::*;
use burn::module::Param;
use burn::tensor::Device;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use temper_tensor::Trainable;

#[derive(Module, Debug)]
struct Two {
    a: Param<Tensor<1>>,
    b: Param<Tensor<2>>,
}

fn two() -> Two {
    let device = Device::flex();
    Two {
        a: Param::from_tensor(Tensor::from_data([1.0f32, -2.0], &device)),
        b: Param::from_tensor(Tensor::from_data([[0.5f32, 3.0]], &device)),
    }
    .train()
}

/// A loss whose gradients are the given numbers.
fn loss(module: &Two, a: [f32; 2], b: [f32; 2]) -> Tensor<1> {
    let device = Device::flex();
    (module.a.val() * Tensor::from_data(a, &device)).sum()
        + (module.b.val() * Tensor::from_data([b], &device)).sum()
}

fn values(module: &Two) -> Vec<f32> {
    let (a, b) = (module.a.val().into_data(), module.b.val().into_data());
    [a.as_slice::<f32>().unwrap(), b.as_slice::<f32>().unwrap()].concat()
}

fn close(found: &[f32], expected: &[f32]) {
    let near = |(a, b): (&f32, &f32)| (a - b).abs() < 2e-6;
    assert!(found.len() == expected.len() && found.iter().zip(expected).all(near), "{found:?} {expected:?}");
}

const CONFIG: AdamWConfig = AdamWConfig {
    beta_1: 0.9,
    beta_2: 0.95,
    epsilon: 1e-5,
    epsilon_style: EpsilonStyle::Pytorch,
    weight_decay: 0.1,
    max_grad_norm: 0.0,
};

/// Expected numbers by hand: the first step of Adam moves each weight by lr · g / (|g| + ε), after the decay.
#[test]
fn the_first_step_moves_by_the_learning_rate() {
    let mut optimizer = Optimizer::new(&CONFIG);
    let module = two();
    let total = loss(&module, [3.0, -4.0], [0.0, 12.0]);
    optimizer.accumulate(&module, total);
    let (module, norm) = optimizer.step(module, 0.01).unwrap();
    assert!((norm - 13.0).abs() < 1e-5);
    close(&values(&module), &[0.999 - 0.01, -1.998 + 0.01, 0.4995, 2.997 - 0.01]);
}

/// Oracle 14: lr √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + ε), written out in f64. Gradients near ε, where the styles differ:
/// of the first step's, as large as ε / √(1 − β₂), TensorFlow's makes half a step and PyTorch's nearly a whole one.
#[test]
fn tensorflows_epsilon_is_outside_the_bias_correction() {
    let (lr, epsilon, beta_1, beta_2) = (0.5, 1e-5, 0.9, 0.999);
    let config = AdamWConfig {
        beta_1,
        beta_2,
        epsilon,
        epsilon_style: EpsilonStyle::Tensorflow,
        weight_decay: 0.0,
        ..CONFIG
    };
    let first = epsilon / (1.0 - beta_2).sqrt();
    let gradients = [[first, 0.0], [-2e-4, 3e-5], [1e-4, 1.0]];
    let mut optimizer = Optimizer::new(&config);
    let mut module = two();
    let mut expected = [1.0, -2.0];
    let (mut m, mut v) = ([0.0; 2], [0.0; 2]);
    for (t, gradient) in gradients.iter().enumerate() {
        let total = loss(&module, gradient.map(|g| g as f32), [0.0, 0.0]);
        optimizer.accumulate(&module, total);
        module = optimizer.step(module, lr).unwrap().0;
        let t = t as i32 + 1;
        let rate = lr * (1.0 - beta_2.powi(t)).sqrt() / (1.0 - beta_1.powi(t));
        for (i, g) in gradient.iter().enumerate() {
            m[i] = beta_1 * m[i] + (1.0 - beta_1) * g;
            v[i] = beta_2 * v[i] + (1.0 - beta_2) * g * g;
            expected[i] -= rate * m[i] / (f64::sqrt(v[i]) + epsilon);
        }
        if t == 1 {
            assert!((expected[0] - 0.75f64).abs() < 1e-12, "half of the step of 0.5: {expected:?}");
        }
        close(&values(&module)[..2], &expected.map(|x| x as f32));
    }
}

#[test]
fn the_norm_is_taken_over_all_parameters_together() {
    let config = AdamWConfig { max_grad_norm: 1.0, beta_1: 0.0, ..CONFIG };
    let mut optimizer = Optimizer::new(&config);
    let module = two();
    let total = loss(&module, [3.0, -4.0], [0.0, 12.0]);
    optimizer.accumulate(&module, total);
    optimizer.step(module, 0.01).unwrap();
    let first = optimizer.moments["a"].first.to_data();
    close(first.as_slice().unwrap(), &[3.0 / 13.0, -4.0 / 13.0]);
}

#[test]
fn two_microbatches_add_up_to_one_batch() {
    let run = |parts: &[([f32; 2], [f32; 2])]| {
        let mut optimizer = Optimizer::new(&CONFIG);
        let module = two();
        for (a, b) in parts {
            let part = loss(&module, *a, *b);
            optimizer.accumulate(&module, part);
        }
        values(&optimizer.step(module, 0.01).unwrap().0)
    };
    close(&run(&[([1.0, 2.0], [3.0, 0.5]), ([2.0, -5.0], [1.0, 0.5])]), &run(&[([3.0, -3.0], [4.0, 1.0])]));
}

#[test]
fn the_host_kernel_equals_tensor_operations() {
    let device = Device::flex();
    let tensor = |values: [f32; 3]| Tensor::<1>::from_data(values, &device);
    let moments =
        || Moments { dims: vec![3], first: tensor([0.1, 0.2, -0.3]), second: tensor([0.01, 0.5, 0.2]) };
    let update = Update::new(&CONFIG, 3, 0.02, 0.7);
    let (p, g) = (tensor([1.0, -2.0, 0.5]), tensor([0.3, 9.0, -0.001]));
    let (mut a, mut b) = (moments(), moments());
    let host = update.on_host(p.clone(), g.clone(), &mut a).into_data();
    let on_device = update.on_device(p, g, &mut b).into_data();
    close(host.as_slice().unwrap(), on_device.as_slice().unwrap());
    close(a.second.into_data().as_slice().unwrap(), b.second.into_data().as_slice().unwrap());
}

#[test]
fn saved_state_gives_the_same_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("optimizer.safetensors");
    let next = |optimizer: &mut Optimizer, module: Two| {
        let total = loss(&module, [1.0, 0.3], [-2.0, 0.1]);
        optimizer.accumulate(&module, total);
        optimizer.step(module, 0.01).unwrap().0
    };
    let mut optimizer = Optimizer::new(&CONFIG);
    let module = next(&mut optimizer, two());
    optimizer.save(&path).unwrap();
    let mut restored = Optimizer::new(&CONFIG);
    restored.load(&path, &module).unwrap();
    assert_eq!(values(&next(&mut restored, module.clone())), values(&next(&mut optimizer, module)));
}

#[test]
fn state_of_another_model_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("optimizer.safetensors");
    let refused = || Optimizer::new(&CONFIG).load(&path, &two()).unwrap_err().to_string();
    // Before the first update there is none; after one there must be.
    Optimizer::new(&CONFIG).save(&path).unwrap();
    Optimizer::new(&CONFIG).load(&path, &two()).unwrap();
    let nothing: Vec<(String, TensorView<'_>)> = Vec::new();
    let metadata = [("updates".to_owned(), "1".to_owned())].into();
    std::fs::write(&path, safetensors::serialize(nothing, Some(metadata)).unwrap()).unwrap();
    assert!(refused().ends_with("no optimizer state `a/first`"), "{}", refused());

    // Writes moments of `a`, and of `b` in a shape and type, and of one more.
    let write = |b: &[usize], dtype: Dtype, more: Option<&str>| {
        let zeros = [0; 8];
        let view = |dims: &[usize]| TensorView::new(dtype, dims.to_vec(), &zeros).unwrap();
        let mut views = vec![];
        for kind in ["first", "second"] {
            views.push((format!("a/{kind}"), view(&[2])));
            views.push((format!("b/{kind}"), view(b)));
        }
        views.extend(more.map(|name| (name.to_owned(), view(&[2]))));
        let metadata = [("updates".to_owned(), "7".to_owned())].into();
        std::fs::write(&path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
    };
    write(&[2, 1], Dtype::F32, None);
    assert!(refused().ends_with("`b/first` has the shape [2, 1], the model [1, 2]"), "{}", refused());
    write(&[1, 2], Dtype::I32, None);
    assert!(refused().ends_with("`a/first` has the type I32, not F32"), "{}", refused());
    write(&[1, 2], Dtype::F32, Some("c/first"));
    assert!(refused().ends_with("`c/first` belongs to no parameter of the model"), "{}", refused());
    write(&[1, 2], Dtype::F32, None);
    let mut optimizer = Optimizer::new(&CONFIG);
    optimizer.load(&path, &two()).unwrap();
    assert_eq!(optimizer.updates(), 7);
}

#[test]
fn impossible_numbers_in_a_state_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("optimizer.safetensors");
    let module = two();
    let mut optimizer = Optimizer::new(&CONFIG);
    let total = loss(&module, [1.0, 0.3], [-2.0, 0.1]);
    optimizer.accumulate(&module, total);
    optimizer.step(module, 0.01).unwrap();
    optimizer.save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&whole).unwrap();
    let check = |updates: &str, name: &str, dtype: Dtype, value: f32, says: &str| {
        let spoil = |(other, view): (String, TensorView)| {
            let mut bytes = view.data().to_vec();
            let mut kind = view.dtype();
            if other == name {
                bytes[..4].copy_from_slice(&value.to_le_bytes());
                kind = dtype;
            }
            (other, kind, view.shape().to_vec(), bytes)
        };
        let tensors: Vec<_> = file.tensors().into_iter().map(spoil).collect();
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        let metadata = [("updates".to_owned(), updates.to_owned())].into();
        std::fs::write(&path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
        let error = Optimizer::new(&CONFIG).load(&path, &two()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    check("1", "a/first", Dtype::F32, f32::NAN, "`a/first` holds NaN");
    check("1", "b/second", Dtype::F32, f32::INFINITY, "`b/second` holds inf");
    check("1", "a/second", Dtype::F32, -0.5, "`a/second` holds -0.5");
    check("1", "a/first", Dtype::I32, 0.0, "`a/first` has the type I32, not F32");
    check(&u64::MAX.to_string(), "", Dtype::F32, 0.0, "how many updates were made");
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let mut optimizer = Optimizer::new(&CONFIG);
    let module = two();
    let total = loss(&module, [f32::NAN, 0.0], [0.0, 0.0]);
    optimizer.accumulate(&module, total);
    assert!(matches!(optimizer.step(module, 0.01), Err(Error::NonFinite { .. })));
}

/// `a` alone is trained: `b` does not move, has no state, and is not asked for when the run resumes.
#[test]
fn parameters_that_are_not_trained_have_no_state_and_do_not_move() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("optimizer.safetensors");
    let only_a = Trainable::only(|path| path == "a");
    let next = |optimizer: &mut Optimizer, module: Two| {
        let total = loss(&module, [1.0, 0.3], [-2.0, 0.1]);
        optimizer.accumulate(&module, total);
        optimizer.step(module, 0.01).unwrap().0
    };
    let mut optimizer = Optimizer::new(&CONFIG);
    let module = next(&mut optimizer, only_a.mark(two()));
    assert_ne!(values(&module)[..2], values(&two())[..2]);
    assert_eq!(values(&module)[2..], values(&two())[2..]);
    assert_eq!(optimizer.moments.keys().collect::<Vec<_>>(), ["a"]);
    optimizer.save(&path).unwrap();

    let mut resumed = Optimizer::new(&CONFIG);
    let loaded = only_a.mark(module.valid()).train();
    resumed.load(&path, &loaded).unwrap();
    assert_eq!(values(&next(&mut resumed, loaded)), values(&next(&mut optimizer, module.clone())));
    // A run that trains everything cannot continue from it, and the other way round.
    let refused = |module: &Two| Optimizer::new(&CONFIG).load(&path, module).unwrap_err().to_string();
    assert!(refused(&two()).ends_with("no optimizer state `b/first`"), "{}", refused(&two()));
    let only_b = Trainable::only(|path| path == "b").mark(two());
    assert!(refused(&only_b).ends_with("no optimizer state `b/first`"), "{}", refused(&only_b));
}

/// A file from when `a` was called `first.a`, and `b` had the name that it has.
#[test]
fn a_state_under_former_names_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("optimizer.safetensors");
    let tensor = |name: &str, dims: &[usize], value: f32| NamedTensor {
        name: name.into(),
        dims: dims.into(),
        values: vec![value; 2],
    };
    let tensors = [
        tensor("first.a/first", &[2], 1.0),
        tensor("first.a/second", &[2], 2.0),
        tensor("b/first", &[1, 2], 3.0),
        tensor("b/second", &[1, 2], 4.0),
    ];
    std::fs::write(&path, write_tensors(&tensors, ("updates", "5"))).unwrap();
    let mut optimizer = Optimizer::new(&CONFIG);
    optimizer.load_renamed(&path, &two(), |path| format!("first.{path}")).unwrap();
    let means = |path: &str| {
        let moments = &optimizer.moments[path];
        [&moments.first, &moments.second].map(|moment| values_of(moment.clone())[0])
    };
    assert_eq!((means("a"), means("b"), optimizer.updates()), ([1.0, 2.0], [3.0, 4.0], 5));
    assert!(Optimizer::new(&CONFIG).load(&path, &two()).is_err());
}
