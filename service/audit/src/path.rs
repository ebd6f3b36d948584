//! Names of segments: `audit/date=2026-11-23/hour=19/<log id>-<n>.parquet`, as engines that know
//! Hive partitions read them.

/// Milliseconds of an hour.
const HOUR_MS: u64 = 3_600_000;
/// Hours of a day.
const DAY_HOURS: u64 = 24;
/// The last hour of the year 9999: what lies beyond it has no name.
const LAST_HOUR: u64 = 70_389_527;

/// Which hour since 1970 a time is in.
#[must_use]
pub fn hour_of(time_ms: u64) -> u64 {
    (time_ms / HOUR_MS).min(LAST_HOUR)
}

/// The name of a segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// Hour since 1970 in which all its records were made.
    pub hour: u64,
    /// The log id, 22 characters.
    pub log: String,
    /// Number of the segment in its log, from 0.
    pub number: u64,
    /// Whether it is a run of sections as they were, and no Parquet file: whoever stored it had no key
    /// to open them.
    pub is_sealed: bool,
}

impl SegmentName {
    /// Below `audit/`.
    #[must_use]
    pub fn folder(&self) -> String {
        folder(self.hour)
    }

    /// The object's path in the store.
    #[must_use]
    pub fn object(&self) -> String {
        let kind = if self.is_sealed { "sealed" } else { "parquet" };
        format!("audit/{}/{}-{}.{kind}", self.folder(), self.log, self.number)
    }

    /// Reads an object's path; `None` for anything that [`SegmentName::object`] does not make.
    #[must_use]
    pub fn parse(object: &str) -> Option<Self> {
        let mut parts = object.split('/');
        let (audit, date, hour, file) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_sealed = file.ends_with(".sealed");
        let name = file.strip_suffix(if is_sealed { ".sealed" } else { ".parquet" })?;
        let (log, number) = name.split_at_checked(22)?;
        let number = number.strip_prefix('-')?.parse().ok()?;
        let hour = day_of(date.strip_prefix("date=")?)?
            .checked_mul(DAY_HOURS)?
            .checked_add(hour.strip_prefix("hour=")?.parse().ok()?)?;
        let name = Self { hour, log: log.to_owned(), number, is_sealed };
        let whole = audit == "audit" && parts.next().is_none();
        (whole && name.object() == object).then_some(name)
    }
}

/// `date=.../hour=...` of an hour since 1970.
fn folder(hour: u64) -> String {
    let hour = hour.min(LAST_HOUR);
    let (year, month, day) = civil(hour / DAY_HOURS);
    format!("date={year:04}-{month:02}-{day:02}/hour={:02}", hour % DAY_HOURS)
}

/// Year, month and day of a day since 1970, in the proleptic Gregorian calendar: whole cycles of 400
/// years first, with the year beginning in March so that the leap day is its last.
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days.saturating_add(719_468);
    let (era, of_era) = (z / 146_097, z % 146_097);
    let leaps = of_era / 1_460;
    let year =
        (of_era.saturating_sub(leaps).saturating_add(of_era / 36_524) - of_era / 146_096) / 365;
    let of_year = of_era.saturating_sub(365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year.saturating_sub((153 * march + 2) / 5).saturating_add(1);
    let month = if march < 10 { march + 3 } else { march - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

/// The day since 1970 that a date names.
fn day_of(date: &str) -> Option<u64> {
    let mut parts = date.splitn(3, '-');
    let mut next = || parts.next()?.parse::<u64>().ok();
    let (year, month, day) = (next()?, next()?, next()?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year - u64::from(month <= 2);
    let (era, of_era) = (year / 400, year % 400);
    let march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * march + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    let days = days.checked_sub(719_468)?;
    // A day that a month has not, the 31st of June, comes back as another one.
    (civil(days) == (year + u64::from(month <= 2), month, day)).then_some(days)
}

/// `2026-11-23T19:05:00.123Z` of Unix milliseconds.
#[must_use]
pub(crate) fn rfc3339(time_ms: u64) -> String {
    let time_ms = time_ms.min((LAST_HOUR + 1) * HOUR_MS - 1);
    let (year, month, day) = civil(time_ms / HOUR_MS / DAY_HOURS);
    let (hour, rest) = (time_ms / HOUR_MS % DAY_HOURS, time_ms % HOUR_MS);
    let (minute, second, ms) = (rest / 60_000, rest / 1_000 % 60, rest % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Unix milliseconds of `2026-11-23`, `2026-11-23T19:05`, `2026-11-23T19:05:00` or the like with a
/// fraction, all in UTC, a final `Z` allowed; or of Unix seconds.
#[must_use]
pub fn parse_time(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse::<u64>() {
        return seconds.checked_mul(1_000);
    }
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let mut ms = day_of(date)?.checked_mul(DAY_HOURS * HOUR_MS)?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = time.split(':');
    for (limit, unit) in [(24, HOUR_MS), (60, 60_000), (60, 1_000)] {
        let part = match parts.next() {
            Some(part) if part.len() == 2 => part.parse::<u64>().ok().filter(|p| *p < limit)?,
            None => 0,
            Some(_) => return None,
        };
        ms = ms.checked_add(part * unit)?;
    }
    if parts.next().is_some() || fraction.len() > 3 || fraction.is_empty() {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<3}").parse().ok()?;
    ms.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_those_of_the_design() {
        let name = SegmentName {
            hour: hour_of(1_795_460_000_000),
            log: "x".repeat(22),
            number: 7,
            is_sealed: false,
        };
        let object = format!("audit/date=2026-11-23/hour=18/{}-7.parquet", "x".repeat(22));
        assert_eq!(name.object(), object);
        assert_eq!(SegmentName::parse(&object), Some(name));
        for wrong in [
            "",
            "audit/x",
            "audit/date=2026-11-31/hour=18/xxxxxxxxxxxxxxxxxxxxxx-7.parquet",
            "audit/date=2026-11-23/hour=24/xxxxxxxxxxxxxxxxxxxxxx-7.parquet",
            "audit/date=2026-11-23/hour=18/xxxxxxxxxxxxxxxxxxxxxx-07.parquet",
        ] {
            assert_eq!(SegmentName::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, ms) in [
            ("0", 0),
            ("1795460000", 1_795_460_000_000),
            ("1970-01-02", 86_400_000),
            ("2000-02-29T12:34:56.7Z", 951_827_696_700),
            ("2026-11-23 18:53", 1_795_459_980_000),
        ] {
            assert_eq!(parse_time(text), Some(ms), "{text}");
        }
        for wrong in [
            "",
            "x",
            "2026-02-30",
            "2026-11-23T25:00",
            "2026-11-23T1:00",
            "-1",
            "99999999999999999999",
            "2026-11-23T10:00:00:00",
            "2026-11-23T10:00:00.1234",
        ] {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_time_has_one_name_and_one_text(ms in 0_u64..253_402_300_800_000) {
            prop_assert_eq!(parse_time(&rfc3339(ms)), Some(ms));
            let name = SegmentName { hour: hour_of(ms), log: "y".repeat(22), number: ms, is_sealed: ms % 2 == 0 };
            prop_assert_eq!(SegmentName::parse(&name.object()), Some(name));
        }

        #[test]
        fn arbitrary_texts_never_panic(text in ".{0,60}") {
            let _ = (parse_time(&text), SegmentName::parse(&text));
        }
    }
}
