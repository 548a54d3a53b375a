//! How much memory a run needs, and the microbatches that follow from it.

use temper_model::ModelConfig;
use temper_train::{AutoKeys, Chosen, MemoryLimit, TrainingConfig};

use super::{CHECKPOINTING, Weights};
use crate::Error;

/// Bytes of a process beside its networks: the program, a tokenizer and some data.
const PROCESS: usize = 96 << 20;

/// Adapters of rank 16 have about a fiftieth of the parameters of their model.
const PARAMS_PER_ADAPTER: usize = 50;

impl Weights {
    /// The same weights in a run that may need so much memory.
    #[must_use]
    pub fn within(self, limit: MemoryLimit) -> Self {
        Self { limit, ..self }
    }

    /// The same weights in a run that keeps networks of `n_params` more parameters in memory and does not train them.
    #[must_use]
    pub fn with_frozen(self, n_params: usize) -> Self {
        Self { n_frozen: self.n_frozen + n_params, ..self }
    }

    /// The same weights in a run that trains another network of `n_params` parameters, with an optimizer of its own.
    #[must_use]
    pub fn with_trained(self, n_params: usize) -> Self {
        Self { n_trained_beside: self.n_trained_beside + n_params, ..self }
    }

    /// Compares what a run needs by its estimate, in settings that have their values, with what it may need. It updates from
    /// `batch` rows, in microbatches of `microbatch` rows of `row_len` tokens; 0 are all of them.
    ///
    /// # Errors
    /// [`Error::TooLittleMemory`].
    pub fn check_memory(
        &self,
        training: &TrainingConfig,
        batch: usize,
        microbatch: usize,
        row_len: usize,
    ) -> Result<(), Error> {
        let Some(limit) = training.memory.bytes() else { return Ok(()) };
        let settled = Self { recomputes_blocks: training.gradient_checkpointing, ..self.clone() };
        let n_shards = settled.n_shards(batch);
        let of_shard = batch.div_ceil(n_shards);
        let rows = if microbatch == 0 { of_shard } else { microbatch.min(of_shard) };
        let state = PROCESS + settled.bytes_of_state(batch);
        let needed = state + n_shards * rows * settled.bytes_of_row(row_len);
        if needed <= limit {
            return Ok(());
        }
        let [needed_mib, state_mib] = [needed, state].map(|bytes| bytes.div_ceil(1 << 20));
        Err(Error::TooLittleMemory { limit: training.memory, needed_mib, state_mib, row_len })
    }

    /// Whether blocks are computed again for their gradients: as the settings say, or, where that is left to Temper, if not even
    /// one row of `row_len` tokens for each thread fits into the memory that an update may need. Returns the same weights, as
    /// they are then.
    pub fn with_checkpointing(
        self,
        auto: &AutoKeys,
        training: &TrainingConfig,
        batch: usize,
        row_len: usize,
    ) -> (Self, Chosen) {
        let (room, needed) = (self.memory_budget(batch) / self.n_shards(batch), self.bytes_of_row(row_len));
        let fits = if needed > room { "does not fit" } else { "fits" };
        let reason = format!("a row of {row_len} tokens {fits} into {} MiB", room >> 20);
        let chosen = Chosen::new(CHECKPOINTING, needed > room, reason);
        let is_open = auto.contains(CHECKPOINTING);
        let recomputes_blocks = if is_open { needed > room } else { training.gradient_checkpointing };
        (Self { recomputes_blocks, ..self }, chosen)
    }

    /// How many parts of a batch are computed at the same time.
    fn n_shards(&self, batch: usize) -> usize {
        self.n_threads.clamp(1, batch.max(1))
    }

    /// Rows in one forward pass of an update, for each thread; 0, which is all of them, where a `batch` fits. Those of all
    /// threads together need no more memory than an update may, and in a small model on a CPU those of one thread need no
    /// more than its caches hold. `row_len` is the length of a long row, in tokens.
    pub fn microbatch(&self, key: &str, batch: usize, row_len: usize) -> Chosen {
        /// With so many tokens at once, matrix products are as fast as with more.
        const TOKENS_AT_ONCE: usize = 256;

        let budget = self.memory_budget(batch);
        let by_memory = budget / self.n_shards(batch) / self.bytes_of_row(row_len);
        let by_cache = if self.on_host && self.is_small() { TOKENS_AT_ONCE / row_len } else { usize::MAX };
        let reason = if by_cache < by_memory {
            format!("about {TOKENS_AT_ONCE} tokens at once for the caches of the CPU, rows of {row_len}")
        } else {
            format!("about {} MiB for rows of {row_len} tokens", budget >> 20)
        };
        let rows = by_memory.min(by_cache).max(1);
        Chosen::new(key, if rows >= batch { 0 } else { rows as i64 }, reason)
    }

