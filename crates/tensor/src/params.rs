//! A module's parameters by their dotted path, and which of them are trained.

use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor};

/// One float parameter of a module, as a walk over the module shows it.
#[derive(Debug)]
pub struct Parameter<'a> {
    /// The names of the fields that lead to it, joined by dots: `blocks.0.mlp.input.weight`.
    pub path: &'a str,
    /// Its shape.
    pub dims: &'a [usize],
    /// Its value, flattened and off the tape: `[n]`.
    pub value: Tensor<1>,
    /// Whether it asks for a gradient. Without autodiff nothing does, and this is `true`.
    pub is_trainable: bool,
}

/// Shows every float parameter of `module` to `f`, in the order of the fields.
pub fn visit<M: Module>(module: &M, f: impl FnMut(Parameter<'_>)) {
    walk(module, &mut Flattened(f));
}

/// Replaces every float parameter of `module` by what `f` makes of it: a flat tensor of as many elements.
///
/// Return `parameter.value` to keep a parameter. Device, identity and shape stay the same, and so does whether a
/// gradient is wanted.
///
/// # Panics
/// If `f` returns another number of elements.
pub fn map<M: Module>(module: M, f: impl FnMut(Parameter<'_>) -> Tensor<1>) -> M {
    module.map(&mut Mapper { path: Vec::new(), mapper: Replaced(f) })
}

/// Device of the first parameter of `module`, with the autodiff mark while the module is trained; `None` without
/// parameters.
pub fn device_of<M: Module>(module: &M) -> Option<Device> {
    let mut first = FirstDevice(None);
    walk(module, &mut first);
    first.0
}

/// A function on parameters of any rank.
pub(crate) trait Visit {
    fn visit<const D: usize>(&mut self, path: &str, id: ParamId, value: Tensor<D>);
}

/// Shows every float parameter of `module` to `visitor`, in its own rank and on the tape.
pub(crate) fn walk<M: Module>(module: &M, visitor: &mut impl Visit) {
    module.visit(&mut Visitor { path: Vec::new(), visitor });
}

struct Visitor<'a, V> {
    path: Vec<String>,
    visitor: &'a mut V,
}

impl<V: Visit> ModuleVisitor for Visitor<'_, V> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.visitor.visit(&self.path.join("."), param.id, param.val());
    }
}

/// The value's shape, and the value flattened and off the tape.
fn flatten<const D: usize>(value: Tensor<D>) -> ([usize; D], Tensor<1>) {
    let dims = value.dims();
    (dims, value.inner().reshape([dims.iter().product::<usize>()]))
}

fn is_trainable<const D: usize>(value: &Tensor<D>) -> bool {
    !value.is_autodiff() || value.is_require_grad()
}

struct Flattened<F>(F);

impl<F: FnMut(Parameter<'_>)> Visit for Flattened<F> {
    fn visit<const D: usize>(&mut self, path: &str, _id: ParamId, value: Tensor<D>) {
        let is_trainable = is_trainable(&value);
        let (dims, value) = flatten(value);
        (self.0)(Parameter { path, dims: &dims, value, is_trainable });
    }
}

struct FirstDevice(Option<Device>);

impl Visit for FirstDevice {
    fn visit<const D: usize>(&mut self, _path: &str, _id: ParamId, value: Tensor<D>) {
        self.0.get_or_insert_with(|| value.device());
    }
}

/// A function on parameters of any rank that returns them changed.
trait Change {
    fn change<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>>;
}

struct Mapper<C> {
    path: Vec<String>,
    mapper: C,
}

impl<C: Change> ModuleMapper for Mapper<C> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.mapper.change(&self.path.join("."), param)
    }
}

struct Replaced<F>(F);

