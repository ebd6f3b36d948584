//! Times that are out of bounds.

use chancery_validate::RejectionCode::{
    BadClaim, Expired, IssuedInFuture, LifetimeTooLong, NotYetValid, OutsideKeyWindow,
};

use crate::corpus::Case;
use crate::draft::{Draft, NOW, WINDOW, good};

pub fn cases() -> Vec<Case> {
    let no_leeway = |draft: Draft| draft.config(|config| config.leeway_s = 0);
    vec![
        good().at(NOW + 570).rejected(
            Expired,
            "exp_leeway_over",
            "exp and 30 s of leeway are over",
        ),
        no_leeway(good().at(NOW + 540)).rejected(Expired, "exp_now", "exp is now, without leeway"),
        good().at(NOW + 5000).rejected(
            Expired,
            "exp_long_ago",
            "long expired, the key is still in the set",
        ),
        good().claim("nbf", NOW + 31).rejected(NotYetValid, "nbf_beyond_leeway", "31 s too early"),
        no_leeway(good().claim("nbf", NOW + 1)).rejected(
            NotYetValid,
            "nbf_next_second",
            "a second too early",
        ),
        good().claim("iat", NOW + 31).rejected(
            IssuedInFuture,
            "iat_beyond_leeway",
            "issued 31 s in the future",
        ),
        no_leeway(good().claim("iat", NOW + 1)).rejected(
            IssuedInFuture,
            "iat_next_second",
            "issued a second in the future",
        ),
        good().claim("iat", WINDOW.nbf - 1).rejected(
            OutsideKeyWindow,
            "iat_before_window",
            "issued a second before the key's window",
        ),
        good().claim("iat", 0).rejected(OutsideKeyWindow, "iat_zero", "issued in 1970"),
        good()
            .claim("iat", WINDOW.signs_until)
            .claim("exp", WINDOW.signs_until + 600)
            .at(WINDOW.signs_until)
            .rejected(OutsideKeyWindow, "iat_window_end", "windows are half-open; no leeway"),
        good()
            .claim("iat", WINDOW.signs_until + 1000)
            .claim("exp", WINDOW.signs_until + 1600)
            .at(WINDOW.signs_until + 1000)
            .rejected(
                OutsideKeyWindow,
                "stolen_retired_key",
                "a new token by a key that no longer signs",
            ),
        good().claim("iat", NOW).claim("exp", NOW + 86_401).rejected(
            LifetimeTooLong,
            "lifetime_beyond_bound",
            "a second more than a day",
        ),
        good().config(|config| config.max_lifetime_s = Some(599)).rejected(
            LifetimeTooLong,
            "lifetime_beyond_configured",
            "a bound of 599 s, a token of 600 s",
        ),
        good().claim("nbf", NOW + 540).rejected(
            BadClaim,
            "nbf_not_before_exp",
            "a token that is never valid",
        ),
        good().claim("exp", 253_402_300_799_u64).rejected(
            LifetimeTooLong,
            "exp_year_9999",
            "a token for ever",
        ),
        good().claim("exp", u64::MAX).config(|config| config.max_lifetime_s = None).rejected(
            BadClaim,
            "exp_largest_integer",
            "a sum with it would overflow",
        ),
        good().at(0).rejected(
            IssuedInFuture,
            "clock_at_zero",
            "a relying party whose clock was never set",
        ),
    ]
}
