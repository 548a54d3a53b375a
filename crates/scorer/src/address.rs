//! The address of an endpoint, checked before anything is sent, and without its password wherever it is shown.

use ureq::http::Uri;

use crate::error::Error;

/// Stands for a password.
const MASK: &str = "***";

/// An `http` or `https` address.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    full: String,
    shown: String,
    /// Whether it is this machine.
    pub(crate) is_here: bool,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.shown)
    }
}

impl Address {
    /// # Errors
    /// [`Error::BadUrl`], [`Error::BadPort`].
    pub(crate) fn new(url: &str) -> Result<Self, Error> {
        // What is not an address has no place where a password must be.
        let hidden = || match url.rsplit_once('@') {
            Some((_, rest)) => format!("{MASK}@{rest}"),
            None => url.to_owned(),
        };
        let bad = || Error::BadUrl { url: hidden() };
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let (Some(host), Some(authority)) = (uri.host().filter(|host| !host.is_empty()), uri.authority())
        else {
            return Err(bad());
        };
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(bad());
        }
        // `Uri` takes a port that is not one for none at all, and the request would go to port 80.
        let place = authority.as_str().rsplit('@').next().unwrap_or_default();
        let after_host = place.rfind(']').map_or(place, |end| &place[end..]);
        if let Some((_, port)) = after_host.split_once(':')
            && !port.parse::<u16>().is_ok_and(|port| port > 0)
        {
            let masked = masked(url);
            let url = if masked == url { hidden() } else { masked };
            return Err(Error::BadPort { url, port: port.to_owned() });
        }
        let is_here = host == "localhost" || host.starts_with("127.") || host == "[::1]";
        Ok(Self { full: url.to_owned(), shown: masked(url), is_here })
    }

    /// For the request.
    pub(crate) fn full(&self) -> &str {
        &self.full
    }

    /// For people: without its password.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }
}

/// An address as it may be shown and stored: without the password of `user:password@host`, and without a token that
/// is there alone.
pub fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let Some((user, host)) = rest[..end].rsplit_once('@') else { return url.to_owned() };
    let user = user.split_once(':').map_or(String::new(), |(name, _)| format!("{name}:"));
    format!("{scheme}://{user}{MASK}@{host}{}", &rest[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked() {
        for (url, expected) in [
            ("http://h/p?q", "http://h/p?q"),
            ("http://user:secret@h:80/p", "http://user:***@h:80/p"),
            ("https://token@h", "https://***@h"),
            ("http://user:se:cret@h?a@b", "http://user:***@h?a@b"),
            ("http://h/a:b@c", "http://h/a:b@c"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(masked(url), expected);
        }
        let address = Address::new("http://user:secret@localhost/").unwrap();
        assert_eq!(format!("{address:?}"), "\"http://user:***@localhost/\"");
        assert!(address.is_here && address.full().contains("secret"));
    }

    #[test]
    fn an_impossible_port_is_refused() {
        for port in ["99999", "0", "-1", "65536", "8o", ""] {
            for host in ["127.0.0.1", "user:7@host", "[::1]"] {
                let url = format!("http://{host}:{port}/score");
                assert!(Address::new(&url).is_err(), "{url}");
            }
        }
        let line = Address::new("http://u:pw@h:99999/").unwrap_err().to_string();
        assert_eq!(line, "`http://u:***@h:99999/`: the port 99999 is not between 1 and 65535");
        for url in ["http://h", "http://h:1/", "https://[::1]", "http://[::1]:65535/x", "http://u:7@h/x:y"] {
            assert!(Address::new(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn what_is_not_an_address_is_named_without_its_password() {
        for url in ["", "runs/reward", "ftp://host/x", "http://", "http:///x", "/score"] {
            let error = Address::new(url).unwrap_err().to_string();
            assert_eq!(error, format!("`{url}` is not an http or https address"));
        }
        for url in ["ftp://user:secret@host/x", "user:secret@host", "http://user:se/cret@host:1:2"] {
            let error = Address::new(url).unwrap_err().to_string();
            assert!(error.contains("***@host") && !error.contains("cret"), "{error}");
        }
    }
}
