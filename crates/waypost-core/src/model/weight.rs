//! The weight of an instance.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::invalid::Invalid;

/// An instance's share of the traffic, relative to the other instances of its service.
///
/// An integer from 0 to 65,535, as in a DNS SRV record (RFC 2782). An instance of weight 2 gets
/// twice the traffic of one of weight 1. Weight 0 means *drained*: the instance gets no new requests
/// while another one can take them.
///
/// ```
/// # use waypost_core::Weight;
/// assert_eq!(Weight::default().get(), 1);
/// assert!(Weight::DRAINED.is_drained());
/// assert!(Weight::try_from(-1).is_err());
/// assert!(Weight::try_from(f64::NAN).is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "u32")]
pub struct Weight(u16);

impl Weight {
    /// Gets no new requests while another instance can take them.
    pub const DRAINED: Self = Self(0);

    /// The maximum weight.
    pub const MAX: Self = Self(u16::MAX);

    /// A weight; every `u16` is valid.
    pub const fn new(weight: u16) -> Self {
        Self(weight)
    }

    /// The weight as a number.
    pub const fn get(self) -> u32 {
        self.0 as u32
    }

    /// Whether the weight is 0.
    pub const fn is_drained(self) -> bool {
        self.0 == 0
    }
}

impl Default for Weight {
    /// 1, so that instances without a weight share the traffic evenly.
    fn default() -> Self {
        Self(1)
    }
}

fn refused(value: impl fmt::Display) -> Invalid {
    Invalid::new(
        "weight",
        value.to_string(),
        "use a whole number from 0 (drained) to 65535",
    )
}

impl TryFrom<i64> for Weight {
    type Error = Invalid;

    fn try_from(weight: i64) -> Result<Self, Invalid> {
        u16::try_from(weight).map(Self).map_err(|_| refused(weight))
    }
}

impl TryFrom<f64> for Weight {
    type Error = Invalid;

    fn try_from(weight: f64) -> Result<Self, Invalid> {
        // NaN fails both comparisons, so it is refused like any other value out of range.
        if weight >= 0.0 && weight <= f64::from(u16::MAX) && weight.fract() == 0.0 {
            Ok(Self(weight as u16))
        } else {
            Err(refused(weight))
        }
    }
}

impl FromStr for Weight {
    type Err = Invalid;

    fn from_str(weight: &str) -> Result<Self, Invalid> {
        weight.parse().map(Self).map_err(|_| refused(weight))
    }
}

impl From<Weight> for u32 {
    fn from(weight: Weight) -> Self {
        weight.get()
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_and_values_out_of_range_are_refused() {
        for bad in [f64::NAN, f64::INFINITY, -1.0, -0.5, 0.5, 65_536.0, 1e300] {
            assert!(Weight::try_from(bad).is_err(), "{bad}");
        }
        assert!(Weight::try_from(65_536_i64).is_err());
        assert_eq!(Weight::try_from(-0.0), Ok(Weight::DRAINED));
        assert_eq!(Weight::try_from(65_535.0), Ok(Weight::MAX));
    }
}
