//! AdamW with every number explicit, global-norm clipping, and gradients accumulated over microbatches.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::files::write_file;
use crate::settings;

settings! {
    /// The numbers of AdamW (Loshchilov and Hutter 2019) and of gradient clipping. None is inherited from a library.
    ///
    /// The defaults are PyTorch's Adam with the notebook's clip at 1.
    pub struct AdamWConfig {
        /// Decay of the running mean of gradients.
        pub beta_1: f64 = 0.9, in 0.0..1.0,
        /// Decay of the running mean of squared gradients.
        pub beta_2: f64 = 0.999, in 0.0..1.0,
        /// Added to the root of the second moment.
        ///
        /// Below 1e-20 the step of a gradient whose square is 0 in f32 has no bound; above 1000 nothing is learned.
        pub epsilon: f64 = 1e-8, in 1e-20..=1e3,
        /// Where epsilon is added: pytorch (after that root's bias correction) | tensorflow (before it, as in
        /// lm-human-preferences).
        pub epsilon_style: EpsilonStyle = EpsilonStyle::Pytorch,
        /// Decoupled weight decay on every parameter; 0: none.
        pub weight_decay: f64 = 0.0, in ZeroOr(Positive),
        /// The global gradient norm is clipped to this; 0: never.
        pub max_grad_norm: f64 = 1.0, in ZeroOr(Positive),
    }
}

/// Where Adam's ε is added. The two differ in the first thousand updates, when TensorFlow's counts for more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EpsilonStyle {
    /// √(v / (1 − β₂ᵗ)) + ε, as in the paper's algorithm and in PyTorch.
    #[default]
    Pytorch,
    /// √v + ε, with the correction in the step size: lr √(1 − β₂ᵗ) / (1 − β₁ᵗ), as TensorFlow 1 does it and so
    /// lm-human-preferences (Kingma and Ba 2015, end of section 2).
    Tensorflow,
}

/// Bias correction counts updates in f64, which is exact up to here; no run comes near.
const MOST_UPDATES: u64 = 1 << 53;

/// AdamW for one module, its moments kept under the parameters' dotted paths.
///
/// Call [`Optimizer::accumulate`] or [`Optimizer::add`] for each microbatch, then [`Optimizer::step`]. Losses must already carry
/// their weight (tokens of the microbatch over tokens of the batch): gradients are summed.
#[derive(Debug)]
pub struct Optimizer {
    config: AdamWConfig,
    updates: u64,
    moments: BTreeMap<String, Moments>,
    gradients: Gradients,
}

/// Gradients of a module's parameters, under their dotted paths, flattened and off the tape.
#[derive(Debug, Default)]
pub struct Gradients {
    by_path: BTreeMap<String, Tensor<1>>,
}

impl Gradients {
    /// Backpropagates `loss` and takes the gradients of `module`.
    pub fn of<M: Module>(module: &M, loss: Tensor<1>) -> Self {
        let gradients = GradientsParams::from_grads(loss.backward(), module);
        let mut collector = Collector { path: Vec::new(), gradients, found: BTreeMap::new() };
        module.visit(&mut collector);
        Self { by_path: collector.found }
    }

    /// Adds other gradients to these.
    pub fn add(&mut self, other: Gradients) {
        for (path, gradient) in other.by_path {
            let sum = match self.by_path.remove(&path) {
                Some(sum) => sum + gradient,
                None => gradient,
            };
            self.by_path.insert(path, sum);
        }
    }
}

/// Running means for one parameter, flattened: `[n]`.
#[derive(Debug)]
struct Moments {
    /// The parameter's own.
    dims: Vec<usize>,
    first: Tensor<1>,
    second: Tensor<1>,
}

impl Optimizer {
    /// An optimizer that has not made a step.
    pub fn new(config: &AdamWConfig) -> Self {
        Self { config: config.clone(), updates: 0, moments: BTreeMap::new(), gradients: Gradients::default() }
    }

    /// Steps made so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Backpropagates `loss` and adds the gradients of `module` to those already there.
    pub fn accumulate<M: Module>(&mut self, module: &M, loss: Tensor<1>) {
        self.add(Gradients::of(module, loss));
    }

