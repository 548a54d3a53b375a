//! Bookkeeping of training runs: directories, checkpoints, metrics, optimizer, schedules, batches, seeds, config
