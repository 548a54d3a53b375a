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

/// Refuses a learning rate that is not a positive number.
///
/// # Errors
/// [`Error::OutOfRange`].
pub fn require_positive(key: &'static str, value: f64) -> Result<(), Error> {
    require(value > 0.0 && value.is_finite(), key, value, "a number above 0")
}

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
