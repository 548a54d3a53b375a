use serde_json::Value;

/// `summary.json`: whatever of it is there.
#[derive(Debug, Default)]
pub struct Summary(Value);

impl Summary {
    /// Reads it; `None` when it is not a JSON object.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(Value::is_object).map(Self)
    }

    /// The number at a JSON pointer such as `/judge/win_rate`.
    pub fn number(&self, pointer: &str) -> Option<f64> {
        self.0.pointer(pointer)?.as_f64().filter(|value| value.is_finite())
    }

    /// The text at a JSON pointer.
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.0.pointer(pointer)?.as_str()
    }

    /// Two numbers, such as those before and after; both or nothing.
    pub fn pair(&self, first: &str, second: &str) -> Option<(f64, f64)> {
        Some((self.number(first)?, self.number(second)?))
    }
}
