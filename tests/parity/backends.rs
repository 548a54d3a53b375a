//! Where the tests run, and whether numbers are close.

use burn::tensor::Device;

/// A place where the tests run: flex always, others by this package's features. Tolerances are the same everywhere: software
/// Vulkan needs no wider ones than a CPU.
pub struct Backend {
    pub name: &'static str,
    pub device: Device,
}

impl Backend {
    fn new(name: &'static str, device: Device) -> Self {
        Self { name, device }
    }

    /// Panics unless every number is within `tolerance` of the expected one.
    pub fn assert_close(&self, what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
        let what = format!("{}, {what}", self.name);
        assert_eq!(found.len(), expected.len(), "{what}: count");
        let worst = found
            .iter()
            .zip(expected)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, |worst: f64, d| if d.is_nan() { f64::INFINITY } else { worst.max(d) });
        println!("{what}: differs by {worst:.1e}, tolerance {tolerance:.0e}");
        assert!(worst <= tolerance, "{what}: differs by {worst:.1e}, more than {tolerance:.0e}");
    }
}

/// Every backend that is compiled in.
pub fn backends() -> Vec<Backend> {
    Vec::from([
        Backend::new("flex", Device::flex()),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated, reason = "burn will drop it; until then it must agree")]
        Backend::new("ndarray", Device::ndarray()),
        #[cfg(feature = "wgpu")]
        Backend::new("wgpu", Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "vulkan")]
        Backend::new("vulkan", Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "metal")]
        Backend::new("metal", Device::metal(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "cuda")]
        Backend::new("cuda", Device::cuda(0)),
        #[cfg(feature = "rocm")]
        Backend::new("rocm", Device::rocm(0)),
    ])
}
