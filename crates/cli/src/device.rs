//! `--device` to a burn device: the only place in the workspace that asks which features are compiled in.

use std::panic::{self, AssertUnwindSafe};

use anyhow::Result;
use burn::tensor::{Device, Tensor};

use crate::failure::hinted;

/// A backend that Temper can be built with.
pub struct Backend {
    /// The feature and the name for `--device`.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// Whether this binary has it.
    pub compiled: bool,
}

/// Every backend, those for graphics cards first: the order in which `auto` looks.
pub const BACKENDS: [Backend; 7] = [
    Backend { name: "cuda", what: "NVIDIA, through CUDA", compiled: cfg!(feature = "cuda") },
    Backend { name: "rocm", what: "AMD, through ROCm", compiled: cfg!(feature = "rocm") },
    Backend { name: "metal", what: "Apple, through Metal", compiled: cfg!(feature = "metal") },
    Backend {
        name: "vulkan",
        what: "any card, through Vulkan and SPIR-V",
        compiled: cfg!(feature = "vulkan"),
    },
    Backend { name: "wgpu", what: "any card, through WebGPU", compiled: cfg!(feature = "wgpu") },
    Backend { name: "flex", what: "CPU, the default", compiled: cfg!(feature = "flex") },
    Backend { name: "ndarray", what: "CPU, through ndarray", compiled: cfg!(feature = "ndarray") },
];

/// The device that a name asks for, tried out once.
///
/// # Errors
/// An unknown name, a backend that is not compiled in, a device that does not answer.
pub fn open(spec: &str) -> Result<Device> {
    open_named(spec).map(|(device, _)| device)
}

/// The same with the backend's name, which `auto` leaves open.
///
/// # Errors
/// As [`open`].
pub fn open_named(spec: &str) -> Result<(Device, &'static str)> {
    if spec == "auto" {
        return auto();
    }
    let (name, index) = match spec.split_once(':') {
        Some((name, index)) => (name, Some(index)),
        None => (spec, None),
    };
    let backend = known(name, spec)?;
    if !backend.compiled {
        return Err(hinted(
            format!("device `{name}` is not compiled into this binary"),
            format!("build with `cargo build --release -p temper-cli --features {name}`"),
        ));
    }
    let index = match index {
        None => None,
        Some(text) => Some(text.parse::<usize>().map_err(|_| {
            hinted(
                format!("`{text}` in device `{spec}` is not a card number"),
                format!("for example `{name}:0`"),
            )
        })?),
    };
    if index.is_some() && matches!(name, "flex" | "ndarray") {
        return Err(hinted(format!("device `{name}` has no card number"), format!("use `{name}`")));
    }
    attempt(name, index)
        .map_err(|reason| {
            hinted(
                format!("device `{spec}` does not work here: {reason}"),
                "`temper devices` lists what works; a graphics card needs its driver",
            )
        })
        .map(|device| (device, backend.name))
}

/// Refuses a name that no backend has, whatever is compiled in: settings may be for another machine.
///
/// # Errors
/// An unknown name.
pub fn check(spec: &str) -> Result<()> {
    if spec != "auto" {
        known(spec.split_once(':').map_or(spec, |(name, _)| name), spec)?;
    }
    Ok(())
}

fn known(name: &str, spec: &str) -> Result<&'static Backend> {
    BACKENDS.iter().find(|backend| backend.name == name).ok_or_else(|| {
        let names: Vec<&str> = BACKENDS.iter().map(|backend| backend.name).collect();
        hinted(format!("unknown device `{spec}`"), format!("devices: auto, {}", names.join(", ")))
    })
}

/// The first graphics card that works, or the CPU.
fn auto() -> Result<(Device, &'static str)> {
    let compiled = || BACKENDS.iter().filter(|backend| backend.compiled);
    for backend in compiled() {
        if let Ok(device) = attempt(backend.name, None)
            && (matches!(backend.name, "flex" | "ndarray") || is_card(&device))
        {
            return Ok((device, backend.name));
        }
    }
    let names: Vec<&str> = compiled().map(|backend| backend.name).collect();
    Err(hinted("no device works here", format!("compiled in: {}", names.join(", "))))
}

/// What a backend sees, for `temper devices`.
pub fn describe(name: &str) -> std::result::Result<String, String> {
    let device = attempt(name, None)?;
    Ok(hardware(&device))
}

/// Makes a device and computes something on it: drivers fail at first use, some by a panic.
fn attempt(name: &str, index: Option<usize>) -> std::result::Result<Device, String> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let tried = panic::catch_unwind(AssertUnwindSafe(|| {
        let device = make(name, index);
        let two: f32 = Tensor::<1>::ones([2], &device).sum().into_scalar();
        (device, two)
    }));
    panic::set_hook(hook);
    match tried {
        Ok((device, 2.0)) => Ok(device),
        Ok((_, wrong)) => Err(format!("1 + 1 gave {wrong}")),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            let text = text.unwrap_or_else(|| "it does not answer".into());
            Err(text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(160).collect())
        }
    }
}

#[allow(unused_variables)]
fn make(name: &str, index: Option<usize>) -> Device {
    #[cfg(feature = "wgpu")]
    let kind = match index {
        Some(index) => burn::tensor::DeviceKind::DiscreteGpu(index),
        None => burn::tensor::DeviceKind::DefaultDevice,
    };
    match name {
        #[cfg(feature = "flex")]
        "flex" => Device::flex(),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated)]
        "ndarray" => Device::ndarray(),
        #[cfg(feature = "cuda")]
        "cuda" => Device::cuda(index.unwrap_or(0)),
        #[cfg(feature = "rocm")]
        "rocm" => Device::rocm(index.unwrap_or(0)),
        #[cfg(feature = "metal")]
        "metal" => Device::metal(kind),
        #[cfg(feature = "vulkan")]
        "vulkan" => Device::vulkan(kind),
        #[cfg(feature = "wgpu")]
        "wgpu" => Device::wgpu(kind),
        _ => unreachable!("asked for after a look at the compiled backends"),
    }
}

/// Whether the device is a real graphics card and not a program that draws on the CPU.
#[allow(unused_variables)]
fn is_card(device: &Device) -> bool {
    #[cfg(any(feature = "wgpu", feature = "cuda", feature = "rocm"))]
    return device.identity().is_some_and(|identity| identity.physical.is_some());
    #[cfg(not(any(feature = "wgpu", feature = "cuda", feature = "rocm")))]
    return false;
}

#[allow(unused_variables)]
fn hardware(device: &Device) -> String {
    #[cfg(any(feature = "wgpu", feature = "cuda", feature = "rocm"))]
    if let Some(identity) = device.identity() {
        return identity.name;
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {threads} threads", crate::machine::cpu())
}
