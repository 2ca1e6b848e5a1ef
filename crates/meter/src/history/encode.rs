//! A value in two bytes.
//!
//! Rates and amounts of a VE span from a packet an hour to terabytes. 16 bits on a logarithmic scale
//! hold all of it to 0.05 %, which is less than a column of a plot: half of what floats of 4 bytes would
//! take, for a year of hundreds of VEs.
//!
//! | code | value |
//! |---|---|
//! | 0 | not known |
//! | 1 | 0, and everything below 2^-20 |
//! | 2 to 65,535 | 2^-20 to 2^68, in equal steps of the logarithm |

const ABSENT: u16 = 0;
const ZERO: u16 = 1;
const FIRST: f64 = 2.0;
const EXPONENT_MIN: f64 = -20.0;
const EXPONENT_MAX: f64 = 68.0;
const STEPS: f64 = 65_535.0 - FIRST;

/// The code of a value; negative ones count as 0, too large ones as the largest.
pub(super) fn encode(value: Option<f64>) -> u16 {
    let Some(value) = value.filter(|value| !value.is_nan()) else {
        return ABSENT;
    };
    if value < EXPONENT_MIN.exp2() {
        return ZERO;
    }
    let part = (value.log2() - EXPONENT_MIN) / (EXPONENT_MAX - EXPONENT_MIN);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between FIRST and 65,535"
    )]
    let code = (FIRST + part.clamp(0.0, 1.0) * STEPS).round() as u16;
    code
}

/// The value of a code.
pub(super) fn decode(code: u16) -> Option<f64> {
    match code {
        ABSENT => None,
        ZERO => Some(0.0),
        code => {
            let part = (f64::from(code) - FIRST) / STEPS;
            Some((EXPONENT_MIN + part * (EXPONENT_MAX - EXPONENT_MIN)).exp2())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_known_and_nothing_at_all_differ() {
        assert_eq!(decode(encode(None)), None);
        assert_eq!(decode(encode(Some(f64::NAN))), None);
        assert_eq!(decode(encode(Some(0.0))), Some(0.0));
        assert_eq!(decode(encode(Some(-3.0))), Some(0.0));
        assert!(decode(encode(Some(f64::INFINITY))) > Some(1e20));
    }

    proptest! {
        #[test]
        fn a_value_comes_back_within_a_twentieth_of_a_percent(value in 1e-6_f64..1e20) {
            let back = decode(encode(Some(value))).unwrap();
            prop_assert!((back / value - 1.0).abs() < 0.000_5, "{value} {back}");
        }
    }
}
