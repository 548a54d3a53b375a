//! Times and sizes as people read them.

/// `12.5 s`, `3 min 12 s`, `2 h 5 min`.
pub fn in_time(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `412 MiB`, `1.25 GiB`.
pub fn in_bytes(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    if mebibytes < 1024.0 { format!("{mebibytes:.0} MiB") } else { format!("{:.2} GiB", mebibytes / 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_the_unit_that_fits() {
        assert_eq!([12.54, 192.0, 7512.0].map(in_time), ["12.5 s", "3 min 12 s", "2 h 5 min"]);
        assert_eq!([412 << 20, 1280 << 20].map(in_bytes), ["412 MiB", "1.25 GiB"]);
    }
}
