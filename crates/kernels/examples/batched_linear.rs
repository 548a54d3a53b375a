//! How long burn's linear map of a batch takes on flex, forwards and backwards, next to the same map of one matrix and to ours.
//!
//! `docs/upstream/burn-flex-matmul.md` says what this shows.

#![allow(clippy::print_stdout)] // An example prints.

use std::time::Instant;

use burn::tensor::module::linear;
use burn::tensor::{Device, Tensor};

const ROWS: usize = 8;
const TOKENS: usize = 128;
const D_IN: usize = 256;
const D_OUT: usize = 1024;
const REPEATS: usize = 30;

fn main() {
    let device = Device::flex().autodiff();
    let weight = Tensor::<2>::ones([D_IN, D_OUT], &device).require_grad();
    let bias = Tensor::<1>::zeros([D_OUT], &device).require_grad();
    let batch = Tensor::<3>::ones([ROWS, TOKENS, D_IN], &device).require_grad();
    time("burn, a batch of rows", || linear(batch.clone(), weight.clone(), Some(bias.clone())));
    time("burn, one matrix", || {
        let matrix = batch.clone().reshape([ROWS * TOKENS, D_IN]);
        linear(matrix, weight.clone(), Some(bias.clone())).reshape([ROWS, TOKENS, D_OUT])
    });
    time("temper-kernels", || temper_kernels::linear(batch.clone(), weight.clone(), Some(bias.clone())));
}

/// Prints the median time of a forward and backward pass.
fn time(name: &str, map: impl Fn() -> Tensor<3>) {
    let mut seconds: Vec<f64> = (0..REPEATS)
        .map(|_| {
            let began = Instant::now();
            let gradients = map().sum().backward();
            std::hint::black_box(gradients);
            began.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    println!("{name:24} {:6.2} ms", 1e3 * seconds[REPEATS / 2]);
}
