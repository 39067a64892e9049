//! Wall-clock time as log lines spell it, formatted once a second.

use std::time::{SystemTime, UNIX_EPOCH};

/// A timestamp's text, kept while the second lasts.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    second: Option<u64>,
    /// `2026-11-23T14:05:06`
    iso: [u8; 19],
    /// `23/Nov/2026:14:05:06 +0000`
    ncsa: [u8; 26],
}

impl Clock {
    /// Goes to a point in time; the milliseconds within its second.
    pub(crate) fn set(&mut self, now: SystemTime) -> u32 {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            self.format(since.as_secs());
        }
        since.subsec_millis()
    }

    /// RFC 3339 in UTC with milliseconds.
    pub(crate) fn write_iso(&self, out: &mut Vec<u8>, millis: u32) {
        out.extend_from_slice(&self.iso);
        let digits = [millis / 100 % 10, millis / 10 % 10, millis % 10].map(|d| b'0' + d as u8);
        out.push(b'.');
        out.extend_from_slice(&digits);
        out.push(b'Z');
    }

    /// The Common Log Format's time, without its brackets.
    pub(crate) fn write_ncsa(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.ncsa);
    }

    fn format(&mut self, since_epoch: u64) {
        let (year, month, day) = civil(since_epoch / 86_400);
        let time = [since_epoch / 3600 % 24, since_epoch / 60 % 60, since_epoch % 60];
        let [hour, minute, second] = time;
        let iso = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let name = MONTHS[month as usize - 1];
        let ncsa = format!("{day:02}/{name}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000");
        // Both have a fixed length until the year 10000.
        self.iso.copy_from_slice(&iso.as_bytes()[..19]);
        self.ncsa.copy_from_slice(&ncsa.as_bytes()[..26]);
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar. Counts in eras of 400 years
/// that begin on 1 March, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_spelt_as_calendars_do() {
        for (seconds, iso, ncsa) in [
            (0, "1970-01-01T00:00:00.007Z", "01/Jan/1970:00:00:00 +0000"),
            (951_782_400, "2000-02-29T00:00:00.007Z", "29/Feb/2000:00:00:00 +0000"),
            (1_709_251_199, "2024-02-29T23:59:59.007Z", "29/Feb/2024:23:59:59 +0000"),
            (1_795_442_706, "2026-11-23T14:05:06.007Z", "23/Nov/2026:14:05:06 +0000"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z", "01/Mar/2100:00:00:00 +0000"),
        ] {
            let mut clock = Clock::default();
            let millis = clock.set(UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7));
            let (mut a, mut b) = (Vec::new(), Vec::new());
            clock.write_iso(&mut a, millis);
            clock.write_ncsa(&mut b);
            assert_eq!((a.as_slice(), b.as_slice()), (iso.as_bytes(), ncsa.as_bytes()));
        }
    }
}
