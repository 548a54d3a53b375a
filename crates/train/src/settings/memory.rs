//! How much memory a run may need.

use std::fmt;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Units by their names, in MiB. Those that end in B alone mean the same: nobody plans memory to a twentieth.
const UNITS: [(&str, f64); 6] =
    [("GiB", 1024.0), ("MiB", 1.0), ("GB", 1024.0), ("MB", 1.0), ("G", 1024.0), ("M", 1.0)];

/// How a limit is written.
const EXPECTED: &str = "none, or a size such as 4GiB or 600MiB";

/// The most memory that a run may need, as people write it: `4GiB`, `600MiB` or `none`.
///
/// ```
/// use temper_train::MemoryLimit;
///
/// let limit: MemoryLimit = "1.5GiB".parse().unwrap();
/// assert_eq!((limit.bytes(), limit.to_string().as_str()), (Some(1536 << 20), "1536MiB"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryLimit {
    /// 0: no limit.
    mebibytes: u32,
}

impl MemoryLimit {
    /// The limit in bytes, if there is one.
    pub fn bytes(self) -> Option<usize> {
        (self.mebibytes > 0).then(|| (self.mebibytes as usize).saturating_mul(1 << 20))
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mebibytes {
            0 => f.write_str("none"),
            n if n.is_multiple_of(1024) => write!(f, "{}GiB", n / 1024),
            n => write!(f, "{n}MiB"),
        }
    }
}

impl std::str::FromStr for MemoryLimit {
    type Err = String;

    /// The error is what a limit looks like.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::default());
        }
        let number = |(unit, scale): (&str, f64)| {
            Some(text.strip_suffix(unit)?.trim_end().parse::<f64>().ok()? * scale)
        };
        let mebibytes = UNITS.into_iter().find_map(number);
        let mebibytes = mebibytes.filter(|n| (1.0..=f64::from(u32::MAX)).contains(n));
        mebibytes.map(|n| Self { mebibytes: n as u32 }).ok_or_else(|| EXPECTED.to_owned())
    }
}

impl Serialize for MemoryLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MemoryLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &EXPECTED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let bytes = |text: &str| text.parse::<MemoryLimit>().map(MemoryLimit::bytes);
        for (text, mebibytes) in
            [("4GiB", 4096), ("4 GB", 4096), ("2G", 2048), ("600MiB", 600), ("0.5GiB", 512), ("700M", 700)]
        {
            assert_eq!(bytes(text), Ok(Some(mebibytes << 20)), "{text}");
            let limit: MemoryLimit = text.parse().unwrap();
            assert_eq!(limit.to_string().parse(), Ok(limit));
        }
        assert_eq!(bytes("none"), Ok(None));
        for text in ["", "4", "GiB", "-4GiB", "0MiB", "0.2MiB", "nanGiB", "infGiB", "1e30GiB", "4TB", "4gib"]
        {
            assert_eq!(bytes(text), Err(EXPECTED.to_owned()), "{text}");
        }
    }
}
