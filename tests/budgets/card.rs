//! What a step launches on a graphics card, and what crosses between host and card.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Device, DeviceKind};
use cubecl_runtime::logging::{LaunchObservation, LaunchObserver};
use temper_tensor::Transfers;

use crate::{compare, works};

/// What was counted during some work, or what it may come to.
#[derive(Clone, Copy, Debug)]
struct Counts {
    /// Kernels that were launched.
    launches: usize,
    /// Reads by the host. Every read waits for the card.
    reads: usize,
    /// Bytes of these reads.
    bytes_read: usize,
    /// Bytes that the host wrote.
    bytes_written: usize,
}

#[derive(Default)]
struct Launches(AtomicUsize);

impl LaunchObserver for Launches {
    fn launched(&self, _kernel: &'static str) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts what `work` does on the device.
fn counts_of(device: &Device, work: impl FnOnce()) -> Counts {
    let launches = Arc::new(Launches::default());
    let observation = LaunchObservation::new(launches.clone());
    let before = Transfers::so_far();
    work();
    device.sync().unwrap();
    drop(observation);
    let Transfers { reads, bytes_read, bytes_written } = Transfers::so_far().since(before);
    let [reads, bytes_read, bytes_written] = [reads, bytes_read, bytes_written].map(|n| n as usize);
    Counts { launches: launches.0.load(Ordering::Relaxed), reads, bytes_read, bytes_written }
}

/// Compares the units between `few` and `many` with a budget for each. Both run once before: the first run of a kernel
/// tries out several forms of it.
fn check(
    device: &Device,
    what: &str,
    [few, many]: [usize; 2],
    budget: Counts,
    work: impl Fn(&Device, usize),
) {
    let count = |n| counts_of(device, || work(device, n));
    count(many);
    let (fewer, more) = (count(few), count(many));
    let each = |number: fn(&Counts) -> usize| (number(&more) - number(&fewer)) / (many - few);
    for (unit, number) in [
        ("launches", (|c| c.launches) as fn(&Counts) -> usize),
        ("reads", |c| c.reads),
        ("bytes read", |c| c.bytes_read),
        ("bytes written", |c| c.bytes_written),
    ] {
        println!("{what}: {} {unit}", each(number));
    }
    compare(what, "launches", each(|c| c.launches), budget.launches);
    compare(what, "reads", each(|c| c.reads), budget.reads);
    compare(what, "bytes read", each(|c| c.bytes_read), budget.bytes_read);
    compare(what, "bytes written", each(|c| c.bytes_written), budget.bytes_written);
}

#[test]
fn steps_on_a_card_launch_and_move_no_more_than_their_budgets() {
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    let of_tokens = Counts { launches: 165, reads: 1, bytes_read: 70, bytes_written: 105 };
    check(&device, "a token of decoding", [8, 40], of_tokens, works::decode);
    let of_steps = Counts { launches: 1_080, reads: 3, bytes_read: 470, bytes_written: 5_100 };
    check(&device, "an SFT step", [2, 6], of_steps, works::sft);
    let of_iterations = Counts { launches: 5_400, reads: 25, bytes_read: 1_770, bytes_written: 12_700 };
    check(&device, "a PPO iteration", [2, 4], of_iterations, works::ppo);
}
