//! Averages of weights over time.

use std::collections::BTreeMap;

use burn::module::Module;
use temper_tensor::{map, visit};

/// `decay` · `average` + (1 − `decay`) · `module`, parameter by parameter, off the tape: the exponential moving average
/// of a policy's weights (InstructGPT, appendix C.4, with a decay of 0.992).
///
/// A parameter of `module` that is not [trained](temper_tensor::Trainable) does not change, so its average stays as it
/// is, to the bit.
///
/// # Panics
/// If the modules do not have the same parameters.
pub fn moving_average<M: Module>(average: M, module: &M, decay: f64) -> M {
    let mut values = BTreeMap::new();
    visit(module, |parameter| {
        values.insert(parameter.path.to_owned(), (parameter.value, parameter.is_trainable));
    });
    map(average, |parameter| {
        let (value, is_trained) =
            values.remove(parameter.path).expect("both modules have the same parameters");
        if is_trained { parameter.value * decay + value * (1.0 - decay) } else { parameter.value }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::Param;
    use burn::nn::Linear;
    use burn::tensor::{Device, Tensor, TensorData};
    use temper_tensor::Trainable;

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

    /// 0.9 · 0.1 + 0.1 · 0.1 is not 0.1 in f32.
    #[test]
    fn the_average_of_a_parameter_that_is_not_trained_is_that_parameter() {
        let module = Trainable::only(|path| path == "weight").mark(linear(0.7, 0.1).train());
        let average = moving_average(module.valid(), &module, 0.9);
        assert_eq!(average.bias.unwrap().val().into_scalar::<f32>(), 0.1);
    }
}
