//! Reads the goldens, and compares with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use safetensors::{Dtype, SafeTensors};

/// Models with a head over the vocabulary, as directories of `assets/goldens`.
pub const LANGUAGE_MODELS: [&str; 3] = ["notebook", "gpt2", "gpt2-untied"];
/// Models with a scalar head.
pub const SCALAR_MODELS: [&str; 2] = ["notebook-reward", "gpt2-reward"];

/// Where the tests run. Backends share one front end, so one of them shows what the crates compute.
pub fn devices() -> [(&'static str, Device); 1] {
    [("flex", Device::flex())]
}

/// A file or directory of `assets/goldens`.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/goldens").join(name)
}

/// One tensor of a safetensors file.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

/// Every tensor of a safetensors file, by name.
pub fn read(file: &Path) -> BTreeMap<String, Stored> {
    let bytes = std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    tensors
        .iter()
        .map(|(name, view)| {
            let data = view.data();
            let values = match view.dtype() {
                Dtype::F32 => data.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
                Dtype::I64 => data.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as f64).collect(),
                other => panic!("{name} is {other:?}"),
            };
            (name.to_owned(), Stored { shape: view.shape().to_vec(), values })
        })
        .collect()
}

/// What PyTorch found for one model.
pub struct Golden {
    /// Prompt and completion of each row.
    pub rows: Vec<Vec<u32>>,
    /// Where the completion of each row starts.
    pub prompt_lens: Vec<usize>,
    /// `logits` or `scores`, and `loss`.
    pub outputs: BTreeMap<String, Stored>,
    /// By the parameter's name in the file, in the file's layout.
    pub gradients: BTreeMap<String, Stored>,
}

impl Golden {
    pub fn read(model: &str) -> Self {
        let (gradients, outputs): (BTreeMap<_, _>, BTreeMap<_, _>) =
            read(&path(model).join("golden.safetensors"))
                .into_iter()
                .partition(|(name, _)| name.starts_with("grad."));
        let whole = |name: &str| outputs.get(name).map(|stored| stored.values.iter().map(|&v| v as usize));
        let rows = (0..).map_while(|i| whole(&format!("row.{i}")));
        Self {
            rows: rows.map(|row| row.map(|id| id as u32).collect()).collect(),
            prompt_lens: whole("prompt_lens").unwrap().collect(),
            gradients: gradients.into_iter().map(|(name, g)| (name["grad.".len()..].to_owned(), g)).collect(),
            outputs,
        }
    }
}

/// Panics unless every number is within `tolerance` of the expected one.
pub fn assert_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: count");
    let worst = found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |worst: f64, d| if d.is_nan() { f64::INFINITY } else { worst.max(d) });
    println!("{what}: differs by {worst:.1e}, tolerance {tolerance:.0e}");
    assert!(worst <= tolerance, "{what}: differs by {worst:.1e}, more than {tolerance:.0e}");
}

/// A tensor's numbers.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().as_slice::<f32>().unwrap().iter().map(|&v| f64::from(v)).collect()
}

/// Backpropagates `loss` and compares the gradient of every parameter of `module`: no more of them, no fewer.
pub fn assert_gradients<M: Module>(
    model: &str,
    module: &M,
    loss: Tensor<1>,
    golden: &Golden,
    tolerance: f64,
) {
    let gradients = GradientsParams::from_grads(loss.backward(), module);
    let mut collector = Collector { path: Vec::new(), gradients, found: BTreeMap::new() };
    module.visit(&mut collector);
    let found = collector.found;
    assert_eq!(found.keys().collect::<Vec<_>>(), golden.gradients.keys().collect::<Vec<_>>(), "{model}");
    for (name, expected) in &golden.gradients {
        assert_eq!(found[name].shape, expected.shape, "{model}: {name}");
        assert_close(&format!("{model}: {name}"), &found[name].values, &expected.values, tolerance);
    }
}

/// Gathers gradients under the names and in the layouts of Hugging Face.
struct Collector {
    path: Vec<String>,
    gradients: GradientsParams,
    found: BTreeMap<String, Stored>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let gradient = self.gradients.remove::<D>(param.id);
        let mut gradient = gradient.unwrap_or_else(|| panic!("{path} has no gradient"));
        // burn calls a norm's weight gamma and its bias beta.
        let name = match path.rsplit_once('.') {
            Some((owner, "gamma")) => format!("{owner}.weight"),
            Some((owner, "beta")) => format!("{owner}.bias"),
            _ => path,
        };
        // The heads are torch.nn.Linear: [out, in].
        if name == "lm_head.weight" || name == "score.weight" {
            gradient = gradient.swap_dims(0, 1);
        }
        let shape = gradient.dims().to_vec();
        self.found.insert(name, Stored { shape, values: values(gradient) });
    }
}
