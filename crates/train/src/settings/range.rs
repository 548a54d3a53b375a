//! The values that a setting may have, in the words of the user.

use std::fmt::Display;
use std::ops;

use crate::error::Error;

/// A set of values, for `in RANGE` of [`settings!`](crate::settings!).
pub trait Range<T> {
    /// Whether the value is one of them.
    fn contains(&self, value: &T) -> bool;

    /// The words after "must be".
    fn description(&self) -> String;
}

/// A number that a setting may be.
pub trait Number: Copy + PartialOrd + Display {
    /// Zero.
    const ZERO: Self;
    /// The number as a user would write it.
    fn text(self) -> String;
    /// The range from `least` to `most` in words.
    fn between(least: Self, most: Self) -> String;
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {$(
        impl Number for $type {
            const ZERO: Self = 0;
            fn text(self) -> String {
                self.to_string()
            }
            fn between(least: Self, most: Self) -> String {
                format!("{least} to {most}")
            }
        }
    )*};
}
whole_numbers!(usize, u64);

impl Number for f64 {
    const ZERO: Self = 0.0;
    fn text(self) -> String {
        let is_plain = self == 0.0 || (1e-3..1e5).contains(&self.abs());
        if is_plain { self.to_string() } else { format!("{self:e}") }
    }
    fn between(least: Self, most: Self) -> String {
        format!("between {} and {}", least.text(), most.text())
    }
}

impl<T: Number> Range<T> for ops::RangeFrom<T> {
    fn contains(&self, value: &T) -> bool {
        *value >= self.start
    }
    fn description(&self) -> String {
        format!("at least {}", self.start.text())
    }
}

impl<T: Number> Range<T> for ops::RangeInclusive<T> {
    fn contains(&self, value: &T) -> bool {
        (self.start()..=self.end()).contains(&value)
    }
    fn description(&self) -> String {
        T::between(*self.start(), *self.end())
    }
}

impl<T: Number> Range<T> for ops::Range<T> {
    fn contains(&self, value: &T) -> bool {
        (self.start..self.end).contains(value)
    }
    fn description(&self) -> String {
        format!("at least {} and below {}", self.start.text(), self.end.text())
    }
}

/// Above the first number, up to and including the second.
#[derive(Clone, Copy, Debug)]
pub struct Above<T>(pub T, pub T);

impl<T: Number> Range<T> for Above<T> {
    fn contains(&self, value: &T) -> bool {
        *value > self.0 && *value <= self.1
    }
    fn description(&self) -> String {
        format!("above {} and up to {}", self.0.text(), self.1.text())
    }
}

/// Zero, which turns something off, or what the other range holds.
#[derive(Clone, Copy, Debug)]
pub struct ZeroOr<R>(pub R);

impl<T: Number, R: Range<T>> Range<T> for ZeroOr<R> {
    fn contains(&self, value: &T) -> bool {
        *value == T::ZERO || self.0.contains(value)
    }
    fn description(&self) -> String {
        format!("0, or {}", self.0.description())
    }
}

/// A number above 0 that computing in f32 can use: 1e-30 to 1e6.
///
/// A learning rate, a temperature or a coefficient. Outside of this range a product with a loss or a gradient becomes 0
/// or infinite, and the run ends with a number that is not finite or learns nothing. The least value is far above the
/// smallest number that f32 holds in full precision, 1.2e-38, and the cube of the greatest is far below the largest,
/// 3.4e38.
#[derive(Clone, Copy, Debug)]
pub struct Positive;

impl Range<f64> for Positive {
    fn contains(&self, value: &f64) -> bool {
        (1e-30..=1e6).contains(value)
    }
    fn description(&self) -> String {
        "a number between 1e-30 and 1e6".to_owned()
    }
}

/// Refuses a setting that is not in its range.
///
/// # Errors
/// [`Error::OutOfRange`] with the dotted key, what it must be, and its value.
pub fn check<T: Display>(section: &str, field: &str, value: &T, range: &impl Range<T>) -> Result<(), Error> {
    if range.contains(value) {
        return Ok(());
    }
    require(false, &super::join(section, field), value, &range.description())
}

/// Refuses a setting that does not hold `condition`: for what must hold between several of them.
///
/// # Errors
/// [`Error::OutOfRange`] with the dotted key, what it must be, and its value.
pub fn require(condition: bool, key: &str, value: impl Display, expected: &str) -> Result<(), Error> {
    if condition {
        return Ok(());
    }
    Err(Error::OutOfRange { key: key.to_owned(), expected: expected.to_owned(), value: value.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T: Display>(value: T, range: impl Range<T>) -> Option<String> {
        check("kl", "x", &value, &range).err().map(|error| error.to_string())
    }

    #[test]
    fn a_range_refuses_what_is_outside_in_words() {
        for (error, expected) in [
            (refusal(0usize, 1..), "`kl.x` must be at least 1, got 0"),
            (refusal(0usize, 1..=65536), "`kl.x` must be 1 to 65536, got 0"),
            (refusal(1usize, ZeroOr(2..)), "`kl.x` must be 0, or at least 2, got 1"),
            (refusal(-0.5, 0.0..=1.0), "`kl.x` must be between 0 and 1, got -0.5"),
            (refusal(2e9, -1e9..=1e9), "`kl.x` must be between -1e9 and 1e9, got 2000000000"),
            (refusal(1.0, 0.0..1.0), "`kl.x` must be at least 0 and below 1, got 1"),
            (refusal(0.0, Above(0.0, 1e9)), "`kl.x` must be above 0 and up to 1e9, got 0"),
            (refusal(1.0, ZeroOr(Above(1.0, 1e9))), "`kl.x` must be 0, or above 1 and up to 1e9, got 1"),
            (refusal(0.0, Positive), "`kl.x` must be a number between 1e-30 and 1e6, got 0"),
        ] {
            assert_eq!(error.as_deref(), Some(expected));
        }
        for inside in [
            refusal(1usize, 1..),
            refusal(65536usize, 1..=65536),
            refusal(0usize, ZeroOr(2..)),
            refusal(2usize, ZeroOr(2..)),
            refusal(0.0, 0.0..1.0),
            refusal(1e9, Above(0.0, 1e9)),
            refusal(0.0, ZeroOr(Positive)),
        ] {
            assert_eq!(inside, None);
        }
    }

    #[test]
    fn no_range_has_a_number_that_f32_cannot_use() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, 1e7, 1e-40, 1e-320, -1e-40] {
            assert!(refusal(value, Positive).is_some(), "{value}");
            assert!(refusal(value, ZeroOr(Positive)).is_some(), "{value}");
        }
        for value in [f64::NAN, f64::INFINITY, 1e308] {
            assert!(refusal(value, 0.0..=1e9).is_some() && refusal(value, 0.0..1.0).is_some(), "{value}");
            assert!(refusal(value, Above(0.0, 1e9)).is_some(), "{value}");
        }
        for value in [1e-30, 1e-8, 1.0, 1e6] {
            assert_eq!(refusal(value, Positive), None);
        }
    }
}
