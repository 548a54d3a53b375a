//! A date that a chat template may write into a conversation.

use std::{
    fmt,
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::Error;

/// A day of the calendar, such as `2026-11-29`.
///
/// Some chat templates write the date of today into every conversation. A run keeps the day of its start, so that its
/// texts stay the same when it is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// The date of today in UTC, from the clock of the system.
    #[must_use]
    pub fn today() -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self::from_days(u32::try_from(seconds / 86_400).unwrap_or(u32::MAX))
    }

    /// The date that is `days` after 1970-01-01, up to the year 9999.
    fn from_days(mut days: u32) -> Self {
        let mut year = 1970;
        while year < MAX_YEAR && days >= days_of_year(year) {
            days -= days_of_year(year);
            year += 1;
        }
        let mut month = 1;
        while month < 12 && days >= u32::from(days_of_month(year, month)) {
            days -= u32::from(days_of_month(year, month));
            month += 1;
        }
        let day = days.min(u32::from(days_of_month(year, month)) - 1) as u8 + 1;
        Self { year, month, day }
    }

    /// The number of the day in its year, from 1.
    fn day_of_year(self) -> u32 {
        let before = (1..self.month).map(|month| u32::from(days_of_month(self.year, month)));
        before.sum::<u32>() + u32::from(self.day)
    }

    /// The number of the day in its week: 0 is Sunday. 0001-01-01 was a Monday.
    fn weekday(self) -> usize {
        let years = u32::from(self.year) - 1;
        ((years * 365 + years / 4 - years / 100 + years / 400 + self.day_of_year()) % 7) as usize
    }

    /// Writes the date at noon as C's `strftime` does.
    ///
    /// # Errors
    /// The code that is not known.
    pub(crate) fn format(self, format: &str) -> Result<String, String> {
        let mut text = String::new();
        let mut rest = format.chars();
        while let Some(char) = rest.next() {
            if char != '%' {
                text.push(char);
                continue;
            }
            let mut code = rest.next();
            // A minus before the code leaves out the zeros in front of a number.
            let is_short = code == Some('-');
            if is_short {
                code = rest.next();
            }
            let unknown = || {
                format!("%{}{}", if is_short { "-" } else { "" }, code.map_or(String::new(), String::from))
            };
            let field = code.and_then(|code| self.field(code)).ok_or_else(unknown)?;
            match field {
                Field::Text(field) if !is_short => text.push_str(&field),
                Field::Text(_) => return Err(unknown()),
                Field::Number(number, _) if is_short => text.push_str(&number.to_string()),
                Field::Number(number, width) => text.push_str(&format!("{number:0width$}")),
            }
        }
        Ok(text)
    }

    fn field(self, code: char) -> Option<Field> {
        let Self { year, month, day } = self;
        let month_name = MONTHS[usize::from(month) - 1];
        let weekday = WEEKDAYS[self.weekday()];
        Some(match code {
            'Y' => Field::Number(year.into(), 4),
            'y' => Field::Number(u32::from(year) % 100, 2),
            'm' => Field::Number(month.into(), 2),
            'd' => Field::Number(day.into(), 2),
            'j' => Field::Number(self.day_of_year(), 3),
            'H' | 'I' => Field::Number(12, 2),
            'M' | 'S' => Field::Number(0, 2),
            'e' => Field::Text(format!("{day:2}")),
            'B' => Field::Text(month_name.into()),
            'b' | 'h' => Field::Text(month_name[..3].into()),
            'A' => Field::Text(weekday.into()),
            'a' => Field::Text(weekday[..3].into()),
            'p' => Field::Text("PM".into()),
            'F' => Field::Text(self.to_string()),
            'T' => Field::Text("12:00:00".into()),
            'R' => Field::Text("12:00".into()),
            '%' => Field::Text("%".into()),
            _ => return None,
        })
    }
}

/// What a code of `strftime` stands for.
enum Field {
    Text(String),
    /// A number and its width.
    Number(u32, usize),
}

const MAX_YEAR: u16 = 9999;

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

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

fn is_leap(year: u16) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of_year(year: u16) -> u32 {
    365 + u32::from(is_leap(year))
}

fn days_of_month(year: u16, month: u8) -> u8 {
    match month {
        2 => 28 + u8::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day } = self;
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl FromStr for Date {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let (year, rest) = text.split_once('-')?;
            let (month, day) = rest.split_once('-')?;
            let of_width = |digits: &str, width| {
                (digits.len() == width && digits.bytes().all(|byte| byte.is_ascii_digit()))
                    .then(|| digits.parse().ok())?
            };
            let year: u16 = of_width(year, 4)?;
            let (month, day) = (of_width(month, 2)? as u8, of_width(day, 2)? as u8);
            let is_date =
                year > 0 && (1..=12).contains(&month) && (1..=days_of_month(year, month)).contains(&day);
            is_date.then_some(Self { year, month, day })
        };
        parse().ok_or_else(|| Error::BadDate { text: text.into() })
    }
}

impl TryFrom<String> for Date {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Date> for String {
    fn from(date: Date) -> Self {
        date.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> Date {
        text.parse().unwrap()
    }

    /// The expected texts are those of Python's `datetime(…, 12).strftime`.
    #[test]
    fn the_codes_of_strftime_write_what_python_writes() {
        let format = "%d %b %Y|%B %m %y|%A %a|%H:%M:%S %I %p|%j|%e|%-d %-m %-j|%F %T %R|100%%";
        assert_eq!(
            date("2026-03-07").format(format).unwrap(),
            "07 Mar 2026|March 03 26|Saturday Sat|12:00:00 12 PM|066| 7|7 3 66|2026-03-07 12:00:00 12:00|100%"
        );
        assert_eq!(date("2024-12-31").format("%A %j").unwrap(), "Tuesday 366");
        assert_eq!(date("2000-02-29").format("%A").unwrap(), "Tuesday");
    }

    #[test]
    fn an_unknown_code_is_an_error_that_names_it() {
        for (format, code) in [("%Q", "%Q"), ("%d %", "%"), ("%-Q", "%-Q"), ("%-B", "%-B")] {
            assert_eq!(date("2026-11-29").format(format).unwrap_err(), code);
        }
    }

    #[test]
    fn days_of_the_epoch_are_dates() {
        // From `date -u -d @…`.
        assert_eq!(Date::from_days(0).to_string(), "1970-01-01");
        assert_eq!(Date::from_days(11_016).to_string(), "2000-02-29");
        assert_eq!(Date::from_days(20_786).to_string(), "2026-11-29");
        assert_eq!(Date::from_days(u32::MAX).to_string(), "9999-12-31");
    }

    #[test]
    fn only_days_of_the_calendar_are_dates() {
        assert_eq!(date("2024-02-29").to_string(), "2024-02-29");
        for text in [
            "2023-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-1-1",
            "0000-01-01",
            "2026-11-29 ",
            "today",
            "+026-11-29",
        ] {
            let error = text.parse::<Date>().unwrap_err().to_string();
            assert_eq!(error, format!("a date is written as YYYY-MM-DD, got `{text}`"));
        }
    }
}
