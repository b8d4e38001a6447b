//! What is written behind options: keys, addresses, times, rates.
//! Knows their forms. Does not know which option takes which.

use std::time::Duration;

use ferrocore::primitives::id::parse_key;
use ferrocore::{IdError, PublicKey};

pub(super) fn parse_public_key(text: &str) -> Result<PublicKey, IdError> {
    let key = parse_key(text)?;
    Ok(PublicKey::from(*key.as_bytes()))
}

/// Checks the form only: names are looked up when they are needed.
pub(super) fn parse_address(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(text.to_owned()),
        _ => Err("an address is a host and a port, as in 192.168.1.7:4000".to_owned()),
    }
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; write for example 500ms, 30s or 2m");
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(unit_at.unwrap_or(text.len()));
    let seconds_per_unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    match Duration::try_from_secs_f64(number * seconds_per_unit) {
        Ok(time) if time > TIMEOUT_MAX => Ok(TIMEOUT_MAX),
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err(wrong()),
    }
}

/// A year; longer ones mean "for ever", and clocks cannot be asked for just any.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) fn parse_rate(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no rate; write bytes a second, for example 500k or 5M");
    let unit_at = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(unit_at.unwrap_or(text.len()));
    let bytes_per_unit = match unit {
        "" => 1,
        "k" | "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    let rate = number
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(bytes_per_unit));
    rate.filter(|rate| *rate > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_have_units() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("99999999999999h"), Ok(TIMEOUT_MAX));
        for text in ["", "0", "-1s", "1y", "s", "nan"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_rate("5M"), Ok(5_000_000));
        assert_eq!(parse_rate("12"), Ok(12));
        for text in ["", "0", "M", "1.5M", "99999999999999999G"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_have_a_port() {
        for text in ["127.0.0.1:0", "[::1]:4000", "example.org:65535"] {
            assert!(parse_address(text).is_ok(), "{text}");
        }
        for text in ["", "example.org", "example.org:", "127.0.0.1:65536"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }
}
