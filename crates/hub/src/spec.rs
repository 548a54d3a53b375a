//! The name of a model on the hub.

/// Longest name of a model, in bytes, with its organisation: as on the hub.
const LONGEST: usize = 96;

/// The revision of a name that gives none.
const MAIN: &str = "main";

/// `ORG/NAME`, or `ORG/NAME@REVISION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoSpec {
    repo: String,
    revision: String,
}

impl RepoSpec {
    /// A name that a model of the hub can have, with a branch, a tag or a commit; `None` for any other text.
    ///
    /// ```
    /// use temper_hub::RepoSpec;
    ///
    /// assert_eq!(RepoSpec::parse("org/name@v2").unwrap().revision(), "v2");
    /// assert!(RepoSpec::parse("runs/sft/final").is_none());
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        let (repo, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let (org, name) = repo.split_once('/')?;
        let is_part = |part: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !part.is_empty()
                && part.chars().all(is_plain)
                && !part.starts_with(['-', '.'])
                && !part.ends_with(['-', '.'])
                // In the name of its cache directory `--` stands for the slash.
                && !part.contains("--")
                && !part.contains("..")
        };
        let is_repo = is_part(org) && is_part(name) && repo.len() <= LONGEST && !name.ends_with(".git");
        let is_spec = is_repo && is_relative_path(revision) && !revision.contains('@');
        is_spec.then(|| Self { repo: repo.to_owned(), revision: revision.to_owned() })
    }

    /// `ORG/NAME`.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// A branch, a tag or a commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }
}

impl std::fmt::Display for RepoSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.revision.as_str() {
            MAIN => f.write_str(&self.repo),
            revision => write!(f, "{}@{revision}", self.repo),
        }
    }
}

/// Whether a text of somebody else's is a path that stays below the directory that it is joined to, on every system.
pub(crate) fn is_relative_path(path: &str) -> bool {
    path.len() <= 255 && path.split('/').all(is_file_name)
}

/// Whether a text of somebody else's is the name of a file in the directory that it is joined to, on every system.
pub(crate) fn is_file_name(name: &str) -> bool {
    let is_special = |c: char| c.is_control() || matches!(c, '/' | '\\' | ':');
    !name.is_empty() && name != "." && name != ".." && !name.contains(is_special)
}

/// A text as one segment of an address.
pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_hub_are_told_from_paths() {
        let spec = RepoSpec::parse("HuggingFaceTB/SmolLM2-135M-Instruct@refs/pr/3").unwrap();
        assert_eq!((spec.repo(), spec.revision()), ("HuggingFaceTB/SmolLM2-135M-Instruct", "refs/pr/3"));
        assert_eq!(spec.to_string(), "HuggingFaceTB/SmolLM2-135M-Instruct@refs/pr/3");
        assert_eq!(RepoSpec::parse("a/b").unwrap().to_string(), "a/b");
        for other in [
            "",
            "tiny",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "./a",
            "../a",
            "a/..",
            "a/b@",
            "a/b@../c",
            "a/b@/c",
            "a/b@c/./d",
            "a/b@c\\d",
            "a/b@c@d",
            "a--b/c",
            "a/b..c",
            "~/a",
            "a/b c",
            "a/b.git",
            "C:/a",
            "a/b\n",
            "-a/b",
        ] {
            assert_eq!(RepoSpec::parse(other), None, "{other:?}");
        }
        assert_eq!(RepoSpec::parse(&format!("a/{}", "b".repeat(95))), None);
    }

    #[test]
    fn a_segment_has_no_slash() {
        assert_eq!(segment("refs/pr/1 ü~"), "refs%2Fpr%2F1%20%C3%BC~");
    }
}
