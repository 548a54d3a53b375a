//! Adapters alone are trained: nothing else moves, has optimizer state or is asked for when the run resumes.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use temper_model::{CausalLm, Dropout, Lora, ModelConfig, TokenBatch, nll};
use temper_tensor::{Gradients, TensorFile, values_of, visit};
use temper_train::{AdamWConfig, Optimizer};

const ROW: [u32; 6] = [1, 70, 80, 90, 71, 3];

/// Sums of a few dozen products in another order.
const ROUNDING: f32 = 1e-4;

fn logits(model: &CausalLm) -> Tensor<2> {
    let batch = TokenBatch::right_padded(&[ROW], &Device::flex());
    model.forward(&batch, &mut Dropout::off()).squeeze_dim(0)
}

fn loss(model: &CausalLm) -> Tensor<1> {
    let targets: Vec<i32> = ROW[1..].iter().map(|&id| id as i32).collect();
    nll(logits(model).narrow(0, 0, 5), Tensor::from_data(TensorData::new(targets, [5]), &Device::flex()))
}

fn step(model: CausalLm, optimizer: &mut Optimizer) -> CausalLm {
    optimizer.add(Gradients::of(&model, loss(&model)));
    optimizer.step(model, 0.01).unwrap().0
}

/// Paths and values of the parameters whose path contains `part`, or of all others.
fn parameters(model: &CausalLm, part: &str, contains: bool) -> Vec<(String, Vec<f32>)> {
    let mut found = Vec::new();
    visit(model, |parameter| {
        if parameter.path.contains(part) == contains {
            found.push((parameter.path.to_owned(), values_of(parameter.value)));
        }
    });
    found
}

fn check_close(logits: &Tensor<2>, expected: &[f32], what: &str) {
    let logits = values_of(logits.clone());
    assert_eq!(logits.len(), expected.len());
    assert!(logits.iter().zip(expected).all(|(a, b)| (a - b).abs() < ROUNDING), "{what}");
}

#[test]
fn adapters_are_trained_alone_resumed_and_merged() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("optimizer.safetensors");
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let base = CausalLm::new(&ModelConfig::preset("tiny").unwrap(), &mut rng, &Device::flex());
    let targets = ["attn.c_attn", "attn.c_proj"].map(str::to_owned).into();
    let lora = Lora { rank: 2, alpha: 1.0, targets, base: "tiny".into() };
    let mut model = base.clone().with_adapters(&lora, &mut rng).unwrap().train();
    check_close(&logits(&model.valid()), &values_of(logits(&base)), "a fresh adapter changes nothing");

    let mut optimizer = Optimizer::new(&AdamWConfig::default());
    for _ in 0..3 {
        model = step(model, &mut optimizer);
    }
    assert_eq!(
        parameters(&model, "lora_", false),
        parameters(&base, "lora_", false),
        "the base does not move"
    );
    assert!(values_of(loss(&model).inner())[0] < values_of(loss(&base))[0], "the adapters learn");

    optimizer.save(&state).unwrap();
    let bytes = std::fs::read(&state).unwrap();
    let file = TensorFile::parse(&bytes).unwrap();
    assert!(file.names().iter().all(|name| name.contains(".adapter.lora_")), "{:?}", file.names());
    // Two matrices with two moments each, on two layers of four blocks.
    assert_eq!(file.names().len(), 2 * 2 * 2 * 4);

    let mut resumed = Optimizer::new(&AdamWConfig::default());
    let loaded = model.valid().train();
    resumed.load(&state, &loaded).unwrap();
    let after = |model: &CausalLm| parameters(model, "", true);
    assert_eq!(after(&step(loaded, &mut resumed)), after(&step(model.clone(), &mut optimizer)));

    // Merged, and saved, which merges too: the same numbers and no adapter.
    let expected = values_of(logits(&model.valid()));
    let moved = values_of(logits(&base)).iter().zip(&expected).any(|(a, b)| (a - b).abs() > 10.0 * ROUNDING);
    assert!(moved, "the trained adapters change something");
    model.valid().save(dir.path(), 3).unwrap();
    for merged in [model.valid().merged(), CausalLm::load(dir.path(), &Device::flex()).unwrap()] {
        assert!(parameters(&merged, "lora_", true).is_empty());
        check_close(&logits(&merged), &expected, "merging changes nothing");
    }
}
