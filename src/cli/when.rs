//! Points in time as people say them: `07:00`, `in 8h`, or a date and time.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

/// RFC 3339 in UTC. A bare time is the next one on the wall clock here, a duration counts from now.
pub(super) fn parse(text: &str) -> Result<String, String> {
    parse_at(text, &Zoned::now())
}

fn parse_at(text: &str, now: &Zoned) -> Result<String, String> {
    let text = text.trim();
    let time = exact(text).or_else(|| next(text, now)).or_else(|| from_now(text, now));
    let time = time.ok_or_else(|| {
        format!("`{text}` is no time: write 07:00, 8h, 2026-11-26T07:00:00Z or 2026-11-26T07:00")
    })?;
    // To the second, as everything that the daemon shows.
    Ok(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn exact(text: &str) -> Option<Timestamp> {
    let local = || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(TimeZone::system()).ok();
    text.parse()
        .ok()
        .or_else(|| text.contains(['T', ' ']).then(local).flatten().map(|zoned| zoned.timestamp()))
}

fn next(text: &str, now: &Zoned) -> Option<Timestamp> {
    let time = Time::strptime("%H:%M", text).ok()?;
    let today = now.date().to_datetime(time).to_zoned(now.time_zone().clone()).ok()?;
    let next = if today > *now { today } else { today.checked_add(1.day()).ok()? };
    Some(next.timestamp())
}

fn from_now(text: &str, now: &Zoned) -> Option<Timestamp> {
    let span = humantime::parse_duration(text.trim_start_matches("in ")).ok()?;
    now.timestamp().checked_add(span).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_understood_as_people_say_them() {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let now = "2026-11-25T22:30:00Z".parse::<Timestamp>().unwrap().to_zoned(zone);
        let check = |text: &str, expected: &str| {
            assert_eq!(parse_at(text, &now).as_deref(), Ok(expected), "{text}");
        };
        // It is 23:30 there.
        check("07:00", "2026-11-26T06:00:00Z");
        check("23:45", "2026-11-25T22:45:00Z");
        check("8h", "2026-11-26T06:30:00Z");
        check("in 1h 30min", "2026-11-26T00:00:00Z");
        check("2026-11-26T07:00:00Z", "2026-11-26T07:00:00Z");
        check("2026-11-26T07:00:00+02:00", "2026-11-26T05:00:00Z");
        assert!(parse_at("soon", &now).unwrap_err().contains("07:00"));
        assert!(parse_at("25:00", &now).is_err());
    }
}
