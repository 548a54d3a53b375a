//! Settings that are declared once: name, type, default, range and documentation in one place.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Table;

use crate::error::Error;

mod auto;
mod effect;
mod memory;
mod printed;
pub mod range;
mod renamed;
mod resolve;
mod training;

pub(crate) use auto::LENGTH;
use auto::{AUTO, COMMENT};
pub use auto::{AutoKeys, Chosen, StartSettings};
pub use effect::{keys_with_source, notes_on_settings_without_effect, without_effect};
pub use memory::MemoryLimit;
pub use printed::{
    NOT_PUBLISHED, changed_settings, leaves, to_annotated_toml, to_commented_toml, to_sourced_toml,
    trailing_comments,
};
pub(crate) use printed::{get, insert, leaves_until, to_table};
pub use renamed::current_key;
pub(crate) use renamed::update_stored;
pub use resolve::{resolve, resolve_known, resolve_with_auto};
pub use training::{BatchingConfig, TrainingConfig};

/// One setting, as [`settings!`](crate::settings!) declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its dotted key.
    pub key: String,
    /// The first paragraph of its documentation, a line at a time: what `temper config` prints above it.
    pub comment: Vec<&'static str>,
    /// It has an effect only while each of these conditions holds: `kl.target != 0`.
    pub only_with: &'static [&'static str],
    /// The dotted keys that it had in earlier versions.
    pub old_keys: Vec<String>,
}

impl Setting {
    /// The setting `field` of the section `section`, from the lines of its whole documentation.
    pub fn new(
        section: &str,
        field: &str,
        doc: &[&'static str],
        only_with: &'static [&'static str],
        old_keys: &[&str],
    ) -> Self {
        let paragraph = doc.iter().map(|line| line.trim()).take_while(|line| !line.is_empty());
        Self {
            key: join(section, field),
            comment: paragraph.collect(),
            only_with,
            old_keys: old_keys.iter().map(|&key| key.to_owned()).collect(),
        }
    }
}

/// Settings that [`settings!`](crate::settings!) declares.
pub trait Settings: Serialize + DeserializeOwned + Default {
    /// Appends every setting of the type to `declared`, in the order in which they are printed. `section` is the
    /// dotted name of the table that they are in; empty for the top level.
    fn declare(section: &str, declared: &mut Vec<Setting>);

    /// Checks every range, then what must hold between settings.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] with the dotted key.
    fn check(&self, section: &str) -> Result<(), Error>;

    /// The settings that may be `auto`: each dotted key, and what its value then follows from, in a few words.
    fn auto() -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// The values of such settings that follow from other settings alone; `auto` has those that are left to Temper.
    fn first_choices(&self, _auto: &AutoKeys) -> Vec<Chosen> {
        Vec::new()
    }

    /// Every setting of the type, in the order in which they are printed.
    fn declared() -> Vec<Setting> {
        let mut declared = Vec::new();
        Self::declare("", &mut declared);
        declared
    }
}