    /// Rows that are sampled at once, so that their caches need about the memory that they may; 0, which is all of them, where
    /// `rows` fit. `row_len` is the length of prompt and answer together, in tokens, and half of it the prompt.
    pub fn sampling_batch(&self, key: &str, rows: usize, row_len: usize) -> Chosen {
        let ModelConfig { d_model, n_layers, n_heads, d_ff, vocab_size, .. } = self.config;
        let (budget, prompt_len) = (self.memory_budget(rows), row_len.div_ceil(2));
        let cache = 8 * n_layers * d_model * row_len;
        let pairs = if self.on_host { 0 } else { 2 * n_heads * prompt_len };
        let prompt = 4 * prompt_len * (4 * d_ff + pairs) + 4 * vocab_size;
        let at_once = (budget / (cache + prompt)).max(2);
        let reason = format!("about {} MiB for rows of {row_len} tokens", budget >> 20);
        Chosen::new(key, if at_once >= rows { 0 } else { at_once as i64 }, reason)
    }

    /// Bytes for what an update of `batch` rows computes: 512 MiB below 10 million parameters, where weights, gradients and
    /// moments take little, and as much as 2 GiB above. With a limit, what that leaves.
    fn memory_budget(&self, batch: usize) -> usize {
        let usual = if self.is_small() { 512 << 20 } else { 2 << 30 };
        self.limit.bytes().map_or(usual, |limit| limit.saturating_sub(PROCESS + self.bytes_of_state(batch)))
    }

    /// Bytes that stay in memory from one row to the next: weights, gradients and the two moments of AdamW. Each thread sums
    /// gradients of its own, beside those of the microbatch that it adds.
    fn bytes_of_state(&self, batch: usize) -> usize {
        let trained = |n_params: usize| {
            if self.have_adapters { n_params / PARAMS_PER_ADAPTER } else { n_params }
        };
        // A critic that starts as the reward model has weights of its own once these are trained; adapters share them.
        let own = if self.have_adapters { 0 } else { self.n_trained_beside };
        let copies = 2 + 2 * self.n_shards(batch);
        let learned = trained(self.n_params) + trained(self.n_trained_beside);
        4 * (self.n_params + self.n_frozen + own + copies * learned)
    }

    fn is_small(&self) -> bool {
        self.n_params < 10_000_000
    }

