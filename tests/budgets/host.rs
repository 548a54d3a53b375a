//! What a step allocates on the CPU. A build with other backends has larger tensors, and counts differently.

use burn::tensor::Device;
use temper_tensor::start_threads;

use crate::counting::{Allocations, allocations_of};
use crate::{compare, works};

/// What one unit of work may allocate.
struct Budget {
    /// How many times.
    count: usize,
    /// Bytes, whether or not they were freed in between.
    bytes: usize,
    /// The most bytes at the same time, above what was there before.
    peak: usize,
}

/// Compares `n` units of work with a budget for each. The peak is that of all.
fn check(what: &str, n: usize, found: Allocations, budget: Budget) {
    let (count, bytes) = (found.count / n, found.bytes / n);
    println!("{what}: {count} allocations, {bytes} bytes, peak {}", found.peak);
    compare(what, "allocations", count, budget.count);
    compare(what, "bytes", bytes, budget.bytes);
    compare(what, "bytes at once", found.peak, budget.peak);
}

/// One after the other, on two threads: what another test allocates would count, too.
#[test]
fn steps_allocate_no_more_than_their_budgets() {
    assert_eq!(start_threads(2), 2);
    let device = Device::flex();

    let decode = |n| allocations_of(|| works::decode(&device, n));
    decode(4);
    let of_tokens = decode(40).minus(decode(8));
    check("a token of decoding", 32, of_tokens, Budget { count: 60, bytes: 123_000, peak: 5_600_000 });

    let train = |n| allocations_of(|| works::sft(&device, n));
    train(1);
    let of_steps = train(6).minus(train(2));
    check("an SFT step", 4, of_steps, Budget { count: 13_700, bytes: 52_000_000, peak: 30_000_000 });

    let train = |n| allocations_of(|| works::ppo(&device, n));
    train(1);
    let of_iterations = train(4).minus(train(2));
    check("a PPO iteration", 2, of_iterations, Budget { count: 36_600, bytes: 67_000_000, peak: 23_500_000 });
}