/// Declares a struct of settings. Each is said once: its name, type, default, range and documentation.
///
/// ```
/// use temper_train::{Settings, resolve, settings, to_commented_toml};
///
/// settings! {
///     /// Settings of a stage.
///     pub struct StageConfig {
///         /// Passes over the data.
///         ///
///         /// Only this page shows what comes after the first paragraph.
///         pub epochs: usize = 3, in 1..,
///         /// Share of rows that are left out.
///         pub left_out: f64 = 0.0, in 0.0..=1.0, renamed_from "dropped",
///         /// The penalty on large steps.
///         section penalty: PenaltyConfig,
///     }
/// }
///
/// settings! {
///     /// The penalty on large steps.
///     pub struct PenaltyConfig {
///         /// Weight of the penalty; 0: none.
///         pub coef: f64 = 0.5, in 0.0..=1e9,
///         /// Longest step without a penalty.
///         pub free: f64 = 1.0, in 0.0..=1e9, only_with "penalty.coef != 0",
///     }
/// }
///
/// # fn main() -> Result<(), temper_train::Error> {
/// let config: StageConfig = resolve(None, None, &["penalty.coef=0.25".into()])?;
/// assert_eq!(config, StageConfig { penalty: PenaltyConfig { coef: 0.25, free: 1.0 }, ..StageConfig::default() });
/// assert!(to_commented_toml(&config)?.starts_with("# Passes over the data.\nepochs = 3\n"));
/// let error = StageConfig { epochs: 0, ..config }.validate().unwrap_err();
/// assert_eq!(error.to_string(), "`epochs` must be at least 1, got 0");
/// # Ok(())
/// # }
/// ```
///
/// The struct has public fields, [`Default`], serde's traits, [`Settings`] and a method `validate`. After a field's
/// default there may be, in this order:
///
/// - `in RANGE`: a range of Rust or one of [`range`];
/// - `only_with "KEY = VALUE"` or `"KEY != VALUE"`, any number of times: without it the setting has no effect, and a run
///   says so to whoever has asked for the setting;
/// - `renamed_from "OLD.KEY"`, any number of times: the dotted key of an earlier version, which is still accepted.
///
/// A `section` is a table of settings of its own; with `#[serde(flatten)]` its keys are among those of the struct.
/// `auto CONSTANT` after the struct names the settings that may be `auto` ([`Settings::auto`]), and `first METHOD` after
/// that a method for [`Settings::first_choices`]. `check PATH` at the end names a method that checks what must hold between
/// settings.
#[macro_export]
macro_rules! settings {
    (@default pub $default:expr) => { $default };
    (@default section $default:expr) => { $default };
    (@default section) => { ::std::default::Default::default() };

    (@declare pub [] $type:ty, $in:expr, $to:expr, $field:expr, $docs:expr, $only_with:expr, $old:expr) => {
        $to.push($crate::Setting::new($in, $field, $docs, $only_with, $old))
    };
    (@declare section [] $type:ty, $in:expr, $to:expr, $field:expr, $docs:expr, $only_with:expr, $old:expr) => {
        $crate::declare_section::<$type>($in, $field, $old, $to)
    };
    (@declare section [flatten] $type:ty, $in:expr, $to:expr, $field:expr, $docs:expr, $only_with:expr, $old:expr) => {
        <$type as $crate::Settings>::declare($in, $to)
    };

    (@check pub [] $in:expr, $field:expr, $value:expr) => {};
    (@check pub [] $in:expr, $field:expr, $value:expr, $range:expr) => {
        $crate::range::check($in, $field, $value, &($range))?
    };
    (@check section [] $in:expr, $field:expr, $value:expr) => { $crate::check_section($value, $in, $field)? };
    (@check section [flatten] $in:expr, $field:expr, $value:expr) => { $crate::Settings::check($value, $in)? };

    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $(#[serde($serde:ident)])?
                $kind:ident $field:ident : $type:ty $(= $default:expr)?
                $(, in $range:expr)?
                $(, only_with $condition:literal)*
                $(, renamed_from $old:literal)*
            ),+ $(,)?
        }
        $(auto $auto:ident $(first $first:ident)?)?
        $(check $between:path)?
    ) => {
        #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        $(#[$meta])*
        pub struct $name {
            $( $(#[doc = $doc])+ $(#[serde($serde)])? pub $field: $type, )+
        }

        impl ::std::default::Default for $name {
            fn default() -> Self {
                Self { $( $field: $crate::settings!(@default $kind $($default)?), )+ }
            }
        }

        impl $crate::Settings for $name {
            fn declare(section: &str, declared: &mut ::std::vec::Vec<$crate::Setting>) {
                $(
                    $crate::settings!(
                        @declare $kind [$($serde)?]
                        $type, section, declared, stringify!($field), &[$($doc),+], &[$($condition),*], &[$($old),*]
                    );
                )+
            }

            fn check(&self, section: &str) -> ::std::result::Result<(), $crate::Error> {
                #[allow(unused_imports)]
                use $crate::range::{Above, Positive, ZeroOr};
                let _ = section;
                $(
                    $crate::settings!(
                        @check $kind [$($serde)?] section, stringify!($field), &self.$field $(, $range)?
                    );
                )+
                $( $between(self)?; )?
                Ok(())
            }

            $(
                fn auto() -> &'static [(&'static str, &'static str)] {
                    &$auto
                }
                $(
                    fn first_choices(&self, auto: &$crate::AutoKeys) -> ::std::vec::Vec<$crate::Chosen> {
                        self.$first(auto)
                    }
                )?
            )?
        }

        impl $name {
            /// Checks the range of every setting, and what must hold between them.
            ///
            /// # Errors
            /// `Error::OutOfRange` of `temper-train` with the dotted key.
            #[allow(dead_code)] // Settings that only tests read need no check.
            pub fn validate(&self) -> ::std::result::Result<(), $crate::Error> {
                $crate::Settings::check(self, "")
            }
        }
    };
}

/// Declares the settings of the section `field`. A section that was renamed passes its old name on to each of them.
/// Only for [`settings!`](crate::settings!).
#[doc(hidden)]
pub fn declare_section<T: Settings>(
    section: &str,
    field: &str,
    old_names: &[&str],
    declared: &mut Vec<Setting>,
) {
    let name = join(section, field);
    let before = declared.len();
    T::declare(&name, declared);
    for setting in &mut declared[before..] {
        let rest = setting.key[name.len()..].to_owned();
        setting.old_keys.extend(old_names.iter().map(|old| format!("{old}{rest}")));
    }
}

/// Checks the settings of the section `field`. Only for [`settings!`](crate::settings!).
///
/// # Errors
/// Those of [`Settings::check`].
#[doc(hidden)]
pub fn check_section<T: Settings>(settings: &T, section: &str, field: &str) -> Result<(), Error> {
    settings.check(&join(section, field))
}

