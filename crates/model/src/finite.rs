//! Whether a model computes finite numbers: its weights may all be finite, and what it makes of them not.

use burn::module::Module;
use burn::tensor::Tensor;
use temper_tensor::values_of;

use crate::batch::TokenBatch;
use crate::error::Error;
use crate::heads::{CausalLm, ScalarModel};
use crate::layers::dropout::Dropout;

/// Rows that are looked at: a model that has diverged fails at the first one.
const N_ROWS: usize = 4;

impl CausalLm {
    /// Runs the model, without dropout, on the first four of some rows of tokens.
    ///
    /// The last update of a run may diverge, and no loss tells: look at the model before it is saved as a result.
    ///
    /// # Errors
    /// [`Error::NonFiniteOutput`] if a hidden state or a logit is not finite, or the logits of a token are so far
    /// apart that their difference is not.
    ///
    /// # Panics
    /// If a row is empty or longer than the context.
    pub fn check_finite<R: AsRef<[u32]>>(&self, rows: &[R]) -> Result<(), Error> {
        let model = self.valid();
        let device = model.device();
        for row in rows.iter().take(N_ROWS) {
            let batch = TokenBatch::right_padded(&[row.as_ref()], &device);
            let hidden = model.transformer.forward(&batch, &mut Dropout::off()); // [1, seq, d_model]
            let [_, seq, _] = hidden.dims();
            let last: Tensor<2> = hidden.clone().narrow(1, seq - 1, 1).squeeze_dim(1);
            require_finite(&values_of(hidden))?;
            let logits = values_of(model.logits(last));
            require_finite(&logits)?;
            let (low, high) =
                logits.iter().fold((f32::MAX, f32::MIN), |(low, high), &x| (x.min(low), x.max(high)));
            require_finite(&[high - low])?;
        }
        Ok(())
    }
}

impl ScalarModel {
    /// Runs the model, without dropout, on the first four of some rows of tokens: see [`CausalLm::check_finite`].
    ///
    /// # Errors
    /// [`Error::NonFiniteOutput`] if a value is not finite.
    ///
    /// # Panics
    /// If a row is empty or longer than the context.
    pub fn check_finite<R: AsRef<[u32]>>(&self, rows: &[R]) -> Result<(), Error> {
        let model = self.valid();
        let device = model.device();
        for row in rows.iter().take(N_ROWS) {
            let batch = TokenBatch::right_padded(&[row.as_ref()], &device);
            require_finite(&values_of(model.values(&batch, &mut Dropout::off())))?;
        }
        Ok(())
    }
}

fn require_finite(values: &[f32]) -> Result<(), Error> {
    if values.iter().all(|value| value.is_finite()) { Ok(()) } else { Err(Error::NonFiniteOutput) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use temper_tensor::map;

    use crate::{ModelConfig, Pooling};

    /// Multiplies every weight.
    fn times<M: Module>(module: M, factor: f32) -> M {
        map(module, |parameter| parameter.value * factor)
    }

    #[test]
    fn finite_weights_that_compute_nan_are_found() {
        let rng = &mut ChaCha8Rng::seed_from_u64(0);
        let model = CausalLm::new(&ModelConfig::preset("tiny").unwrap(), rng, &Device::flex());
        let scalar = ScalarModel::new(model.transformer.clone(), Pooling::Last, rng);
        let rows = [vec![1u32, 2, 3], vec![7]];
        model.check_finite(&rows).unwrap();
        scalar.check_finite(&rows).unwrap();
        // An attention score is a product of six of these weights, more than f32 holds.
        assert!(matches!(times(model, 1e12).check_finite(&rows), Err(Error::NonFiniteOutput)));
        assert!(matches!(times(scalar, 1e12).check_finite(&rows), Err(Error::NonFiniteOutput)));
    }
}
