use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The figures of a whole pipeline, as `summary.json` has them: `temper pipeline` writes them, the report reads them.
///
/// Every figure is optional, because an older or damaged file may lack it. A value of another type counts as absent, and
/// takes no other figure with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// The name of the recipe.
    #[serde(deserialize_with = "or_default")]
    pub recipe: Option<String>,
    /// What computed, as `--device` names it.
    #[serde(deserialize_with = "or_default")]
    pub backend: Option<String>,
    /// The seed that everything random comes from.
    #[serde(deserialize_with = "or_default")]
    pub seed: Option<u64>,
    /// Threads of the CPU.
    #[serde(deserialize_with = "or_default")]
    pub threads: Option<usize>,
    /// Stage 1.
    #[serde(deserialize_with = "or_default")]
    pub sft: SftSummary,
    /// Stage 2.
    #[serde(deserialize_with = "or_default")]
    pub reward: RewardSummary,
    /// Stage 3.
    #[serde(deserialize_with = "or_default")]
    pub ppo: PpoSummary,
    /// Answers before and after PPO, compared by a rule that is not the reward model.
    #[serde(deserialize_with = "or_default")]
    pub judge: JudgeSummary,
    /// Wall-clock seconds of the whole pipeline.
    #[serde(deserialize_with = "or_default")]
    pub seconds: Option<f64>,
    /// The most memory that the process has had, in bytes.
    #[serde(deserialize_with = "or_default")]
    pub peak_rss_bytes: Option<u64>,
}

/// Supervised fine-tuning in a [`Summary`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SftSummary {
    /// Loss of the first step, in nats per token.
    #[serde(deserialize_with = "or_default")]
    pub loss_first: Option<f64>,
    /// Mean loss of the last tenth of the steps, in nats per token.
    #[serde(deserialize_with = "or_default")]
    pub loss_last: Option<f64>,
    /// Wall-clock seconds of the stage.
    #[serde(deserialize_with = "or_default")]
    pub seconds: Option<f64>,
    /// Mean over the steps, prompts included.
    #[serde(deserialize_with = "or_default")]
    pub tokens_per_second: Option<f64>,
}

/// The reward model in a [`Summary`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RewardSummary {
    /// Share of the judged pairs that the model orders as the data do.
    #[serde(deserialize_with = "or_default")]
    pub accuracy_heldout: Option<f64>,
    /// The same over pairs of one manner, where the recipe marks them.
    #[serde(deserialize_with = "or_default")]
    pub accuracy_same_manner: Option<f64>,
    /// Mean loss of the last tenth of the steps, in nats per comparison.
    #[serde(deserialize_with = "or_default")]
    pub loss_last: Option<f64>,
    /// Wall-clock seconds of the stage.
    #[serde(deserialize_with = "or_default")]
    pub seconds: Option<f64>,
}

/// PPO in a [`Summary`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PpoSummary {
    /// Mean score of the first quarter of the rollouts.
    #[serde(deserialize_with = "or_default")]
    pub score_first: Option<f64>,
    /// Mean score of the last quarter of the rollouts.
    #[serde(deserialize_with = "or_default")]
    pub score_last: Option<f64>,
    /// Mean KL to the reference of the last tenth of the rollouts, in nats per answer.
    #[serde(deserialize_with = "or_default")]
    pub kl_last: Option<f64>,
    /// Wall-clock seconds of the stage.
    #[serde(deserialize_with = "or_default")]
    pub seconds: Option<f64>,
    /// Sampled tokens per second, mean over the rollouts.
    #[serde(deserialize_with = "or_default")]
    pub rollout_tokens_per_second: Option<f64>,
}

/// The judgement in a [`Summary`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JudgeSummary {
    /// Mean gold score before PPO.
    #[serde(deserialize_with = "or_default")]
    pub gold_sft: Option<f64>,
    /// Mean gold score after PPO.
    #[serde(deserialize_with = "or_default")]
    pub gold_ppo: Option<f64>,
    /// Share of right answers before PPO.
    #[serde(deserialize_with = "or_default")]
    pub right_sft: Option<f64>,
    /// Share of right answers after PPO.
    #[serde(deserialize_with = "or_default")]
    pub right_ppo: Option<f64>,
    /// Share of the answers after PPO that ended by themselves.
    #[serde(deserialize_with = "or_default")]
    pub eos_rate: Option<f64>,
    /// Share of the prompts on which PPO has the higher gold score; a tie counts one half.
    #[serde(deserialize_with = "or_default")]
    pub win_rate: Option<f64>,
    /// Its 95 % interval.
    #[serde(deserialize_with = "or_default")]
    pub win_rate_ci95: Option<[f64; 2]>,
    /// Prompts that were judged.
    #[serde(deserialize_with = "or_default")]
    pub prompts: Option<u64>,
    /// Loss on held-out plain text before PPO, in nats per token, where the recipe has such text.
    #[serde(deserialize_with = "or_default")]
    pub text_loss_sft: Option<f64>,
    /// The same after PPO.
    #[serde(deserialize_with = "or_default")]
    pub text_loss_ppo: Option<f64>,
}

impl Summary {
    /// Reads a `summary.json`; `None` if it is not a JSON object.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        value.is_object().then(|| serde_json::from_value(value).unwrap_or_default())
    }
}

/// The value, or the default of its type where the file has something else.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_another_type_takes_no_other_figure_with_it() {
        let text = r#"{"recipe": 7, "sft": null, "seconds": "long", "more": [],
                       "judge": {"win_rate": 0.5, "win_rate_ci95": [0.1], "prompts": -3, "gold_sft": {}}}"#;
        let judge = JudgeSummary { win_rate: Some(0.5), ..JudgeSummary::default() };
        assert_eq!(Summary::parse(text), Some(Summary { judge, ..Summary::default() }));
        assert_eq!(Summary::parse("[]"), None);
        assert_eq!(Summary::parse("{\"seconds\":"), None);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let judge = JudgeSummary {
            win_rate: Some(0.85),
            win_rate_ci95: Some([0.8, 0.9]),
            prompts: Some(237),
            ..JudgeSummary::default()
        };
        let summary = Summary { recipe: Some("courtesy".into()), seed: Some(2), judge, ..Summary::default() };
        let text = serde_json::to_string(&summary).unwrap();
        assert!(text.contains(r#""accuracy_same_manner":null"#), "{text}");
        assert_eq!(Summary::parse(&text), Some(summary));
    }
}
