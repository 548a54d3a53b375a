//! AdamW with every number explicit and global-norm clipping.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};
use serde::{Deserialize, Serialize};
use temper_kernels::{AdamWUpdate, adamw};
use temper_tensor::{
    Gradients, NamedTensor, TensorFile, VALUES_PER_TASK, is_host, map, values_of, visit, write_tensors,
};

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
/// Call [`Optimizer::add`] or [`Optimizer::accumulate`], once or several times, then [`Optimizer::step`]. Losses must
/// already carry their weight (tokens of the microbatch over tokens of the batch): gradients are summed. A parameter
/// without a gradient, because it is not [trained](temper_tensor::Trainable), gets no moments and stays as it is.
#[derive(Debug)]
pub struct Optimizer {
    config: AdamWConfig,
    updates: u64,
    moments: BTreeMap<String, Moments>,
    gradients: Gradients,
}

/// Running means for one parameter, flattened: `[n]`.
#[derive(Debug)]
struct Moments {
    /// The parameter's own.
    dims: Vec<usize>,
    first: Tensor<1>,
    second: Tensor<1>,
}

impl Moments {
    /// Those of a parameter that has not been updated.
    fn zeros(dims: &[usize], value: &Tensor<1>) -> Self {
        let zeros = || Tensor::zeros(value.dims(), &value.device());
        Self { dims: dims.to_vec(), first: zeros(), second: zeros() }
    }
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
        let mut gradients = std::mem::take(&mut self.gradients);
        let norm = gradients.norm();
        if !norm.is_finite() {
            return Err(Error::NonFinite { what: "gradient norm", update: self.updates + 1 });
        }
        let limit = self.config.max_grad_norm;
        let scale = if limit > 0.0 { (limit / (norm + 1e-6)).min(1.0) } else { 1.0 };
        self.updates += 1;
        let update = Update::new(&self.config, self.updates, learning_rate, scale);
        let module = map(module, |parameter| match gradients.take(parameter.path) {
            Some(gradient) => {
                let path = parameter.path.to_owned();
                let moments = self
                    .moments
                    .entry(path)
                    .or_insert_with(|| Moments::zeros(parameter.dims, &parameter.value));
                update.apply(parameter.value, gradient, moments)
            }
            None => parameter.value,
        });
        Ok((module, norm))
    }

    /// Writes the moments and the step count as one safetensors file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let named = |name: &str, kind: &str, dims: &[usize], moment: &Tensor<1>| NamedTensor {
            name: format!("{name}/{kind}"),
            dims: dims.to_vec(),
            values: values_of(moment.clone()),
        };
        let both = |(name, m): (&String, &Moments)| {
            [named(name, "first", &m.dims, &m.first), named(name, "second", &m.dims, &m.second)]
        };
        let tensors: Vec<NamedTensor> = self.moments.iter().flat_map(both).collect();
        write_file(path, &write_tensors(&tensors, ("updates", &self.updates.to_string())))
    }

    /// Reads back what [`Optimizer::save`] wrote for the same module. Parameters that are not trained have no state.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::BadState`] if the file is damaged, or with the name of a trained parameter whose state is
    /// missing, has another shape or type, or holds impossible numbers, or of a state that belongs to no trained
    /// parameter: never a silent fresh start.
    pub fn load<M: Module>(&mut self, path: &Path, module: &M) -> Result<(), Error> {
        self.load_renamed(path, module, str::to_owned)
    }

    /// [`Optimizer::load`] for a file that may have been written when parameters had other paths: `former` gives the
    /// former path of a parameter, or its path again.
    ///
    /// # Errors
    /// As [`Optimizer::load`].
    pub fn load_renamed<M: Module>(
        &mut self,
        path: &Path,
        module: &M,
        former: impl Fn(&str) -> String,
    ) -> Result<(), Error> {
        let bad = |message: String| Error::BadState { path: path.to_owned(), message };
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let file = TensorFile::parse(&bytes).map_err(bad)?;
        let updates = file.metadata("updates").and_then(|updates| updates.parse().ok());
        let updates = updates.filter(|&updates: &u64| updates < MOST_UPDATES);
        let updates = updates.ok_or_else(|| bad("it does not say how many updates were made".into()))?;
        if updates == 0 && file.names().is_empty() {
            // No moment is known before the first update.
            (self.updates, self.moments) = (0, BTreeMap::new());
            return Ok(());
        }
        let mut trained = BTreeMap::new();
        visit(module, |parameter| {
            if parameter.is_trainable {
                let shape = (parameter.dims.to_vec(), parameter.value.device());
                trained.insert(parameter.path.to_owned(), shape);
            }
        });
        let (mut moments, mut known) = (BTreeMap::new(), BTreeSet::new());
        for (path, (dims, device)) in trained {
            let former = former(&path);
            let has_state = |name: &&String| file.tensor(&format!("{name}/first")).is_some();
            let stored = [&path, &former].into_iter().find(has_state).unwrap_or(&path);
            let names = ["first", "second"].map(|kind| format!("{stored}/{kind}"));
            let read = |name: &str, is_second| {
                let values = read_moments(&file, name, &dims, is_second).map_err(bad)?;
                let n = values.len();
                Ok(Tensor::from_data(TensorData::new(values, [n]), &device))
            };
            let (first, second) = (read(&names[0], false)?, read(&names[1], true)?);
            known.extend(names);
            moments.insert(path, Moments { dims, first, second });
        }
        if let Some(name) = file.names().into_iter().filter(|&name| !known.contains(name)).min() {
            return Err(bad(format!("`{name}` belongs to no parameter of the model")));
        }
        (self.updates, self.moments) = (updates, moments);
        Ok(())
    }
}

