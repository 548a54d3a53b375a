//! Reads the goldens, and compares with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use temper_data::{Pair, ScorePairs};
use temper_reward::ranking_loss;

use crate::backends::Backend;

/// Models with a head over the vocabulary, as directories of `assets/goldens`.
pub const LANGUAGE_MODELS: [&str; 3] = ["notebook", "gpt2", "gpt2-untied"];
/// Models with a scalar head.
pub const SCALAR_MODELS: [&str; 2] = ["notebook-reward", "gpt2-reward"];

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
    /// `logits` or `scores` and `values`; `losses` and `norms` of three steps.
    pub outputs: BTreeMap<String, Stored>,
    /// Of the first step, by the parameter's name in the file, in the file's layout.
    pub gradients: BTreeMap<String, Stored>,
    /// Weights after three steps, likewise.
    pub after: BTreeMap<String, Stored>,
}

impl Golden {
    pub fn read(model: &str) -> Self {
        let mut outputs = read(&path(model).join("golden.safetensors"));
        let mut take = |prefix: &str| -> BTreeMap<String, Stored> {
            let (taken, rest) = std::mem::take(&mut outputs)
                .into_iter()
                .partition::<BTreeMap<_, _>, _>(|(name, _)| name.starts_with(prefix));
            outputs = rest;
            taken.into_iter().map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor)).collect()
        };
        let (gradients, after) = (take("grad."), take("after."));
        let whole = |name: &str| outputs.get(name).map(|stored| stored.values.iter().map(|&v| v as usize));
        let rows = (0..).map_while(|i| whole(&format!("row.{i}")));
        Self {
            rows: rows.map(|row| row.map(|id| id as u32).collect()).collect(),
            prompt_lens: whole("prompt_lens").unwrap().collect(),
            gradients,
            after,
            outputs,
        }
    }
}

/// A section of one of the goldens in JSON.
pub fn section(file: &str, name: &str) -> Value {
    let text = std::fs::read_to_string(path(file)).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()[name].take()
}

/// The numbers of a list of any depth, or one number.
pub fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(inner) => inner.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap_or_else(|| panic!("{number} is not a number"))],
    }
}

/// One number.
pub fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

/// A list as a tensor: `[n]`.
pub fn vector(value: &Value, device: &Device) -> Tensor<1> {
    let data: Vec<f32> = numbers(value).iter().map(|&v| v as f32).collect();
    Tensor::from_data(data.as_slice(), device)
}

/// A list of rows as a tensor: `[rows, columns]`.
pub fn matrix(value: &Value, device: &Device) -> Tensor<2> {
    let rows = value.as_array().unwrap().len();
    let all = vector(value, device);
    let columns = all.dims()[0] / rows;
    all.reshape([rows, columns])
}

/// A list of ids as a tensor: `[n]`.
pub fn ids(value: &Value, device: &Device) -> Tensor<1, Int> {
    let data: Vec<i32> = numbers(value).iter().map(|&v| v as i32).collect();
    Tensor::from_data(data.as_slice(), device)
}

/// The reward model's loss on rankings of two: each chosen score with the rejected one in its place.
pub fn pairwise_loss(chosen: Tensor<1>, rejected: Tensor<1>) -> Tensor<1> {
    let n = chosen.dims()[0];
    let pairs: Vec<Pair> = (0..n).map(|i| Pair { chosen: i, rejected: n + i, gap: 1.0 }).collect();
    let pairs = ScorePairs::new(&[(2 * n, &pairs)], &chosen.device().inner());
    ranking_loss(Tensor::cat(vec![chosen, rejected], 0), &pairs, 0.0, 0.0)
}

/// A tensor's numbers.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().as_slice::<f32>().unwrap().iter().map(|&v| f64::from(v)).collect()
}

/// Backpropagates `loss` and compares the gradient of every parameter of `module`: no more of them, no fewer.
pub fn assert_gradients<M: Module>(
    backend: &Backend,
    module: &M,
    loss: Tensor<1>,
    expected: &BTreeMap<String, Stored>,
    tolerance: f64,
) {
    let gradients = GradientsParams::from_grads(loss.backward(), module);
    let mut collector = Collector { path: Vec::new(), gradients, found: BTreeMap::new() };
    module.visit(&mut collector);
    assert_weights(backend, "gradient", &collector.found, expected, tolerance);
}

/// The same names, the same shapes, and numbers within `tolerance`.
pub fn assert_weights(
    backend: &Backend,
    what: &str,
    found: &BTreeMap<String, Stored>,
    expected: &BTreeMap<String, Stored>,
    tolerance: f64,
) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (name, expected) in expected {
        assert_eq!(found[name].shape, expected.shape, "{what}: {name}");
        backend.assert_close(&format!("{what}: {name}"), &found[name].values, &expected.values, tolerance);
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
        let path = temper_model::former_path(&self.path.join("."));
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
