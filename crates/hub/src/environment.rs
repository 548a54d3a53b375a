//! What the environment says about the hub, as `huggingface_hub` reads it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::Error;

/// The public hub.
const ENDPOINT: &str = "https://huggingface.co";

/// Where the hub and its cache are, and who asks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Environment {
    pub(crate) endpoint: String,
    pub(crate) cache: PathBuf,
    pub(crate) token: Option<String>,
    pub(crate) is_offline: bool,
}

impl Environment {
    /// Reads variables by `get`, and the token from its file if no variable has it.
    pub(crate) fn read(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let text = |name: &str| get(name).map(|value| value.to_string_lossy().into_owned());
        let path = |name: &str| get(name).map(PathBuf::from);
        let user_home = path("HOME").or_else(|| path("USERPROFILE"));
        let below_home = |path: PathBuf| match (path.strip_prefix("~"), &user_home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path,
        };
        let cache_home = path("XDG_CACHE_HOME").or_else(|| Some(user_home.as_ref()?.join(".cache")));
        let home = path("HF_HOME").map(below_home).or_else(|| Some(cache_home?.join("huggingface")));
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).map(below_home);
        let cache = cache.or_else(|| Some(home.as_ref()?.join("hub"))).ok_or(Error::NoHome)?;
        let token = match text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")) {
            Some(token) => checked_token(&token, "HF_TOKEN")?,
            None => {
                let file = path("HF_TOKEN_PATH").map(below_home);
                file.or_else(|| Some(home?.join("token"))).map_or(Ok(None), |file| token_of(&file))?
            }
        };
        let is_set = |name: &str| {
            text(name)
                .is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str()))
        };
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let is_offline = is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE");
        Ok(Self { endpoint, cache, token, is_offline })
    }
}

/// The token in a file, if the file is there.
fn token_of(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(token) => checked_token(&token, &path.display().to_string()),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path: path.into(), source }),
    }
}

/// A token without white space around it; `None` if nothing is left.
fn checked_token(token: &str, place: &str) -> Result<Option<String>, Error> {
    let token = token.trim();
    if !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Error::BadToken { place: place.to_owned() });
    }
    Ok((!token.is_empty()).then(|| token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, Error> {
        Environment::read(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn variables_are_read_as_huggingface_hub_reads_them() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().to_str().unwrap();
        let plain = read(&[("HOME", root)]).unwrap();
        assert_eq!(plain.cache, home.path().join(".cache/huggingface/hub"));
        assert_eq!((plain.endpoint.as_str(), plain.token, plain.is_offline), (ENDPOINT, None, false));
        let xdg = read(&[("HOME", root), ("XDG_CACHE_HOME", "/x")]).unwrap();
        assert_eq!(xdg.cache, Path::new("/x/huggingface/hub"));
        let moved = read(&[
            ("HOME", root),
            ("HF_HOME", "~/hf"),
            ("HF_ENDPOINT", "http://h"),
            ("HF_HUB_OFFLINE", "yes"),
        ]);
        let moved = moved.unwrap();
        assert_eq!(
            (moved.cache, moved.endpoint.as_str(), moved.is_offline),
            (home.path().join("hf/hub"), "http://h", true)
        );
        assert_eq!(read(&[("HF_HOME", "/a"), ("HF_HUB_CACHE", "/b")]).unwrap().cache, Path::new("/b"));
        assert!(matches!(read(&[("HOME", "")]), Err(Error::NoHome)));
    }

    #[test]
    fn the_variable_of_the_token_comes_before_its_file() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let hf_home = ("HF_HOME", home.path().to_str().unwrap());
        let token = |more: &[(&str, &str)]| read(&[&[hf_home], more].concat()).map(|read| read.token);
        assert_eq!(token(&[]).unwrap().as_deref(), Some("hf_file"));
        assert_eq!(token(&[("HF_TOKEN", " hf_own ")]).unwrap().as_deref(), Some("hf_own"));
        let error = token(&[("HF_TOKEN", "two\nlines")]).unwrap_err().to_string();
        assert_eq!(error, "the token in HF_TOKEN is not one line of visible characters");
    }
}
