//! `temper devices`

use anyhow::Result;

use crate::commands::{Outcome, print_line};
use crate::device::{BACKENDS, describe};

pub fn run() -> Result<Outcome> {
    for backend in &BACKENDS {
        let state = match backend.compiled {
            false => format!("not compiled in (feature `{}`)", backend.name),
            true => match describe(backend.name) {
                Ok(hardware) => format!("works: {hardware}"),
                Err(reason) => format!("does not work here: {reason}"),
            },
        };
        print_line(&format!("{:8} {:34} {state}", backend.name, backend.what))?;
    }
    Ok(Outcome::Done)
}
