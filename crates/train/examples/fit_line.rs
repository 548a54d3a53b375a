//! The toolbox around a loop of one's own: AdamW fits a line under a cosine schedule and leaves a run directory. No
//! model of Temper takes part.
//!
//! `cargo run --release -p temper-train --example fit_line [RUN_DIR]`
#![allow(clippy::print_stdout)]

use std::path::Path;

use burn::module::Module;
use burn::nn::{Initializer, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;
use serde_json::json;
use temper_train::{
    AdamWConfig, Error, Event, Inputs, Optimizer, Run, Schedule, ScheduleKind, Seed, TRAINING_DIR,
    length_buckets,
};

const STEPS: usize = 200;

fn main() -> Result<(), Error> {
    let device = Device::flex();
    let run = match std::env::args().nth(1) {
        Some(dir) => Run::open(Path::new(&dir), "fit", "slope = 2.0\n", &Inputs::default(), false)?,
        None => Run::ephemeral()?,
    };
    let mut run = run.with_observer(|event| match event {
        Event::Step { step, metrics, .. } if step % 50 == 0 => println!("{step:4} loss {}", metrics["loss"]),
        _ => {}
    });
    let column = |values: Vec<f32>| {
        let n = values.len();
        Tensor::<2>::from_data(TensorData::new(values, [n, 1]), &device)
    };
    let schedule = Schedule { kind: ScheduleKind::Cosine, warmup_steps: 5, ..Schedule::default() };
    let mut optimizer = Optimizer::new(&AdamWConfig::default());
    let mut line = LinearConfig::new(1, 1).with_initializer(Initializer::Zeros).init(&device).train();
    run.started(STEPS);
    for step in 0..STEPS {
        // Everything random is a function of the seed, a name and the step.
        let rows =
            length_buckets(&[1; 64], 16, &mut Seed(0).stream_at("shuffle", step as u64)).swap_remove(0);
        let mut noise = Seed(0).stream_at("noise", step as u64);
        let x: Vec<f32> = rows.iter().map(|&i| i as f32 / 32.0 - 1.0).collect();
        let y: Vec<f32> = x.iter().map(|x| 2.0 * x + 1.0 + 0.1 * (noise.random::<f32>() - 0.5)).collect();

        let loss = (line.forward(column(x)) - column(y)).square().mean();
        let value: f64 = loss.clone().into_scalar();
        optimizer.accumulate(&line, loss);
        let (updated, grad_norm) = optimizer.step(line, schedule.learning_rate(0.1, step, STEPS))?;
        line = updated;
        run.log(step + 1, STEPS, &json!({"loss": value, "grad_norm": grad_norm}))?;
        if (step + 1) % 100 == 0 {
            let save = |dir: &Path| optimizer.save(&dir.join(TRAINING_DIR).join("optimizer.safetensors"));
            run.save_checkpoint(step + 1, save)?;
        }
    }
    let bias = line.bias.expect("a linear map has a bias unless it is told otherwise").val();
    println!("{:.3} x + {:.3}", line.weight.val().into_scalar::<f64>(), bias.into_scalar::<f64>());
    Ok(())
}
