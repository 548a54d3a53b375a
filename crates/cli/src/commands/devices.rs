//! `temper devices`

use anyhow::Result;
use burn::tensor::Device;
use temper_sft::{Comparison, compare_devices};

use crate::args::DevicesArgs;
use crate::commands::{Outcome, print_line};
use crate::device::{BACKENDS, describe, open};
use crate::failure::hinted;
use crate::session::Session;

pub fn run(session: &Session, args: &DevicesArgs) -> Result<Outcome> {
    if args.check {
        return check(session.device_name());
    }
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

/// Compares a device with the CPU, or with `auto` every one that works.
fn check(asked: &str) -> Result<Outcome> {
    let reference = open("flex").or_else(|_| open("ndarray")).map_err(|_| {
        hinted(
            "this binary has no CPU to compare with",
            "build with the feature `flex`, for example `cargo build --release -p temper-cli --features wgpu`",
        )
    })?;
    let names: Vec<&str> = match asked {
        "auto" => BACKENDS.iter().filter(|backend| backend.compiled).map(|backend| backend.name).collect(),
        _ => vec![asked],
    };
    let mut wrong = Vec::new();
    for name in names {
        match open(name) {
            Ok(device) if !is_right(name, &device, &reference)? => wrong.push(name),
            Ok(_) => {}
            Err(error) if asked != "auto" => return Err(error),
            Err(_) => print_line(&format!("{name:8} does not work here"))?,
        }
    }
    if wrong.is_empty() {
        return Ok(Outcome::Done);
    }
    let names = wrong.join(", ");
    Err(hinted(
        format!("{names} computes something else than the CPU"),
        "do not train on it: update its driver, or choose another backend with --device",
    ))
}

/// Prints how far a device is from the reference, and whether rounding explains all of it.
fn is_right(name: &str, device: &Device, reference: &Device) -> Result<bool> {
    let comparisons = compare_devices(device, reference);
    let comparisons = match comparisons {
        Ok(comparisons) => comparisons,
        // A loss that is not finite here is finite on the CPU.
        Err(error) => {
            print_line(&format!("{name:8} WRONG  {error}"))?;
            return Ok(false);
        }
    };
    for Comparison { what, difference, tolerance } in &comparisons {
        let word = if difference <= tolerance { "right" } else { "WRONG" };
        print_line(&format!(
            "{name:8} {word}  {what}: differs by {difference:.1e}, at most {tolerance:.0e}"
        ))?;
    }
    Ok(comparisons.iter().all(Comparison::is_met))
}
