//! Numbers as people read them: three significant digits, a true minus sign, a thin choice of units.

/// Three significant digits, never more than needed: `5.25`, `0.0086`, `−1.2`, `1.0e-5`.
pub fn figure(value: f64) -> String {
    let size = value.abs();
    let text = if size == 0.0 {
        "0".to_owned()
    } else if !(1e-3..1e9).contains(&size) {
        scientific(value)
    } else if size >= 1000.0 {
        grouped(value)
    } else {
        let decimals = (2 - size.log10().floor() as i32).max(0) as usize;
        format!("{value:.decimals$}")
    };
    signed(text)
}

/// `84 %`, with a space that does not break.
pub fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    // 99.6 % must not read as 100 %: the ends keep a decimal.
    let near_an_end =
        percent > 0.0 && percent < 100.0 && (percent.round() == 0.0 || percent.round() == 100.0);
    signed(if near_an_end { format!("{percent:.1}\u{a0}%") } else { format!("{percent:.0}\u{a0}%") })
}

/// `77.6 %`: a share in a sentence, where a tenth counts.
pub fn share(share: f64) -> String {
    signed(format!("{:.1}\u{a0}%", 100.0 * share))
}

/// `1,227`: a whole number.
pub fn count(value: f64) -> String {
    signed(grouped(value))
}

/// `1 step`, `1,227 steps`: a whole number of what has this name in the plural.
pub fn counted(value: f64, units: &str) -> String {
    let unit = if value == 1.0 { units.strip_suffix('s').unwrap_or(units) } else { units };
    format!("{} {unit}", count(value))
}

/// A fixed number of decimals, for columns.
pub fn signed_fixed(value: f64, decimals: usize) -> String {
    if value.abs() < 1e9 { signed(format!("{value:.decimals$}")) } else { signed(scientific(value)) }
}

/// `45.2 s`, `3 min 12 s`, `2 h 5 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 if seconds < 10.0 => format!("{:.1}\u{a0}s", seconds.max(0.0)),
        0..60 => format!("{whole}\u{a0}s"),
        60..3600 => format!("{}\u{a0}min {}\u{a0}s", whole / 60, whole % 60),
        _ => format!("{}\u{a0}h {}\u{a0}min", whole / 3600, whole % 3600 / 60),
    }
}

/// `412 MiB`, `1.25 GiB`.
pub fn bytes(count: f64) -> String {
    let mebibytes = count / (1024.0 * 1024.0);
    if mebibytes < 1024.0 {
        format!("{mebibytes:.0}\u{a0}MiB")
    } else {
        format!("{:.2}\u{a0}GiB", mebibytes / 1024.0)
    }
}

/// A tick of an axis whose ticks lie about `spacing` apart and whose largest size is `largest`.
pub fn tick(value: f64, spacing: f64, largest: f64) -> String {
    if value.abs() < spacing * 1e-6 {
        return "0".to_owned();
    }
    if !(1e-2..1e7).contains(&largest) {
        return signed(scientific(value).replace(".0e", "e"));
    }
    let (value, spacing, suffix) =
        if largest >= 1e4 { (value / 1e3, spacing / 1e3, "k") } else { (value, spacing, "") };
    // Ticks lie on the next 1, 2 or 5: from a half upwards that is a round number.
    let power = spacing.log10().floor();
    let power = if spacing > 5.0001 * 10f64.powf(power) { power + 1.0 } else { power };
    let decimals = (-power).clamp(0.0, 6.0) as usize;
    signed(format!("{value:.decimals$}{suffix}"))
}

/// A tick of the step axis; between whole steps there is none.
pub fn step_tick(step: f64) -> String {
    let whole = step.round();
    if (step - whole).abs() > 1e-6 {
        return String::new();
    }
    if whole.abs() >= 1e3 { format!("{}k", whole / 1e3) } else { format!("{whole}") }
}

fn scientific(value: f64) -> String {
    format!("{value:.1e}")
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (idx, digit) in digits.chars().enumerate() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

/// A true minus in front, the plain one in exponents.
fn signed(text: String) -> String {
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().all(|c| matches!(c, '0' | '.' | '%' | '\u{a0}')) => rest.to_owned(),
        Some(rest) => format!("−{rest}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        let shown: Vec<_> = [5.251, 0.00861, -1.2, 0.0, 1e-5, 12345.6, 42.0, -0.5].map(figure).into();
        assert_eq!(shown, ["5.25", "0.00861", "−1.20", "0", "1.0e-5", "12,346", "42.0", "−0.500"]);
    }

    #[test]
    fn almost_all_is_not_all() {
        assert_eq!(
            [0.84, 1.0, 0.998, 0.002].map(percent),
            ["84\u{a0}%", "100\u{a0}%", "99.8\u{a0}%", "0.2\u{a0}%"]
        );
    }

    #[test]
    fn ticks_fit_their_spacing() {
        assert_eq!(
            [tick(0.5, 0.5, 2.0), tick(-1.0, 0.5, 2.0), tick(5e-4, 5e-4, 1e-3)],
            ["0.5", "−1.0", "5e-4"]
        );
        assert_eq!([step_tick(1500.0), step_tick(0.5), step_tick(20.0)], ["1.5k", "", "20"]);
    }

    #[test]
    fn spans_of_time_and_memory_are_readable() {
        assert_eq!(
            [duration(3.21), duration(192.0), duration(7500.0)],
            ["3.2\u{a0}s", "3\u{a0}min 12\u{a0}s", "2\u{a0}h 5\u{a0}min"]
        );
        assert_eq!(bytes(432_013_312.0), "412\u{a0}MiB");
    }
}
