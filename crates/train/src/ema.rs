//! Averages of weights over time.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// `decay` · `average` + (1 − `decay`) · `module`, parameter by parameter, off the tape: the exponential moving average
/// of a policy's weights (InstructGPT, appendix C.4, with a decay of 0.992).
///
/// # Panics
/// If the modules do not have the same parameters.
pub fn moving_average<M: Module>(average: M, module: &M, decay: f64) -> M {
    let mut values = Values::default();
    module.visit(&mut values);
    average.map(&mut Blend { path: Vec::new(), values: values.found, decay })
}

/// Every parameter under its dotted path, flattened and off the tape.
#[derive(Default)]
struct Values {
    path: Vec<String>,
    found: BTreeMap<String, Tensor<1>>,
}

impl ModuleVisitor for Values {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val().inner();
        let n = value.shape().num_elements();
        self.found.insert(self.path.join("."), value.reshape([n]));
    }
}

struct Blend {
    path: Vec<String>,
    values: BTreeMap<String, Tensor<1>>,
    decay: f64,
}

impl ModuleMapper for Blend {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        let value = self.values.remove(&path).expect("both modules have the same parameters");
        param.map(|average| {
            let dims = average.dims();
            // Read on the average's side of the tape, which is none.
            average.inner() * self.decay + value.reshape(dims) * (1.0 - self.decay)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::Linear;
    use burn::tensor::{Device, TensorData};

    fn linear(weight: f32, bias: f32) -> Linear {
        let device = Device::flex();
        let fill = |n: usize, value: f32| TensorData::new(vec![value; n], [n]);
        Linear {
            weight: Param::from_tensor(Tensor::<1>::from_data(fill(2, weight), &device).reshape([2, 1])),
            bias: Some(Param::from_tensor(Tensor::from_data(fill(1, bias), &device))),
        }
    }

    #[test]
    fn every_parameter_moves_by_its_share_towards_the_module() {
        // 0.75 · 8 + 0.25 · 4 = 7, then 0.75 · 7 + 0.25 · 4 = 6.25; the bias 0.75 · 0 + 0.25 · 4 = 1, then 1.75.
        let module = linear(4.0, 4.0).train();
        let once = moving_average(linear(8.0, 0.0), &module, 0.75);
        let twice = moving_average(once.clone(), &module, 0.75);
        let read = |layer: &Linear| {
            let weight = layer.weight.val().into_data();
            let bias = layer.bias.as_ref().unwrap().val().into_data();
            [weight.as_slice::<f32>().unwrap(), bias.as_slice::<f32>().unwrap()].concat()
        };
        assert_eq!(read(&once), [7.0, 7.0, 1.0]);
        assert_eq!(read(&twice), [6.25, 6.25, 1.75]);
    }
}
