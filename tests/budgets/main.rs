//! What a step of training and a token of decoding may allocate, and on a graphics card what they may launch and move: a
//! guard against steps that become slower or larger, which needs no clock and counts the same on every machine.
//!
//! A budget is a tenth above what was counted when it was set. A step that allocates more has a new intermediate result, a
//! copy, or an operation that was one and is several now. Change the budget where that is meant, and say why. Products of
//! matrices pack what they read into buffers whose sizes follow from the caches of the processor, so the peaks vary most.
//!
//! The budgets of a card need the feature `wgpu` and any Vulkan driver, also one that draws on the CPU:
//!
//! ```sh
//! cargo test --release -p temper-cli -p temper-tests --test budgets --features wgpu -- --nocapture
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy.toml allows both in tests; helpers are no less"
)]

#[cfg(feature = "wgpu")]
mod card;
#[cfg(not(feature = "wgpu"))]
mod counting;
#[cfg(not(feature = "wgpu"))]
mod host;
mod works;

/// Compares the number of something with its budget.
fn compare(what: &str, unit: &str, found: usize, budget: usize) {
    assert!(found <= budget, "{what}: {found} {unit}, and the budget is {budget}");
    assert!(found * 2 > budget, "{what}: {found} {unit}, so that the budget of {budget} guards nothing");
}