/// The dotted key of a field.
fn join(section: &str, field: &str) -> String {
    if section.is_empty() { field.to_owned() } else { format!("{section}.{field}") }
}

/// The settings of a type, to be looked up by their keys.
pub(crate) struct Catalogue {
    settings: Vec<Setting>,
    keys: BTreeSet<String>,
    current_keys: BTreeMap<String, String>,
}

impl Catalogue {
    pub(crate) fn of<T: Settings>() -> Self {
        let settings = T::declared();
        let keys = settings.iter().map(|setting| setting.key.clone()).collect();
        let renamed = |setting: &Setting| {
            let key = setting.key.clone();
            setting.old_keys.clone().into_iter().map(move |old| (old, key.clone()))
        };
        let current_keys = settings.iter().flat_map(renamed).collect();
        Self { settings, keys, current_keys }
    }

    /// Whether a setting has this key now.
    pub(crate) fn is_known(&self, key: &str) -> bool {
        self.keys.contains(key)
    }

    /// The key, or the one that it has now if it is the old one of a setting.
    pub(crate) fn current_key<'k>(&'k self, key: &'k str) -> &'k str {
        self.current_keys.get(key).map_or(key, String::as_str)
    }

    /// The dotted keys of a table with their values, down to the values of settings.
    pub(crate) fn flatten(&self, table: &Table) -> Vec<(String, toml::Value)> {
        leaves_until(table, &|key| self.is_known(self.current_key(key)))
    }
}

/// What is wrong with the declaration of `T`, one line per fault; empty when all is well. For tests.
///
/// A default must be in its range, a comment must not be empty, no key may occur twice, and conditions and old names
/// must make sense. Rust cannot check these.
pub fn declaration_faults<T: Settings>() -> Vec<String> {
    let catalogue = Catalogue::of::<T>();
    let defaults = T::default();
    let mut faults: Vec<String> = defaults.check("").err().iter().map(ToString::to_string).collect();
    let serialised = to_table(&defaults).map(|table| catalogue.flatten(&table)).unwrap_or_default();
    let undeclared = serialised.iter().filter(|(key, _)| !catalogue.is_known(key));
    faults.extend(undeclared.map(|(key, _)| format!("`{key}` is serialised and not declared")));
    if catalogue.keys.len() < catalogue.settings.len() {
        faults.push("a key is declared twice".to_owned());
    }
    let unknown = T::auto().iter().filter(|(key, _)| !catalogue.is_known(key));
    faults.extend(unknown.map(|(key, _)| format!("`{key}` may be `auto` and is not declared")));
    for setting in &catalogue.settings {
        let key = &setting.key;
        if setting.comment.is_empty() {
            faults.push(format!("`{key}` has no comment"));
        }
        for condition in setting.only_with {
            let parsed = effect::parse(condition).filter(|parsed| catalogue.is_known(parsed.key));
            let Some(parsed) = parsed else {
                faults.push(format!("`{key}` has the condition `{condition}`, which names no setting"));
                continue;
            };
            if resolve::<T>(None, None, &[format!("{}={}", parsed.key, parsed.value)]).is_err() {
                faults.push(format!("`{key}` has the condition `{condition}`, whose value cannot be set"));
            }
        }
        let reused = setting.old_keys.iter().filter(|old| catalogue.is_known(old));
        faults.extend(reused.map(|old| format!("`{old}` is an old name of `{key}` and a setting")));
    }
    faults
}

#[cfg(test)]
#[allow(clippy::empty_docs)] // An empty one is among the mistakes that are tested.
mod tests {
    use super::*;

    settings! {
        /// Settings with every mistake that Rust does not see.
        pub struct Faulty {
            /// In range.
            pub good: usize = 1, in 1..,
            ///
            pub silent: usize = 1,
            /// Depends on nothing that there is.
            pub idle: usize = 1, only_with "godo = 1",
            /// Depends on nothing at all.
            pub odd: usize = 1, only_with "good",
            /// Depends on what cannot be.
            pub stuck: usize = 1, only_with "good = many",
            /// Has a name that is taken.
            pub taken: usize = 1, renamed_from "good",
            /// Its default is out of range.
            pub far: f64 = 2.0, in 0.0..=1.0,
        }
    }

    #[test]
    fn a_declaration_that_makes_no_sense_is_found() {
        let expected = [
            "`far` must be between 0 and 1, got 2",
            "`silent` has no comment",
            "`idle` has the condition `godo = 1`, which names no setting",
            "`odd` has the condition `good`, which names no setting",
            "`stuck` has the condition `good = many`, whose value cannot be set",
            "`good` is an old name of `taken` and a setting",
        ];
        assert_eq!(declaration_faults::<Faulty>(), expected);
    }
}