/// The running means of one parameter, or what is wrong with them.
fn read_moments(
    file: &TensorFile<'_>,
    name: &str,
    dims: &[usize],
    is_second: bool,
) -> Result<Vec<f32>, String> {
    let stored = file.tensor(name).ok_or_else(|| format!("no optimizer state `{name}`"))?;
    if stored.dims() != dims {
        return Err(format!("`{name}` has the shape {:?}, the model {dims:?}", stored.dims()));
    }
    let values = stored.values().filter(|_| stored.is_f32());
    let values = values.ok_or_else(|| format!("`{name}` has the type {}, not F32", stored.type_name()))?;
    // The next step would carry them into the weights: a root of the second, a quotient of both.
    let is_impossible = |value: &&f32| !value.is_finite() || (is_second && **value < 0.0);
    match values.iter().find(is_impossible) {
        Some(value) => Err(format!("`{name}` holds {value}")),
        None => Ok(values),
    }
}

/// The numbers of one update, the same for every parameter; see [`AdamWUpdate`] for their meaning.
struct Update {
    beta_1: f64,
    beta_2: f64,
    rate: f64,
    second_scale: f64,
    epsilon: f64,
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

    /// One parameter after its update, wherever its memory is.
    fn apply(&self, p: Tensor<1>, g: Tensor<1>, moments: &mut Moments) -> Tensor<1> {
        if is_host(&p.device()) { self.on_host(p, g, moments) } else { self.on_device(p, g, moments) }
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

    /// The same in one pass over host memory, which the threads share.
    fn on_host(&self, p: Tensor<1>, g: Tensor<1>, moments: &mut Moments) -> Tensor<1> {
        let device = p.device();
        let take =
            |tensor: &mut Tensor<1>| std::mem::replace(tensor, Tensor::empty([1], &device)).into_data();
        let (mut p, g) = (p.into_data(), g.into_data());
        let (mut first, mut second) = (take(&mut moments.first), take(&mut moments.second));
        let numbers = self.numbers();
        {
            let p = p.as_mut_slice::<f32>().expect("weights are f32");
            let g = g.as_slice::<f32>().expect("gradients are f32");
            let m = first.as_mut_slice::<f32>().expect("moments are f32");
            let v = second.as_mut_slice::<f32>().expect("moments are f32");
            let moments = m.par_chunks_mut(VALUES_PER_TASK).zip(v.par_chunks_mut(VALUES_PER_TASK));
            let parts = p.par_chunks_mut(VALUES_PER_TASK).zip(g.par_chunks(VALUES_PER_TASK)).zip(moments);
            parts.for_each(|((p, g), (m, v))| adamw(numbers, p, g, m, v));
        }
        moments.first = Tensor::from_data(first, &device);
        moments.second = Tensor::from_data(second, &device);
        Tensor::from_data(p, &device)
    }

    /// 1 − β is taken in f64: in f32 that of .999 is wrong from its fifth digit on.
    fn numbers(&self) -> AdamWUpdate {
        let with_rest = |beta: f64| [beta as f32, (1.0 - beta) as f32];
        AdamWUpdate {
            first: with_rest(self.beta_1),
            second: with_rest(self.beta_2),
            rate: self.rate as f32,
            second_scale: self.second_scale as f32,
            epsilon: self.epsilon as f32,
            keep: self.keep as f32,
            grad_scale: self.grad_scale as f32,
        }
    }
}

#[cfg(test)]
mod tests;
