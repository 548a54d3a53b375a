//! How a token's position enters the decoder.

use burn::nn::Embedding;
use burn::tensor::{Int, Tensor, s};

/// Adds the learned vector of each position to the token embeddings (Radford et al. 2019).
///
/// # Shapes
/// - `x` and output: `[batch, seq, d_model]`
/// - `positions`: `[batch, seq]`; `None` for 0, 1, 2, … in every row
pub(crate) fn add_learned(x: Tensor<3>, table: &Embedding, positions: Option<Tensor<2, Int>>) -> Tensor<3> {
    let [_, seq, _] = x.dims();
    x + match positions {
        Some(positions) => table.forward(positions),
        None => table.weight.val().slice(s![0..seq, ..]).unsqueeze::<3>(),
    }
}
