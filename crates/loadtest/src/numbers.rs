//! Counts as floating-point numbers, and numbers as text. Medians and ratios are in `statistics.rs`.

/// A count as a floating-point number.
#[allow(clippy::cast_precision_loss, reason = "counts here stay far below 2^53")]
pub(crate) const fn float(count: u64) -> f64 {
    count as f64
}

/// A length as a count.
pub(crate) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Four significant digits, thousands apart: `1,234,000`, `12.35`, `0.05310`.
pub(crate) fn text(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    let size = value.abs();
    match size {
        _ if size >= 1000.0 => thousands(value),
        _ if size >= 100.0 => format!("{value:.1}"),
        _ if size >= 10.0 => format!("{value:.2}"),
        _ if size >= 1.0 || size == 0.0 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if value < 0.0 {
        text.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_the_digits_that_matter() {
        for (value, expected) in [
            (0.0, "0.000"),
            (0.05312, "0.0531"),
            (1.5, "1.500"),
            (12.345, "12.35"),
            (999.96, "1000.0"),
            (1000.0, "1,000"),
            (1_234_567.8, "1,234,568"),
            (-45_000.0, "-45,000"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(text(value), expected);
        }
    }
}
