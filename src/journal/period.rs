//! Period to look back over.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A stretch of time that ends now, written as in `90s`, `15m`, `24h`, `7d` or `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// Everything that is known.
    All,
    /// The last seconds, more than none.
    Last(Duration),
}

/// Why a text is not a period.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a period; write a whole number from 1 on and s, m, h or d behind it, as in 90s, 15m, 24h or 7d, or `all`"
)]
pub struct PeriodError(String);

/// Units with their seconds, the largest first.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// No journal goes back so far: what is longer means everything.
const LONGEST: u64 = 1_000_000 * UNITS[0].1;

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        if text == "all" {
            return Ok(Self::All);
        }
        let parsed = UNITS.iter().find_map(|(unit, seconds)| {
            let digits = text.strip_suffix(*unit)?;
            // A sign would do for a number, but is none of a stretch of time.
            let is_whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            // Digits that are too many for a number are a long time too.
            is_whole.then(|| digits.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(*seconds))
        });
        match parsed {
            None | Some(0) => Err(PeriodError(text.to_owned())),
            Some(seconds @ 1..=LONGEST) => Ok(Self::Last(Duration::from_secs(seconds))),
            Some(_) => Ok(Self::All),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Last(duration) = self else { return out.write_str("all") };
        let seconds = duration.as_secs();
        // One day is asked for as 24 hours more often than as itself.
        let fits = |(unit, size): &&(char, u64)| seconds.is_multiple_of(*size) && (*unit != 'd' || seconds > *size);
        let (unit, size) = UNITS.iter().find(fits).unwrap_or(&UNITS[3]);
        write!(out, "{}{unit}", seconds / size)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    #[test]
    fn periods_are_read_and_shown_as_they_are_written() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800), ("1s", 1)] {
            let period: Period = text.parse().unwrap();
            assert_eq!(period, Period::Last(Duration::from_secs(seconds)));
            assert_eq!(period.to_string(), text);
        }
        assert_eq!(("all".parse(), Period::All.to_string()), (Ok(Period::All), "all".to_owned()));
        assert_eq!("120s".parse::<Period>().unwrap().to_string(), "2m");
    }

    #[test]
    fn a_period_longer_than_any_journal_is_everything() {
        for text in ["99999999d", "99999999999999999999d", "1000001d", "18446744073709551615s"] {
            assert_eq!(text.parse(), Ok(Period::All), "{text}");
        }
        assert_ne!("1000000d".parse(), Ok(Period::All));
    }

    #[test]
    fn what_is_no_period_is_told_with_examples() {
        for text in ["", "24", "h", "0h", "-1h", "+1h", "1.5h", "1w", "24 h", "ALL", "１h"] {
            let error = text.parse::<Period>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("24h"), "{error}");
        }
    }
}
