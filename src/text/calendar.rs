//! Dates, as chat templates and reports write them.

/// `format` filled in as by C's strftime in the English locale, for a time in seconds since 1970 (UTC).
///
/// # Errors
/// The rest of a sentence, if a directive is not known.
pub fn strftime(format: &str, seconds: u64) -> Result<String, String> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    // Howard Hinnant's civil_from_days, for days from 1970 on: years begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let in_year = if month <= 2 { day_of_year - 306 } else { day_of_year + 59 + u64::from(leap) } + 1;
    let name = |names: &[&'static str], index: u64| {
        usize::try_from(index).ok().and_then(|index| names.get(index).copied()).unwrap_or_default()
    };
    let (month_name, day_name) = (name(&MONTHS, month - 1), name(&DAYS, days % 7));
    let short = |name: &'static str| name.get(..3).unwrap_or(name).to_owned();
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let mut directive = letters.next();
        let padded = directive != Some('-');
        if !padded {
            directive = letters.next();
        }
        let two = |number: u64| if padded { format!("{number:02}") } else { number.to_string() };
        text += &match directive {
            Some('Y') => year.to_string(),
            Some('y') => two(year % 100),
            Some('m') => two(month),
            Some('d') => two(day),
            Some('e') => {
                if padded {
                    format!("{day:2}")
                } else {
                    day.to_string()
                }
            }
            Some('j') => {
                if padded {
                    format!("{in_year:03}")
                } else {
                    in_year.to_string()
                }
            }
            Some('H') => two(hour),
            Some('I') => two((hour + 11) % 12 + 1),
            Some('M') => two(minute),
            Some('S') => two(second),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('B') => month_name.to_owned(),
            Some('b' | 'h') => short(month_name),
            Some('A') => day_name.to_owned(),
            Some('a') => short(day_name),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('%') => "%".to_owned(),
            Some(other) => return Err(format!("strftime_now does not know %{other}")),
            None => return Err("the format of strftime_now ends in a single %".to_owned()),
        };
    }
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let format = "%Y-%m-%d %H:%M:%S %j %A %b %-d %e %I%p %%";
        assert_eq!(strftime(format, 0).unwrap(), "1970-01-01 00:00:00 001 Thursday Jan 1  1 12AM %");
        assert_eq!(strftime(format, 951_782_399).unwrap(), "2000-02-28 23:59:59 059 Monday Feb 28 28 11PM %");
        assert_eq!(strftime("%F %j %a", 951_782_400).unwrap(), "2000-02-29 060 Tue");
        assert_eq!(strftime("%F %j %d %B %y", 1_767_225_599).unwrap(), "2025-12-31 365 31 December 25");
        assert_eq!(strftime("%F %j", 1_709_251_200).unwrap(), "2024-03-01 061");
        assert!(strftime("%", 0).is_err());
    }
}