    /// Adds gradients that were computed elsewhere, on another thread perhaps.
    pub fn add(&mut self, gradients: Gradients) {
        self.gradients.add(gradients);
    }

    /// Makes one update from the accumulated gradients, and forgets them.
    ///
    /// Returns the module and the global gradient norm before clipping:
    /// g ← g · min(1, max_grad_norm / (‖g‖ + 1e-6)), over all parameters together, as
    /// `torch.nn.utils.clip_grad_norm_` does. A parameter without a gradient stays as it is.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if the norm is not finite; no parameter has changed then.
    pub fn step<M: Module>(&mut self, module: M, learning_rate: f64) -> Result<(M, f64), Error> {
        let mut gradients = std::mem::take(&mut self.gradients).by_path;
        let norm = global_norm(&mut gradients);
        if !norm.is_finite() {
            return Err(Error::NonFinite { what: "gradient norm", update: self.updates + 1 });
        }
        let limit = self.config.max_grad_norm;
        let scale = if limit > 0.0 { (limit / (norm + 1e-6)).min(1.0) } else { 1.0 };
        self.updates += 1;
        let update = Update::new(&self.config, self.updates, learning_rate, scale);
        let mut mapper = Updater { path: Vec::new(), gradients, moments: &mut self.moments, update };
        Ok((module.map(&mut mapper), norm))
    }

    /// Writes the moments and the step count as one safetensors file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let bytes = |tensor: &Tensor<1>| -> Vec<u8> {
            let data = tensor.to_data();
            data.as_slice::<f32>().expect("moments are f32").iter().flat_map(|v| v.to_le_bytes()).collect()
        };
        let tensors: Vec<(String, &[usize], Vec<u8>)> = self
            .moments
            .iter()
            .flat_map(|(name, m)| {
                let tensor = |kind, moment| (format!("{name}/{kind}"), m.dims.as_slice(), bytes(moment));
                [tensor("first", &m.first), tensor("second", &m.second)]
            })
            .collect();
        let views = tensors.iter().map(|(name, dims, bytes)| {
            let view = TensorView::new(Dtype::F32, dims.to_vec(), bytes);
            (name.as_str(), view.expect("bytes match the shape"))
        });
        let metadata = [("updates".to_owned(), self.updates.to_string())].into();
        let file = safetensors::serialize(views, Some(metadata)).expect("f32 tensors serialise");
        write_file(path, &file)
    }

    /// Reads back what [`Optimizer::save`] wrote for the same module.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::BadState`] if the file is damaged, or with the name of a parameter that has no state in
    /// it, or one of another shape or type or of impossible numbers, or that `module` does not have: never a silent
    /// fresh start.
    pub fn load<M: Module>(&mut self, path: &Path, module: &M) -> Result<(), Error> {
        let bad = |message: String| Error::BadState { path: path.to_owned(), message };
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| bad(e.to_string()))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(e.to_string()))?;
        let updates: Option<u64> = header.metadata().as_ref().and_then(|m| m.get("updates")?.parse().ok());
        let mut shapes = Shapes::default();
        module.visit(&mut shapes);
        let mut moments = BTreeMap::new();
        for (name, (dims, device)) in &shapes.found {
            let read = |kind: &str| {
                let is_second = kind == "second";
                let name = format!("{name}/{kind}");
                let view = file.tensor(&name);
                let view = view.map_err(|_| bad(format!("no optimizer state `{name}`")))?;
                if view.shape() != dims {
                    let shape = view.shape();
                    return Err(bad(format!("`{name}` has the shape {shape:?}, the model {dims:?}")));
                }
                if view.dtype() != Dtype::F32 {
                    return Err(bad(format!("`{name}` has the type {:?}, not F32", view.dtype())));
                }
                let values: Vec<f32> =
                    view.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
                // The next step would carry them into the weights: a root of the second, a quotient of both.
                let impossible = |v: &&f32| !v.is_finite() || (is_second && **v < 0.0);
                if let Some(value) = values.iter().find(impossible) {
                    return Err(bad(format!("`{name}` holds {value}")));
                }
                let n = values.len();
                Ok(Tensor::from_data(TensorData::new(values, [n]), device))
            };
            let (first, second) = (read("first")?, read("second")?);
            moments.insert(name.clone(), Moments { dims: dims.clone(), first, second });
        }
        let known = |name: &str| name.rsplit_once('/').is_some_and(|(path, _)| moments.contains_key(path));
        if let Some(name) = file.names().into_iter().filter(|name| !known(name)).min() {
            return Err(bad(format!("`{name}` belongs to no parameter of the model")));
        }
        let updates = updates.filter(|&updates| updates < MOST_UPDATES);
        self.updates = updates.ok_or_else(|| bad("it does not say how many updates were made".into()))?;
        self.moments = moments;
        Ok(())
    }
}

