//! Where the tests run, and how close is close there.

use burn::tensor::Device;

/// How much wider every tolerance is on a graphics card: WebGPU and CUDA let exp, tanh, division and square root be off
/// by several units in the last place, where a CPU is off by one, and reduce in other orders.
const CARD_SLACK: f64 = 8.0;

/// A place where the tests run: flex always, others by this package's features.
pub struct Backend {
    pub name: &'static str,
    pub device: Device,
    slack: f64,
}

impl Backend {
    fn host(name: &'static str, device: Device) -> Self {
        Self { name, device, slack: 1.0 }
    }

    #[allow(dead_code, reason = "no card is compiled in by default")]
    fn card(name: &'static str, device: Device) -> Self {
        Self { name, device, slack: CARD_SLACK }
    }

    /// Panics unless every number is within `tolerance` of the expected one.
    pub fn assert_close(&self, what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
        let (what, tolerance) = (format!("{}, {what}", self.name), self.slack * tolerance);
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
        Backend::host("flex", Device::flex()),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated, reason = "burn will drop it; until then it must agree")]
        Backend::host("ndarray", Device::ndarray()),
        #[cfg(feature = "wgpu")]
        Backend::card("wgpu", Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "vulkan")]
        Backend::card("vulkan", Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "metal")]
        Backend::card("metal", Device::metal(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "cuda")]
        Backend::card("cuda", Device::cuda(0)),
        #[cfg(feature = "rocm")]
        Backend::card("rocm", Device::rocm(0)),
    ])
}
