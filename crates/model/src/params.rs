//! Walking a module's parameters by their dotted path.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;

/// Replaces each float parameter by what `f` makes of its path and value; gradients are wanted as before.
pub(crate) fn map_params<M: Module>(module: M, f: impl ParamMap) -> M {
    module.map(&mut Walker { path: Vec::new(), f })
}

/// A function on parameters of any rank.
pub(crate) trait ParamMap {
    fn map<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D>;
}

struct Walker<F> {
    path: Vec<String>,
    f: F,
}

impl<F: ParamMap> ModuleMapper for Walker<F> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        param.map(|value| {
            let wants_grad = value.is_require_grad();
            self.f.map(&path, value.detach()).set_require_grad(wants_grad)
        })
    }
}