    /// About how many bytes the forward and backward pass over a row take, measured on runs with the presets `small` and
    /// `medium` and rows of 120 to 450 tokens (`docs/defaults.md`): what attention, feed-forward layer and head keep for the
    /// gradients. On a CPU, attention without dropout keeps no table of all pairs of tokens.
    fn bytes_of_row(&self, row_len: usize) -> usize {
        let networks = [Some(&self.config), self.beside.as_ref()];
        let bytes = |config: &ModelConfig| {
            let ModelConfig { d_model, n_layers, n_heads, d_ff, vocab_size, .. } = *config;
            let keeps_no_pairs = self.on_host && config.attention_dropout == 0.0;
            let (of_layer, of_head) = if keeps_no_pairs {
                (10 * d_model + 5 * d_ff / 2, 2 * vocab_size)
            } else {
                (20 * d_model + 5 * d_ff + 15 * n_heads * row_len / 2, 4 * vocab_size)
            };
            // Of blocks that are computed again, their inputs stay, and one block at a time.
            let of_layers =
                if self.recomputes_blocks { n_layers * d_model + of_layer } else { n_layers * of_layer };
            4 * row_len * (of_layers + of_head)
        };
        networks.into_iter().flatten().map(bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use toml::Value;

    use super::super::tests::weights;
    use super::*;

    #[test]
    fn a_microbatch_is_the_rows_that_fit_and_0_if_all_do() {
        let microbatch =
            |batch, row_len| weights(800_000, true).microbatch("microbatch_size", batch, row_len).value;
        // A token of a row of 256: 4 · (4 · (20 · 128 + 5 · 512 + 7.5 · 4 · 256) + 4 · 260) = 208,960 bytes; 512 MiB hold 10 rows.
        assert_eq!(microbatch(64, 256), Value::from(10));
        assert_eq!(microbatch(10, 256), Value::from(0));
        assert_eq!(microbatch(64, 1 << 20), Value::from(1));
        // On a CPU, the rows of 256 tokens.
        let on_host = |n_params, row_len| {
            let weights = Weights { on_host: true, ..weights(n_params, true) };
            weights.microbatch("microbatch_size", 64, row_len).value
        };
        assert_eq!([256, 64, 300].map(|row_len| on_host(800_000, row_len)), [1, 4, 1].map(Value::from));
        assert_eq!(on_host(12_000_000, 64), Value::from(0));
        // A token: 4 · (4 · (10 · 128 + 2.5 · 512) + 2 · 260) = 43,040 bytes; 2 GiB hold 24 rows of 2,048.
        assert_eq!(on_host(12_000_000, 2048), Value::from(24));
        // Two threads share the memory, but not where there is one row; and so do two networks, the second without a head:
        // 43,040 and 40,960 bytes of a token.
        let shared = Weights { on_host: true, n_threads: 2, ..weights(12_000_000, true) };
        let rows =
            |weights: &Weights, batch, row_len| weights.microbatch("microbatch_size", batch, row_len).value;
        assert_eq!([rows(&shared, 64, 2048), rows(&shared, 1, 24 * 2048)], [12, 0].map(Value::from));
        let config = shared.config.clone();
        assert_eq!(rows(&shared.beside(&config), 64, 2048), Value::from(6));
    }

    #[test]
    fn blocks_are_computed_again_where_a_row_does_not_fit() {
        let weights = Weights { on_host: true, ..weights(12_000_000, true) };
        let auto: AutoKeys = [CHECKPOINTING.to_owned()].into_iter().collect();
        let training = TrainingConfig::default();
        // A token takes 43,040 bytes, so 2 GiB hold a row of 49,895.
        let chosen = |row_len| weights.clone().with_checkpointing(&auto, &training, 64, row_len);
        assert_eq!([49_895, 49_896].map(|row_len| chosen(row_len).1.value), [false, true].map(Value::from));
        // 4 · (4 · 128 + 10 · 128 + 2.5 · 512 + 2 · 260) = 14,368 bytes instead.
        assert_eq!(chosen(60_000).0.microbatch("microbatch_size", 64, 60_000).value, Value::from(2));
        let given = TrainingConfig { gradient_checkpointing: true, ..training };
        let (weights, _) = weights.with_checkpointing(&AutoKeys::default(), &given, 64, 10);
        assert!(weights.recomputes_blocks);
    }

    #[test]
    fn more_rows_are_sampled_at_once_than_are_learned() {
        let sampling =
            |rows, row_len| weights(800_000, true).sampling_batch("sampling_batch_size", rows, row_len).value;
        // A row of 512: 8 · 4 · 128 · 512 + 4 · 256 · (4 · 512 + 2 · 4 · 256) + 4 · 260 bytes = 6.3 MB; 512 MiB hold 85.
        assert_eq!([sampling(64, 512), sampling(86, 512)], [0, 85].map(Value::from));
        assert_eq!(sampling(64, 1 << 20), Value::from(2));
    }

    #[test]
    fn a_limit_leaves_what_weights_gradients_and_moments_do_not_take() {
        let limit = |text: &str| text.parse::<MemoryLimit>().unwrap();
        // 100 million parameters: 4 · 5 · 1e8 bytes, and 96 MiB. Of 3 GiB, 1,120,562,176 bytes are left; a row of 256 takes
        // 256 · 208,960 / 256.
        let limited = weights(100_000_000, false).within(limit("3GiB"));
        let left = (3usize << 30) - (96 << 20) - 2_000_000_000;
        assert_eq!(limited.memory_budget(1), left);
        let rows = limited.microbatch("microbatch_size", 64, 256);
        assert_eq!(rows.value, Value::from((left / (256 * 208_960)) as i64));
        // Two threads have gradients of their own, and adapters few of them.
        let shared = Weights { n_threads: 2, ..limited.clone() };
        assert_eq!(shared.bytes_of_state(8), 4 * 7 * 100_000_000);
        assert_eq!(shared.clone().with_adapters(true).bytes_of_state(8), 4 * (100_000_000 + 6 * 2_000_000));
        // PPO: a reference, a reward model, and a critic that starts as that.
        let ppo = limited.clone().with_frozen(100_000_000 + 50_000_000).with_trained(50_000_000);
        assert_eq!(ppo.bytes_of_state(1), 4 * (5 * 100_000_000 + 100_000_000 + 6 * 50_000_000));
        let adapters = limited.with_adapters(true).with_frozen(50_000_000).with_trained(50_000_000);
        assert_eq!(adapters.bytes_of_state(1), 4 * (150_000_000 + 4 * 3_000_000));
    }

    #[test]
    fn a_run_that_needs_more_than_it_may_is_refused() {
        let training =
            |memory: &str| TrainingConfig { memory: memory.parse().unwrap(), ..TrainingConfig::default() };
        let weights = weights(100_000_000, false);
        // 2,000 MB and 96 MiB, and 53.5 MB for each row.
        let check = |memory, microbatch| weights.check_memory(&training(memory), 64, microbatch, 256);
        assert!(check("none", 0).is_ok() && check("3GiB", 20).is_ok() && check("6GiB", 0).is_ok());
        let error = check("3GiB", 21).unwrap_err().to_string();
        assert!(error.contains("3GiB") && error.contains("about 3075 MiB"), "{error}");
        assert!(check("2GiB", 1).is_err());
    }
}
