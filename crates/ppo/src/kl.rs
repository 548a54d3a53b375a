//! The coefficient of the KL penalty over time.

use crate::config::KlConfig;

/// A KL coefficient: fixed, or aiming at a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlController {
    /// β, as it is used now.
    pub coef: f64,
    target: f64,
    horizon: f64,
}

impl KlController {
    /// A controller at the start.
    pub fn new(config: &KlConfig) -> Self {
        Self { coef: config.coef, target: config.target, horizon: config.horizon }
    }

    /// β ← β (1 + clip(KL / target − 1, ±0.2) · episodes / horizon) (Ziegler et al. 2019, section 2.2).
    ///
    /// Once per rollout, after β was used. `kl` is the mean over answers of their sums, in nats.
    pub fn update(&mut self, kl: f64, episodes: usize) {
        if self.target > 0.0 {
            let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
            self.coef *= 1.0 + error * episodes as f64 / self.horizon;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADAPTIVE: KlConfig = KlConfig { coef: 0.15, target: 6.0, horizon: 10_000.0 };

    /// Oracle 13.
    #[test]
    fn on_target_it_stays_and_far_off_it_moves_by_a_fifth_of_the_share() {
        let moved = |kl| {
            let mut controller = KlController::new(&ADAPTIVE);
            controller.update(kl, 500);
            controller.coef / 0.15
        };
        assert!((moved(6.0) - 1.0).abs() < 1e-12);
        assert!((moved(600.0) - 1.01).abs() < 1e-12);
        assert!((moved(0.0) - 0.99).abs() < 1e-12);
    }

    #[test]
    fn without_a_target_it_stays() {
        let mut controller = KlController::new(&KlConfig { target: 0.0, ..ADAPTIVE });
        controller.update(1e3, 500);
        assert_eq!(controller.coef, 0.15);
    }
}
