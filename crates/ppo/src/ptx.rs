//! PPO-ptx: pretraining text mixed into the updates, so that the policy does not forget its language.

use burn::module::Module;
use temper_data::Texts;
use temper_model::{CausalLm, Dropout, TargetLogits, TargetRow};
use temper_tensor::{Gradients, Unread, World, accumulate};
use temper_tokenizer::Example;
use temper_train::{Seed, shuffled};

use crate::networks::Policy;

/// `n` rows from place `start` on in an endless sequence of shuffled passes: a function of the seed alone, so that a
/// resumed run continues where it was.
pub(crate) fn draw(texts: &Texts, start: usize, n: usize, seed: Seed) -> Vec<&Example> {
    let len = texts.examples.len();
    let (mut order, mut order_of) = (Vec::new(), None);
    (start..start + n)
        .map(|place| {
            let pass = place / len;
            if order_of != Some(pass) {
                order = shuffled(len, &mut seed.stream_at("ptx", pass as u64));
                order_of = Some(pass);
            }
            &texts.examples[order[place % len]]
        })
        .collect()
}

/// The language-model loss of some rows in nats, and the gradients of `coef` times it: γ E\[log π(x)\] of InstructGPT's
/// Eq. (2).
///
/// The paper does not say how its two losses are scaled; here both are means. This loss is the mean over all tokens of
/// the rows; the policy loss is the mean over the completion tokens of its minibatch, with whitened advantages. The
/// temperature is 1 and there is no dropout. With a coefficient of 0 nothing is differentiated.
pub(crate) fn ptx_step(
    policy: &Policy,
    rows: &[&Example],
    coef: f64,
    microbatch_size: usize,
) -> (f64, Gradients) {
    let size = if microbatch_size == 0 { rows.len() } else { microbatch_size };
    let n_targets = |rows: &[&Example]| rows.iter().map(|row| row.n_targets()).sum::<usize>() as f64;
    let total = n_targets(rows);
    let (gradients, loss) = accumulate(
        &World::alone(),
        policy,
        rows,
        size,
        |policy, rows, (gradients, loss): &mut (Gradients, Unread<'_, f64>)| {
            let share = n_targets(rows) / total;
            let nll = if coef == 0.0 {
                text_loss(&policy.lm.valid(), rows)
            } else {
                let nll = text_loss(&policy.lm, rows);
                gradients.add(Gradients::of(policy, nll.clone().mul_scalar(coef * share)));
                nll.inner()
            };
            loss.push(nll, move |sum, nll| *sum += share * f64::from(nll[0]));
        },
    );
    (loss.read(), gradients)
}

fn text_loss(policy: &CausalLm, rows: &[&Example]) -> burn::tensor::Tensor<1> {
    let rows: Vec<TargetRow<'_>> = rows.iter().map(|row| row.row().into()).collect();
    TargetLogits::new(policy, &rows, &policy.device().inner(), &mut Dropout::off()).nll()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::language_model;
    use temper_train::{AdamWConfig, Optimizer};

    fn texts(n: usize) -> Texts {
        let example = |i: usize| Example::new([&[1][..], &[4, 5, 6, 7, 4, 6][..1 + i % 6], &[3]].concat(), 1);
        (0..n).map(example).collect::<Vec<_>>().into()
    }

    #[test]
    fn a_text_is_drawn_once_a_pass_wherever_the_batches_are_cut() {
        let data = texts(7);
        let place = |row: &Example| data.examples.iter().position(|other| std::ptr::eq(other, row)).unwrap();
        let all: Vec<usize> = draw(&data, 0, 21, Seed(4)).into_iter().map(place).collect();
        for pass in all.chunks(7) {
            let mut pass = pass.to_vec();
            pass.sort_unstable();
            assert_eq!(pass, [0, 1, 2, 3, 4, 5, 6]);
        }
        assert_ne!(all[..7], all[7..14], "another order in each pass");
        let cut =
            [draw(&data, 0, 5, Seed(4)), draw(&data, 5, 9, Seed(4)), draw(&data, 14, 7, Seed(4))].concat();
        assert_eq!(cut.into_iter().map(place).collect::<Vec<_>>(), all);
    }

    /// The gradient is that of the coefficient times the mean over tokens, however the rows are cut: with a fresh Adam
    /// of β₁ = β₂ = 0 and a huge ε, a step is the gradient itself.
    #[test]
    fn its_gradient_is_the_coefficient_times_that_of_the_mean_and_does_not_mind_microbatches() {
        let data = texts(6);
        let rows: Vec<&Example> = data.examples.iter().collect();
        let policy = Policy::new(language_model(1), None, usize::MAX).train();
        let moved = |gradients: Gradients| {
            let plain = AdamWConfig {
                beta_1: 0.0,
                beta_2: 0.0,
                epsilon: 1e6,
                max_grad_norm: 0.0,
                ..AdamWConfig::default()
            };
            let mut optimizer = Optimizer::new(&plain);
            optimizer.add(gradients);
            optimizer.step(policy.clone(), 1.0).unwrap().1
        };
        let (loss, gradients) = ptx_step(&policy, &rows, 3.0, 0);
        let whole = text_loss(&policy.lm, &rows);
        assert!((loss - whole.clone().into_scalar::<f64>()).abs() < 1e-6);
        let expected = 3.0 * moved(Gradients::of(&policy, whole));
        let norm = moved(gradients);
        assert!((norm - expected).abs() < 1e-5 * expected, "{norm} {expected}");
        for size in [1, 4] {
            let (micro, gradients) = ptx_step(&policy, &rows, 3.0, size);
            let norm = moved(gradients);
            assert!((micro - loss).abs() < 1e-6 && (norm - expected).abs() < 1e-5 * expected);
        }
        let (loss_alone, none) = ptx_step(&policy, &rows, 0.0, 0);
        assert!((loss_alone - loss).abs() < 1e-6);
        assert_eq!(moved(none), 0.0, "nothing is learned with a coefficient of 0");
    }
}