impl<F: FnMut(Parameter<'_>) -> Tensor<1>> Change for Replaced<F> {
    fn change<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|old| {
            let (is_autodiff, wants_gradient) = (old.is_autodiff(), old.is_require_grad());
            let is_trainable = is_trainable(&old);
            // Nothing else holds the value while `f` works on it, so host memory can be changed in place.
            let (dims, value) = flatten(old);
            let value = (self.0)(Parameter { path, dims: &dims, value, is_trainable }).reshape(dims);
            if is_autodiff { Tensor::from_inner(value).set_require_grad(wants_gradient) } else { value }
        })
    }
}

/// A question about the dotted path of a parameter.
type Predicate = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Which parameters of a module are trained: all of them, or those whose dotted path a predicate accepts.
///
/// The filter acts through the module. [`Trainable::mark`] takes the other parameters off the tape; no gradient is
/// computed for them, and whatever depends on gradients follows: optimizer state and its checkpoints hold the
/// trained parameters only, and a moving average leaves the others as they are. Mark a module again after it was loaded from a file.
#[derive(Clone, Default)]
pub struct Trainable {
    /// `None` accepts every path.
    predicate: Option<Predicate>,
}

impl Trainable {
    /// Every parameter is trained.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Only parameters whose dotted path `predicate` accepts are trained.
    pub fn only(predicate: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self { predicate: Some(Arc::new(predicate)) }
    }

    /// Whether the parameter with this dotted path is trained.
    pub fn includes(&self, path: &str) -> bool {
        self.predicate.as_ref().is_none_or(|accepts| accepts(path))
    }

    /// The module with exactly the included parameters asking for gradients, now and after `train`.
    pub fn mark<M: Module>(&self, module: M) -> M {
        module.map(&mut Mapper { path: Vec::new(), mapper: self })
    }
}

impl std::fmt::Debug for Trainable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.predicate.is_some() { "Trainable::only(…)" } else { "Trainable::everything()" })
    }
}

impl Change for &Trainable {
    fn change<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.set_require_grad(self.includes(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{Linear, LinearConfig};

    fn layer() -> Linear {
        LinearConfig::new(2, 3).init(&Device::flex())
    }

    #[test]
    fn a_walk_shows_every_parameter_with_its_path_and_shape() {
        let pair = (layer(), Some(layer()));
        let mut seen = Vec::new();
        visit(&pair, |parameter| seen.push((parameter.path.to_owned(), parameter.dims.to_vec())));
        let expected =
            [("0.weight", vec![2, 3]), ("0.bias", vec![3]), ("1.weight", vec![2, 3]), ("1.bias", vec![3])];
        assert_eq!(seen, expected.map(|(path, dims)| (path.to_owned(), dims)));
    }

    #[test]
    fn a_mapped_module_keeps_its_shapes_and_its_gradients() {
        let module = Trainable::only(|path| path == "bias").mark(layer().train());
        let doubled = map(module.clone(), |parameter| match parameter.path {
            "weight" => parameter.value * 2.0,
            _ => parameter.value,
        });
        let difference = doubled.weight.val().inner() - module.weight.val().inner() * 2.0;
        assert_eq!(difference.abs().max().into_scalar::<f32>(), 0.0);
        assert!(!doubled.weight.val().is_require_grad());
        assert!(doubled.bias.unwrap().val().is_require_grad());
    }

    /// Marks survive the way from training to use and back, and the copy that each thread gets.
    #[test]
    fn a_marked_module_keeps_its_marks() {
        let trained = |module: &Linear| {
            let mut paths = Vec::new();
            visit(module, |parameter| {
                if parameter.is_trainable {
                    paths.push(parameter.path.to_owned());
                }
            });
            paths
        };
        let marked = Trainable::only(|path| path == "bias").mark(layer()).train();
        assert_eq!(trained(&marked), ["bias"]);
        assert_eq!(trained(&marked.valid().train()), ["bias"]);
        assert_eq!(trained(&marked.clone().fork(&device_of(&marked).unwrap())), ["bias"]);
        assert_eq!(trained(&Trainable::everything().mark(marked)), ["weight", "bias"]);
    }
}
