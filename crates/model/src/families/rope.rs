//! Rotary positions in a `config.json`: `rope_parameters` of transformers 5, and the fields that came before it.

use serde_json::{Map, Value, json};

use crate::config::{Positions, RotaryScaling};
use crate::families::fields::Fields;

/// How a family calls the fields that older versions of transformers wrote, and what they are if they are missing.
pub(crate) struct RopeNames {
    /// The base of the wavelengths.
    pub(crate) theta: &'static str,
    /// The rotated share of a head.
    pub(crate) share: &'static str,
    /// That share where no field gives it.
    pub(crate) default_share: f64,
}

/// The names of Llama and most other families.
pub(crate) const ROPE: RopeNames =
    RopeNames { theta: "rope_theta", share: "partial_rotary_factor", default_share: 1.0 };

/// Reads the rotary positions of a model with a context of `max_seq_len` tokens.
///
/// Where a file holds both generations, they must not contradict each other.
pub(crate) fn read_rope(
    fields: &Fields<'_>,
    names: &RopeNames,
    max_seq_len: usize,
) -> Result<Positions, String> {
    let (older, newer) = (fields.object("rope_scaling")?, fields.object("rope_parameters")?);
    let number = |objects: &[&Option<Fields<'_>>], key: &str, outer: &str| -> Result<Option<f64>, String> {
        let mut given = fields.optional_number(outer)?;
        for object in objects.iter().filter_map(|object| object.as_ref()) {
            let inner = object.optional_number(key)?;
            if let (Some(inner), Some(outer_value)) = (inner, given)
                && inner != outer_value
            {
                return Err(format!("`{key}` is {inner} and `{outer}` is {outer_value}"));
            }
            given = inner.or(given);
        }
        Ok(given)
    };
    let objects = [&older, &newer];
    let theta = number(&objects, "rope_theta", names.theta)?.unwrap_or(1e4);
    let share = number(&objects, "partial_rotary_factor", names.share)?.unwrap_or(names.default_share);
    let scalings = [read_scaling(older.as_ref(), max_seq_len)?, read_scaling(newer.as_ref(), max_seq_len)?];
    let scaling = match scalings {
        [Some(older), Some(newer)] if older != newer => {
            return Err("`rope_scaling` and `rope_parameters` differ".into());
        }
        [older, newer] => older.or(newer).flatten(),
    };
    Ok(Positions::Rotary { theta, share, scaling })
}

/// The scaling that an object of either generation describes; `None` without one.
fn read_scaling(
    rope: Option<&Fields<'_>>,
    max_seq_len: usize,
) -> Result<Option<Option<RotaryScaling>>, String> {
    let Some(rope) = rope else { return Ok(None) };
    let former = rope.name("type", "default")?;
    let scaling = match rope.name("rope_type", former)? {
        "default" => None,
        "llama3" => {
            let required =
                |key| rope.optional_number(key)?.ok_or_else(|| format!("rope_type `llama3` needs `{key}`"));
            Some(RotaryScaling::Llama3 {
                factor: required("factor")?,
                low_freq_factor: required("low_freq_factor")?,
                high_freq_factor: required("high_freq_factor")?,
                original_context: rope
                    .optional_count("original_max_position_embeddings")?
                    .unwrap_or(max_seq_len),
            })
        }
        other => {
            return Err(format!("rope_type `{other}` is not supported; known are `default` and `llama3`"));
        }
    };
    match rope.unread().first() {
        None => Ok(Some(scaling)),
        Some(unknown) => Err(format!("`{unknown}` is not supported")),
    }
}

