//! Dates, as chat templates and reports write them.

use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// The time of the machine's own time zone, as `datetime.now()` in Python, written by a format of C's strftime in English.
///
/// # Errors
/// The rest of a sentence, if a directive is not known.
pub(super) fn strftime_now(format: &str) -> Result<String, String> {
    strftime(format, &Zoned::now())
}

/// A time in seconds since 1970, in UTC, written by a format of C's strftime in English.
///
/// # Errors
/// The rest of a sentence, if a directive is not known or the time is beyond the calendar.
pub fn strftime_utc(format: &str, seconds: i64) -> Result<String, String> {
    let time = Timestamp::from_second(seconds).map_err(|error| error.to_string())?;
    strftime(format, &time.to_zoned(TimeZone::UTC))
}

fn strftime(format: &str, time: &Zoned) -> Result<String, String> {
    check(format)?;
    strtime::format(format, time).map_err(|error| error.to_string())
}

/// Refuses directives that Python writes otherwise: by the system's locale, or, as its time is of no zone, not at all.
fn check(format: &str) -> Result<(), String> {
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            continue;
        }
        let mut directive = letters.next();
        if directive == Some('-') {
            directive = letters.next().filter(|letter| "ymdejHIMS".contains(*letter));
        }
        match directive {
            Some(known) if "YymdejHIMSpBbhAaFT%".contains(known) => {}
            Some(other) => return Err(format!("strftime_now does not know %{other}")),
            None => return Err("the format of strftime_now ends within a directive".to_owned()),
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let format = "%Y-%m-%d %H:%M:%S %j %A %b %-d %e %I%p %%";
        assert_eq!(strftime_utc(format, 0).unwrap(), "1970-01-01 00:00:00 001 Thursday Jan 1  1 12AM %");
        assert_eq!(strftime_utc(format, 951_782_399).unwrap(), "2000-02-28 23:59:59 059 Monday Feb 28 28 11PM %");
        assert_eq!(strftime_utc("%F %j %a", 951_782_400).unwrap(), "2000-02-29 060 Tue");
        assert_eq!(strftime_utc("%F %j %d %B %y", 1_767_225_599).unwrap(), "2025-12-31 365 31 December 25");
        assert_eq!(strftime_utc("%F %j %-m/%-I", 1_709_251_200).unwrap(), "2024-03-01 061 3/12");
        for wrong in ["%", "%-", "%Q", "%Z", "%-B", "%x"] {
            assert!(strftime_utc(wrong, 0).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_time_is_that_of_the_zone() {
        let time = Timestamp::from_second(1_767_225_599).unwrap();
        let east = TimeZone::fixed(jiff::tz::offset(14));
        assert_eq!(strftime("%F %H:%M", &time.to_zoned(east)).unwrap(), "2026-01-01 13:59");
    }
}
