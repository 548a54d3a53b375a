//! Checks of settings, in the words of the user.

use std::fmt::Display;

use crate::error::Error;

/// Refuses a setting that does not hold `condition`.
///
/// # Errors
/// [`Error::OutOfRange`] with the key, its value and what it must be.
pub fn require(
    condition: bool,
    key: &'static str,
    value: impl Display,
    expected: &'static str,
) -> Result<(), Error> {
    if condition { Ok(()) } else { Err(Error::OutOfRange { key, value: value.to_string(), expected }) }
}

/// Refuses what is not above 0, or what computing in f32 cannot use: below 1e-30 or above 1e6.
///
/// A learning rate, a temperature or a coefficient that must not be 0. Outside of this range a product with a loss or
/// a gradient becomes 0 or infinite, and the run ends with a number that is not finite or learns nothing.
///
/// # Errors
/// [`Error::OutOfRange`].
pub fn require_positive(key: &'static str, value: f64) -> Result<(), Error> {
    require(is_usable(value), key, value, "a number above 0, between 1e-30 and 1e6")
}

/// Refuses a weight or coefficient that is not 0 and not a number that [`require_positive`] takes.
///
/// # Errors
/// [`Error::OutOfRange`].
pub fn require_coefficient(key: &'static str, value: f64) -> Result<(), Error> {
    require(value == 0.0 || is_usable(value), key, value, "0, or a number between 1e-30 and 1e6")
}

/// Refuses a number of either sign that computing in f32 cannot use: further than 1e6 from 0.
///
/// # Errors
/// [`Error::OutOfRange`].
pub fn require_f32(key: &'static str, value: f64) -> Result<(), Error> {
    let usable = value == 0.0 || is_usable(value.abs());
    require(usable, key, value, "0, or a number of size 1e-30 to 1e6")
}

/// Refuses a result that is NaN or infinite: the loss of an evaluation, say, by which the best model is chosen.
///
/// # Errors
/// [`Error::NonFiniteResult`].
pub fn require_finite(what: &'static str, step: usize, value: f64) -> Result<(), Error> {
    if value.is_finite() { Ok(()) } else { Err(Error::NonFiniteResult { what, step, value }) }
}

/// Whether the number is positive, and so are its square and its product with a loss in f32.
pub(crate) fn is_usable(value: f64) -> bool {
    (SMALLEST..=LARGEST).contains(&value)
}

/// Far above the smallest number that f32 holds in full precision, 1.2e-38, and far below any setting that is in use.
const SMALLEST: f64 = 1e-30;
/// Its cube is still far below the largest number of f32, 3.4e38, and it is far above any setting that is in use.
pub(crate) const LARGEST: f64 = 1e6;

/// Refuses a count of zero.
///
/// # Errors
/// [`Error::OutOfRange`].
pub fn require_count(key: &'static str, value: usize) -> Result<(), Error> {
    require(value > 0, key, value, "at least 1")
}

/// Refuses what is not a fraction in [0, 1].
///
/// # Errors
/// [`Error::OutOfRange`].
pub fn require_fraction(key: &'static str, value: f64) -> Result<(), Error> {
    require((0.0..=1.0).contains(&value), key, value, "between 0 and 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_f32_cannot_use_is_refused_with_its_key() {
        let unusable = [f64::NAN, f64::INFINITY, 1e308, 1e7, 1e-40, 1e-320];
        for value in unusable {
            for found in [
                require_positive("beta", value),
                require_coefficient("margin", value),
                require_f32("center", value),
                require_f32("center", -value),
            ] {
                assert!(matches!(found, Err(Error::OutOfRange { .. })), "{value}");
            }
        }
        for value in [1e-30, 1e-8, 1.0, 1e6] {
            require_positive("beta", value).unwrap();
            require_coefficient("margin", value).unwrap();
            require_f32("center", -value).unwrap();
        }
        require_coefficient("margin", 0.0).unwrap();
        require_f32("center", 0.0).unwrap();
        assert_eq!(
            require_positive("beta", 0.0).unwrap_err().to_string(),
            "`beta` is 0, it must be a number above 0, between 1e-30 and 1e6"
        );
        assert!(require_coefficient("margin", -1.0).is_err());
    }
}
