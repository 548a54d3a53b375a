//! The named means that an update reports.

use std::ops::AddAssign;

use burn::tensor::{Device, Tensor};
use temper_tensor::{Sum, World};

/// Losses and statistics of an update: means over completion tokens, or over values where the name says so.
///
/// `T` is `f64`, or `Tensor<1>` of shape `[1]` before the numbers are read from the device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossMeans<T = f64> {
    /// The clipped policy loss.
    pub policy_loss: T,
    /// The clipped value loss, over values; 0 without a critic.
    pub value_loss: T,
    /// The KL to the reference before it is weighted with β; 0 where it is not part of the loss.
    pub kl_loss: T,
    /// Share of tokens where clipping changed the policy loss.
    pub policy_clip_frac: T,
    /// Share of values where clipping changed the value loss; 0 without a critic.
    pub value_clip_frac: T,
    /// ½ (log π − log π_old)².
    pub approx_kl: T,
    /// π / π_old.
    pub ratio: T,
    /// Entropy of the whole distribution, in nats.
    pub entropy: T,
}

impl<T> LossMeans<T> {
    fn into_array(self) -> [T; 8] {
        let Self {
            policy_loss,
            value_loss,
            kl_loss,
            policy_clip_frac,
            value_clip_frac,
            approx_kl,
            ratio,
            entropy,
        } = self;
        [policy_loss, value_loss, kl_loss, policy_clip_frac, value_clip_frac, approx_kl, ratio, entropy]
    }

    fn from_array(array: [T; 8]) -> Self {
        let [policy_loss, value_loss, kl_loss, policy_clip_frac, value_clip_frac, approx_kl, ratio, entropy] =
            array;
        Self {
            policy_loss,
            value_loss,
            kl_loss,
            policy_clip_frac,
            value_clip_frac,
            approx_kl,
            ratio,
            entropy,
        }
    }
}

impl LossMeans<Tensor<1>> {
    /// All means and one more number, still on the device: `[9]`.
    pub(super) fn with(self, other: Tensor<1>) -> Tensor<1> {
        let mut tensors = Vec::from(self.into_array());
        tensors.push(other);
        Tensor::cat(tensors, 0)
    }
}

impl LossMeans {
    /// The means and the other number of [`LossMeans::with`], once they are read.
    pub(super) fn of(numbers: &[f32]) -> (Self, f64) {
        let (other, means) = numbers.split_last().expect("at least the other number was read");
        (Self::from_array(std::array::from_fn(|i| f64::from(means[i]))), f64::from(*other))
    }

    /// Weights the means over tokens with `token_share`, and those over values with `value_share`.
    ///
    /// The weighted means of the parts of a minibatch add up to the means of the minibatch.
    pub(super) fn scale(self, token_share: f64, value_share: f64) -> Self {
        Self {
            value_loss: value_share * self.value_loss,
            value_clip_frac: value_share * self.value_clip_frac,
            ..self.map(|mean| token_share * mean)
        }
    }

    /// Divides every sum by the number of its terms.
    pub(super) fn divide(self, n: f64) -> Self {
        self.map(|sum| sum / n)
    }

    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self::from_array(self.into_array().map(f))
    }
}

impl AddAssign for LossMeans {
    fn add_assign(&mut self, other: Self) {
        let (sums, terms) = (self.into_array(), other.into_array());
        *self = Self::from_array(std::array::from_fn(|i| sums[i] + terms[i]));
    }
}

impl Sum for LossMeans {
    fn add(&mut self, other: Self) {
        *self += other;
    }

    fn sum_over_ranks(&mut self, world: &World, _device: &Device) {
        let mut sums = self.into_array();
        world.sum_f64(&mut sums);
        *self = Self::from_array(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use temper_tensor::values_of;

    /// Two parts with 1 and 3 tokens, and with 2 and 2 values.
    #[test]
    fn the_means_of_parts_add_up_to_the_mean_of_all_tokens_or_values() {
        let part = |policy_loss, value_loss| LossMeans { policy_loss, value_loss, ..LossMeans::default() };
        let mut sum = part(8.0, 8.0).scale(0.25, 0.5);
        sum += part(4.0, 4.0).scale(0.75, 0.5);
        assert_eq!(sum, part((8.0 + 3.0 * 4.0) / 4.0, (2.0 * 8.0 + 2.0 * 4.0) / 4.0));
    }

    #[test]
    fn every_mean_is_read_under_its_own_name() {
        let number = |x: f32| Tensor::<1>::from_data([x], &burn::tensor::Device::flex());
        let tensors = LossMeans {
            policy_loss: number(1.0),
            value_loss: number(2.0),
            kl_loss: number(3.0),
            policy_clip_frac: number(4.0),
            value_clip_frac: number(5.0),
            approx_kl: number(6.0),
            ratio: number(7.0),
            entropy: number(8.0),
        };
        let (means, other) = LossMeans::of(&values_of(tensors.with(number(9.0))));
        let expected = LossMeans {
            policy_loss: 1.0,
            value_loss: 2.0,
            kl_loss: 3.0,
            policy_clip_frac: 4.0,
            value_clip_frac: 5.0,
            approx_kl: 6.0,
            ratio: 7.0,
            entropy: 8.0,
        };
        assert_eq!((means, other), (expected, 9.0));
    }
}
