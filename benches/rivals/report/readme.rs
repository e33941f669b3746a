//! Puts the headline table where README.md has room for it.

const BEGIN: &str = "<!-- report:begin -->";
const END: &str = "<!-- report:end -->";

/// `readme` with `table` between the markers, in place of whatever was there.
///
/// # Errors
/// If a marker is missing, or they stand in the wrong order.
pub(crate) fn with_table(readme: &str, table: &str) -> Result<String, String> {
    let (before, rest) = readme.split_once(BEGIN).ok_or_else(|| format!("it has no line {BEGIN}"))?;
    let (_, after) = rest.split_once(END).ok_or_else(|| format!("it has no line {END} after {BEGIN}"))?;
    Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", table.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_the_markers_is_replaced() {
        let readme = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        let once = with_table(&readme, "| new |\n").unwrap();
        assert_eq!(once, format!("above\n{BEGIN}\n\n| new |\n\n{END}\nbelow\n"));
        assert_eq!(with_table(&once, "| new |\n").unwrap(), once);
    }

    #[test]
    fn a_missing_marker_is_named() {
        assert!(with_table("", "").unwrap_err().contains(BEGIN));
        assert!(with_table(&format!("{END}{BEGIN}"), "").unwrap_err().contains(END));
    }
}
