//! A float that comes back from JSON as it went in.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A float in a state file, written as text.
///
/// A JSON number may come back as its neighbour: `serde_json` reads some of them with an error of one unit in the
/// last place, and a resumed run would then go another way than the one that was never stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Exact(pub f64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Exact).map_err(|_| D::Error::custom(format!("`{text}` is not a number")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn back(x: f64) -> f64 {
        let text = serde_json::to_string(&Exact(x)).unwrap();
        serde_json::from_str::<Exact>(&text).unwrap().0
    }

    proptest! {
        #[test]
        fn every_bit_comes_back(bits: u64) {
            let x = f64::from_bits(bits);
            prop_assume!(!x.is_nan());
            prop_assert_eq!(back(x).to_bits(), bits);
        }
    }

    /// The coefficient of an adaptive penalty after some rollouts, the kind of number that this is for.
    #[test]
    fn a_coefficient_that_a_json_number_would_move_comes_back() {
        let mut coef = 0.02f64;
        for _ in 0..10_000 {
            coef *= 1.0 + 0.2 * 64.0 / 10_000.0 * if coef < 0.5 { 1.0 } else { -0.31 };
            assert_eq!(back(coef).to_bits(), coef.to_bits());
        }
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        for text in ["\"a\"", "1.5", "null"] {
            assert!(serde_json::from_str::<Exact>(text).is_err(), "{text}");
        }
    }
}