/// The fields of both generations.
pub(crate) fn write_rope(positions: Positions, names: &RopeNames, json: &mut Value) {
    let Positions::Rotary { theta, share, scaling } = positions else { return };
    let mut scaling_fields = Map::new();
    if let Some(RotaryScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context }) =
        scaling
    {
        for (key, value) in [
            ("rope_type", json!("llama3")),
            ("factor", json!(factor)),
            ("low_freq_factor", json!(low_freq_factor)),
            ("high_freq_factor", json!(high_freq_factor)),
            ("original_max_position_embeddings", json!(original_context)),
        ] {
            scaling_fields.insert(key.into(), value);
        }
    }
    let mut newer = scaling_fields.clone();
    newer.entry("rope_type").or_insert_with(|| json!("default"));
    newer.insert("rope_theta".into(), json!(theta));
    json[names.theta] = json!(theta);
    if share != ROPE.default_share || names.default_share != ROPE.default_share {
        newer.insert("partial_rotary_factor".into(), json!(share));
        json[names.share] = json!(share);
    }
    json["rope_scaling"] = if scaling.is_some() { Value::Object(scaling_fields) } else { Value::Null };
    if scaling.is_some() {
        // transformers 5 reads `rope_scaling` instead of `rope_parameters` where both are there.
        json["rope_scaling"]["rope_theta"] = json!(theta);
        if let Some(share) = newer.get("partial_rotary_factor") {
            json["rope_scaling"]["partial_rotary_factor"] = share.clone();
        }
    }
    json["rope_parameters"] = Value::Object(newer);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &Value) -> Result<Positions, String> {
        read_rope(&Fields::new(json), &ROPE, 4096)
    }

    fn plain(theta: f64, share: f64) -> Positions {
        Positions::Rotary { theta, share, scaling: None }
    }

    fn llama3(original_context: usize) -> Positions {
        let scaling = RotaryScaling::Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context,
        };
        Positions::Rotary { theta: 5e5, share: 1.0, scaling: Some(scaling) }
    }

    /// As files of transformers 4 and 5 have them.
    #[test]
    fn both_generations_are_read() {
        let llama = json!({"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                           "original_max_position_embeddings": 8192});
        let with = |key: &str, value: Value| {
            let mut json = llama.clone();
            json[key] = value;
            json
        };
        let without = |key: &str| {
            let mut json = llama.clone();
            json.as_object_mut().unwrap().remove(key);
            json
        };
        for (json, expected) in [
            (json!({}), plain(1e4, 1.0)),
            (json!({"rope_theta": 1e5, "rope_scaling": null}), plain(1e5, 1.0)),
            (json!({"rope_theta": 100_000}), plain(1e5, 1.0)),
            (json!({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}), plain(1e6, 1.0)),
            (json!({"rope_scaling": {"type": "default"}, "partial_rotary_factor": 0.5}), plain(1e4, 0.5)),
            (json!({"rope_parameters": {"partial_rotary_factor": 0.25}}), plain(1e4, 0.25)),
            (json!({"rope_theta": 5e5, "rope_scaling": llama}), llama3(8192)),
            (json!({"rope_parameters": with("rope_theta", json!(5e5))}), llama3(8192)),
            (
                json!({"rope_theta": 5e5, "rope_scaling": without("original_max_position_embeddings")}),
                llama3(4096),
            ),
        ] {
            assert_eq!(read(&json), Ok(expected), "{json}");
        }
        for (json, says) in [
            (json!({"rope_scaling": {"type": "linear", "factor": 2.0}}), "rope_type `linear`"),
            (json!({"rope_parameters": {"rope_type": "yarn"}}), "rope_type `yarn`"),
            (json!({"rope_scaling": without("factor")}), "`factor`"),
            (json!({"rope_scaling": with("beta", json!(1))}), "`rope_scaling.beta` is not supported"),
            (json!({"rope_parameters": {"full_attention": {}}}), "`rope_parameters.full_attention`"),
            (json!({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}}), "`rope_theta` is 1000000"),
            (json!({"rope_scaling": llama, "rope_parameters": {"rope_type": "default"}}), "differ"),
            (json!({"rope_scaling": "linear"}), "`rope_scaling` must be an object"),
        ] {
            let error = read(&json).unwrap_err();
            assert!(error.contains(says), "{json}: {error}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let neox = RopeNames { theta: "rotary_emb_base", share: "rotary_pct", default_share: 0.25 };
        for names in [&ROPE, &neox] {
            for positions in [plain(1e4, 1.0), plain(2e4, 0.25), plain(1e4, 0.5), llama3(64)] {
                let mut json = json!({});
                write_rope(positions, names, &mut json);
                assert_eq!(read_rope(&Fields::new(&json), names, 9), Ok(positions), "{json}");
            }
        }
    }
}
