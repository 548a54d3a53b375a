use temper_model::ScalarModel;
use temper_tokenizer::Example;

/// Scores each example without dropout and without recording gradients, `batch_size` rows at a time.
///
/// # Panics
/// If an example is longer than the model's context.
pub fn score(model: &ScalarModel, examples: &[&Example], batch_size: usize) -> Vec<f32> {
    let rows: Vec<_> = examples.iter().map(|example| example.row()).collect();
    model.score_rows(&rows, batch_size)
}