/// √Σ g² over all gradients.
fn global_norm(gradients: &mut BTreeMap<String, Tensor<1>>) -> f64 {
    let on_host = gradients.values().next().is_some_and(|gradient| is_host(&gradient.device()));
    let squares = if on_host { squares_on_host(gradients) } else { squares_on_device(gradients) };
    squares.iter().sum::<f64>().sqrt()
}

/// Σ g² of each gradient. Each is read and put back: on a CPU that copies nothing.
fn squares_on_host(gradients: &mut BTreeMap<String, Tensor<1>>) -> Vec<f64> {
    let square = |gradient: &mut Tensor<1>| {
        let device = gradient.device();
        let data = std::mem::replace(gradient, Tensor::empty([1], &device)).into_data();
        let sum = sum_of_squares(data.as_slice::<f32>().expect("gradients are f32"));
        *gradient = Tensor::from_data(data, &device);
        sum
    };
    gradients.values_mut().map(square).collect()
}

/// The same on a graphics card, where every read waits for all that was asked for: one read for all gradients.
fn squares_on_device(gradients: &BTreeMap<String, Tensor<1>>) -> Vec<f64> {
    let sums: Vec<Tensor<1>> = gradients.values().map(|gradient| gradient.clone().square().sum()).collect();
    if sums.is_empty() {
        return Vec::new();
    }
    let data = Tensor::cat(sums, 0).into_data();
    data.as_slice::<f32>().expect("gradients are f32").iter().map(|&sum| f64::from(sum)).collect()
}

/// In f32 lanes over short runs, in f64 between them: as fast as f32, nearly as exact as f64.
fn sum_of_squares(values: &[f32]) -> f64 {
    let run = |run: &[f32]| {
        let mut lanes = [0.0f32; 16];
        let (blocks, rest) = run.as_chunks::<16>();
        for block in blocks {
            for (lane, value) in lanes.iter_mut().zip(block) {
                *lane += value * value;
            }
        }
        lanes.iter().chain(&[rest.iter().map(|v| v * v).sum()]).map(|&v: &f32| f64::from(v)).sum::<f64>()
    };
    values.chunks(1024).map(run).sum()
}

/// Whether tensors on this device are plain host memory (flex, ndarray).
fn is_host(device: &Device) -> bool {
    let name = format!("{device:?}");
    name.contains("Flex") || name.contains("NdArray")
}

/// The numbers of one update, the same for every parameter.
struct Update {
    beta_1: f64,
    beta_2: f64,
    /// learning rate / (1 − β₁ᵗ)
    rate: f64,
    /// 1 / √(1 − β₂ᵗ)
    second_scale: f64,
    epsilon: f64,
    /// 1 − learning rate · weight decay
    keep: f64,
    grad_scale: f64,
}

impl Update {
    fn new(config: &AdamWConfig, updates: u64, learning_rate: f64, grad_scale: f64) -> Self {
        let t = updates as f64;
        let second_scale = 1.0 / (1.0 - config.beta_2.powf(t)).sqrt();
        Self {
            beta_1: config.beta_1,
            beta_2: config.beta_2,
            rate: learning_rate / (1.0 - config.beta_1.powf(t)),
            second_scale,
            epsilon: match config.epsilon_style {
                EpsilonStyle::Pytorch => config.epsilon,
                // m / (√v + ε) times √(1 − β₂ᵗ), with that root taken into the denominator.
                EpsilonStyle::Tensorflow => config.epsilon * second_scale,
            },
            keep: 1.0 - learning_rate * config.weight_decay,
            grad_scale,
        }
    }

