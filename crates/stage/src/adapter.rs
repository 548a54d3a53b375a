//! Low-rank adapters as settings of a stage.

use temper_model::Lora;
use temper_train::settings;

settings! {
    /// Low-rank adapters (LoRA: Hu et al. 2021). Where there are any, nothing else is trained but the head of a reward model.
    pub struct AdapterConfig {
        /// Rows of A and columns of B in each adapter; 0: no adapters, every weight is trained.
        pub rank: usize = 0, in 0..=4096,
        /// The product of A and B is multiplied by alpha / rank.
        pub alpha: f64 = 32.0, in Positive, only_with "adapter.rank != 0",
        /// Which layers: all-linear, or the ends of their names in the model's files, such as q_proj,v_proj.
        pub targets: String = ALL.into(), only_with "adapter.rank != 0",
    }
}

/// Every linear layer of the blocks, as PEFT calls them.
const ALL: &str = "all-linear";

impl AdapterConfig {
    /// How a model that was given as `base` is adapted, if it is.
    pub fn lora(&self, base: &str) -> Option<Lora> {
        let targets = match self.targets.as_str() {
            ALL => Vec::new(),
            list => list.split(',').map(|name| name.trim().to_owned()).collect(),
        };
        (self.rank > 0).then(|| Lora { rank: self.rank, alpha: self.alpha, targets, base: base.to_owned() })
    }
}
