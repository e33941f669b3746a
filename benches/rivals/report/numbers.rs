//! Figures in as many digits as they deserve.

/// Nanoseconds or bytes: `13.7`, `131`, `1,050,083`.
pub(crate) fn plain(value: f64) -> String {
    if value.abs() < 99.95 { format!("{value:.1}") } else { grouped(value) }
}

/// A whole number with its thousands set apart.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if value <= -0.5 { format!("−{grouped}") } else { grouped }
}

pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// What a name can be part of an identifier as.
pub(crate) fn identifier(name: &str) -> String {
    name.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([1.0, 999.6, 1_234_567.0, -5_000.0].map(grouped), ["1", "1,000", "1,234,567", "−5,000"]);
    }

    #[test]
    fn small_figures_have_a_decimal() {
        assert_eq!([13.68, 99.96, 130.6].map(plain), ["13.7", "100", "131"]);
    }
}