    /// p ← keep · p − rate · m / (√v · second_scale + ε), after m and v took the gradient in.
    fn on_device(&self, p: Tensor<1>, g: Tensor<1>, moments: &mut Moments) -> Tensor<1> {
        let g = g.mul_scalar(self.grad_scale);
        let first = moments.first.clone() * self.beta_1 + g.clone() * (1.0 - self.beta_1);
        let second = moments.second.clone() * self.beta_2 + g.square() * (1.0 - self.beta_2);
        let step = first.clone() / (second.clone().sqrt() * self.second_scale + self.epsilon);
        (moments.first, moments.second) = (first, second);
        p * self.keep - step * self.rate
    }

    /// The same in one pass over host memory instead of a dozen.
    fn on_host(&self, p: Tensor<1>, g: Tensor<1>, moments: &mut Moments) -> Tensor<1> {
        let device = p.device();
        let take =
            |tensor: &mut Tensor<1>| std::mem::replace(tensor, Tensor::empty([1], &device)).into_data();
        let (mut p, g) = (p.into_data(), g.into_data());
        let (mut first, mut second) = (take(&mut moments.first), take(&mut moments.second));
        // 1 − β is taken in f64: in f32 that of .999 is wrong from its fifth digit on.
        let [beta_1, beta_2, rest_1, rest_2, rate, second_scale, epsilon, keep, grad_scale] = [
            self.beta_1,
            self.beta_2,
            1.0 - self.beta_1,
            1.0 - self.beta_2,
            self.rate,
            self.second_scale,
            self.epsilon,
            self.keep,
            self.grad_scale,
        ]
        .map(|x| x as f32);
        {
            let p = p.as_mut_slice::<f32>().expect("weights are f32");
            let g = g.as_slice::<f32>().expect("gradients are f32");
            let m = first.as_mut_slice::<f32>().expect("moments are f32");
            let v = second.as_mut_slice::<f32>().expect("moments are f32");
            for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
                let g = g * grad_scale;
                *m = *m * beta_1 + g * rest_1;
                *v = *v * beta_2 + g * g * rest_2;
                *p = *p * keep - *m / (v.sqrt() * second_scale + epsilon) * rate;
            }
        }
        moments.first = Tensor::from_data(first, &device);
        moments.second = Tensor::from_data(second, &device);
        Tensor::from_data(p, &device)
    }
}

struct Collector {
    path: Vec<String>,
    gradients: GradientsParams,
    found: BTreeMap<String, Tensor<1>>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = self.gradients.remove::<D>(param.id) else { return };
        let n = gradient.shape().num_elements();
        self.found.insert(self.path.join("."), gradient.reshape([n]));
    }
}

struct Updater<'a> {
    path: Vec<String>,
    gradients: BTreeMap<String, Tensor<1>>,
    moments: &'a mut BTreeMap<String, Moments>,
    update: Update,
}

impl ModuleMapper for Updater<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        let Some(gradient) = self.gradients.remove(&path) else { return param };
        let (moments, update) = (&mut *self.moments, &self.update);
        param.map(|value| {
            let dims = value.dims();
            let n: usize = dims.iter().product();
            let p = value.inner().reshape([n]);
            let device = p.device();
            let zeros = || Tensor::zeros([n], &device);
            let moments = moments.entry(path).or_insert_with(|| Moments {
                dims: dims.to_vec(),
                first: zeros(),
                second: zeros(),
            });
            let p = if is_host(&device) {
                update.on_host(p, gradient, moments)
            } else {
                update.on_device(p, gradient, moments)
            };
            Tensor::from_inner(p.reshape(dims)).require_grad()
        })
    }
}

/// Shapes and places of a module's parameters.
#[derive(Default)]
struct Shapes {
    path: Vec<String>,
    found: BTreeMap<String, (Vec<usize>, Device)>,
}

impl ModuleVisitor for Shapes {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        self.found.insert(self.path.join("."), (value.dims().to_vec(), value.device().inner()));
    }
}

#[cfg(test)]
mod tests;
