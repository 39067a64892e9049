//! Kubernetes' quantities, as far as containers' resources are made of them: what the API server would refuse is told before.

/// Billionths, in which every quantity is a whole number.
const ONE: u128 = 1_000_000_000;

/// How many billionths a quantity is. `None` where it is none, negative, finer than a billionth, or beyond all bounds.
pub(crate) fn read(text: &str) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || whole.len() > 15 || fraction.len() > 9 {
        return None;
    }
    let unit = unit(suffix)?;
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let value = digits.checked_mul(unit)?;
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    (value % scale == 0).then_some(value / scale)
}

fn unit(suffix: &str) -> Option<u128> {
    let decimal = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    let binary = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if let Some(at) = decimal.iter().position(|known| *known == suffix) {
        return Some(1000u128.pow(u32::try_from(at).ok()?));
    }
    if let Some(at) = binary.iter().position(|known| *known == suffix) {
        return Some(ONE * 1024u128.pow(u32::try_from(at).ok()? + 1));
    }
    let exponent: u32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    (exponent <= 18).then(|| ONE * 10u128.pow(exponent))
}

/// A share of processors, in thousandths at the finest, and some.
///
/// # Errors
/// What was expected.
pub(crate) fn cpu(text: &str) -> Result<String, String> {
    let is_one = read(text).is_some_and(|value| value > 0 && value % (ONE / 1000) == 0);
    if is_one { Ok(text.to_owned()) } else { Err("expected a share of processors such as 20m or 1".into()) }
}

/// Whole bytes, and some.
///
/// # Errors
/// What was expected.
pub(crate) fn memory(text: &str) -> Result<String, String> {
    let is_one = read(text).is_some_and(|value| value > 0 && value % ONE == 0);
    if is_one { Ok(text.to_owned()) } else { Err("expected bytes such as 24Mi or 128M".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, value) in [
            ("1", ONE),
            ("20m", ONE / 50),
            (".5", ONE / 2),
            ("1.5Gi", 3 * 512 * 1024 * 1024 * ONE),
            ("128M", 128_000_000 * ONE),
            ("1e3", 1000 * ONE),
            ("2E", 2_000_000_000_000_000_000 * ONE),
            ("0", 0),
        ] {
            assert_eq!(read(text), Some(value), "{text}");
        }
        for text in
            ["", ".", "lots", "1.2.3", "-1", "+1", "1 Mi", "1mi", "24MiB", "Mi", "1e", "1e99", "1e-3", "0.1n", "٣"]
        {
            assert_eq!(read(text), None, "{text}");
        }
        assert!(cpu("0.5").is_ok() && cpu("1m").is_ok() && cpu("0.0001").is_err() && cpu("0").is_err());
        assert!(memory("24Mi").is_ok() && memory("1.5Gi").is_ok() && memory("100m").is_err() && memory("0").is_err());
    }
}
