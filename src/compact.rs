//! Numbers and intervals in few bits, for what every entry carries.

use std::time::Duration;

use crate::clock::{Deadline, Timestamp};

/// How long a load took: exact to the microsecond up to 4 ms, to a part in 2,048 up to 50 days.
pub(crate) type Micros = Span16<1_000>;
/// A grace, or how long before a deadline: exact to the millisecond up to 4 s, to a part in 2,048 up to 139 years.
pub(crate) type Millis = Span16<MILLIS_NS>;
pub(crate) const MILLIS_NS: u64 = 1_000_000;

const _: () = assert!(size_of::<Micros>() == 2 && size_of::<U48>() == 6 && size_of::<HardSpan>() == 4);

/// An interval in 16 bits, counted in units of so many nanoseconds: a float of 5 bits of exponent and 11 of mantissa.
///
/// Keeps twelve significant bits: exact up to 4,096 units and wherever the rest is zero, as it is for all round intervals, else
/// rounded up by less than a part in 2,048. What does not fit is cut at [`MAX`](Self::MAX). Longer intervals have larger bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span16<const UNIT_NS: u64>(u16);

/// How many bits of the mantissa are stored; the one before them is set in all but the first 2,048 intervals.
const MANTISSA: u32 = 11;

/// The longest interval in 16 bits, in its units.
const LONGEST: u64 = ((2 << MANTISSA) - 1) << 30;

impl<const UNIT_NS: u64> Span16<UNIT_NS> {
    pub(crate) const ZERO: Self = Span16(0);
    /// What stands for every interval that does not fit, too.
    #[cfg(any(test, feature = "tiered"))]
    pub(crate) const MAX: Self = Span16(u16::MAX);

    /// How many units a second has: a whole number, and few enough that every interval can be said in nanoseconds.
    const PER_SECOND: u64 = {
        assert!(1_000_000_000 % UNIT_NS == 0 && UNIT_NS <= u64::MAX / LONGEST);
        1_000_000_000 / UNIT_NS
    };

    #[inline]
    pub(crate) fn new(interval: Duration) -> Self {
        let begun = u64::from(interval.subsec_nanos()).div_ceil(UNIT_NS);
        let units = interval.as_secs().saturating_mul(Self::PER_SECOND).saturating_add(begun);
        // The exponent is counted from one, and adding the mantissa's hidden bit, which is set, counts it up from zero. So
        // does a mantissa that rounding up has made one bit longer.
        let shift = (u64::BITS - units.leading_zeros()).saturating_sub(MANTISSA + 1);
        let mantissa = (units >> shift) + u64::from(units & ((1 << shift) - 1) != 0);
        let bits = (u64::from(shift) << MANTISSA) + mantissa;
        Span16(u16::try_from(bits).unwrap_or(u16::MAX))
    }

    pub(crate) fn get(self) -> Duration {
        let (exponent, stored) = (self.0 >> MANTISSA, u64::from(self.0) & ((1 << MANTISSA) - 1));
        let units = match exponent {
            0 => stored,
            _ => (stored | 1 << MANTISSA) << (exponent - 1),
        };
        Duration::from_nanos(units * UNIT_NS)
    }

    #[cfg(test)]
    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Returns the interval of as many other units: a field may hold the one or the other.
    #[cfg(feature = "tiered")]
    pub(crate) fn in_units<const OTHER_NS: u64>(self) -> Span16<OTHER_NS> {
        Span16(self.0)
    }

    /// Returns whether it is as long as can be said, and may have been longer.
    #[cfg(any(test, feature = "tiered"))]
    pub(crate) fn is_max(self) -> bool {
        self == Self::MAX
    }
}

/// A number below 2⁴⁸, in six bytes that need to be aligned to two only. A larger one is cut at the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct U48([u16; 3]);

impl U48 {
    pub(crate) const MAX: u64 = (1 << 48) - 1;

    #[inline]
    pub(crate) fn new(number: u64) -> U48 {
        let number = number.min(U48::MAX);
        U48([number as u16, (number >> 16) as u16, (number >> 32) as u16])
    }

    #[inline]
    pub(crate) fn get(self) -> u64 {
        let [low, middle, high] = self.0.map(u64::from);
        low | middle << 16 | high << 32
    }
}

/// The time from an entry's creation to its hard deadline, in 32 bits: milliseconds below 2³¹ of them (24 days), seconds from
/// there on, never in the end.
///
/// Exact where it counts milliseconds. Where it counts seconds, the deadline is up to one earlier than asked, since no entry may
/// be served past it; what is 68 years away or more is never. A deadline from before the creation counts as that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HardSpan(u32);

/// The bit that tells seconds from milliseconds.
const IN_SECONDS: u32 = 1 << 31;

impl HardSpan {
    pub(crate) const NEVER: HardSpan = HardSpan(u32::MAX);

    #[inline]
    pub(crate) fn between(created: Timestamp, hard: Deadline) -> HardSpan {
        let Some(ms) = hard.ms_after(created) else { return HardSpan::NEVER };
        match u32::try_from(ms) {
            Ok(ms) if ms < IN_SECONDS => HardSpan(ms),
            _ => match u32::try_from(ms / 1_000) {
                Ok(seconds) if seconds < IN_SECONDS => HardSpan(IN_SECONDS | seconds),
                _ => HardSpan::NEVER,
            },
        }
    }

    #[inline]
    pub(crate) fn after(self, created: Timestamp) -> Deadline {
        let ms = match self {
            HardSpan::NEVER => return Deadline::NEVER,
            HardSpan(ms) if ms < IN_SECONDS => u64::from(ms),
            HardSpan(seconds) => u64::from(seconds ^ IN_SECONDS) * 1_000,
        };
        Deadline::at_ms(created, ms)
    }

    #[inline]
    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0
    }

    #[cfg(test)]
    pub(crate) fn is_never(self) -> bool {
        self == HardSpan::NEVER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Clock;

    fn micros(units: u64) -> Duration {
        Duration::from_micros(units)
    }

    #[test]
    fn what_fits_in_twelve_bits_is_kept_exactly() {
        for units in 0..=4_096 {
            assert_eq!(Micros::new(micros(units)).get(), micros(units));
        }
        for shift in 0..=30 {
            for significant in [1, 2_047, 2_048, 2_049, 3_333, 4_094, 4_095] {
                let units = significant << shift;
                assert_eq!(Micros::new(micros(units)).get(), micros(units), "{significant} << {shift}");
                assert_eq!(Millis::new(Duration::from_millis(units)).get(), Duration::from_millis(units));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_rounded_up_by_less_than_a_part_in_2_048() {
        assert_eq!(Micros::new(micros(4_097)).get(), micros(4_098));
        assert_eq!(Micros::new(micros(8_191)).get(), micros(8_192));
        assert_eq!(Micros::new(Duration::from_nanos(1)).get(), micros(1));
        assert_eq!(Millis::new(Duration::from_nanos(4_095_000_001)).get(), Duration::from_millis(4_096));
        let mut last = Micros::new(Duration::ZERO);
        for step in 0..100_000_u64 {
            let units = step.pow(2) * 439 + step;
            let span = Micros::new(micros(units));
            assert!(span.get() >= micros(units) && span.get() - micros(units) <= micros(units / 2_048));
            assert!(span >= last && Micros::new(span.get()) == span);
            last = span;
        }
    }

    #[test]
    fn an_interval_that_is_too_long_is_cut_at_the_longest() {
        assert_eq!(Micros::MAX.get(), micros(LONGEST));
        assert!(!Micros::new(micros(LONGEST - (1 << 30))).is_max());
        for units in [LONGEST - (1 << 30) + 1, LONGEST, LONGEST + 1, u64::MAX] {
            assert!(Micros::new(micros(units)).is_max());
        }
        assert!(Micros::new(Duration::MAX).is_max() && Millis::new(Duration::MAX).is_max());
        assert!(Micros::new(Duration::ZERO).is_zero() && !Micros::new(Duration::from_nanos(1)).is_zero());
    }

    #[test]
    fn every_sixteen_bits_are_an_interval_of_their_own() {
        let spans = (0..=u16::MAX).map(|bits| Millis::new(Span16::<1_000_000>(bits).get()));
        assert!(spans.eq((0..=u16::MAX).map(Span16)));
    }

    #[test]
    fn a_number_of_48_bits_is_kept_and_a_larger_one_cut() {
        let edges = [0, 1, 0xFFFF, 0x1_0000, 0xFFFF_FFFF, 0x1_0000_0000, 0x1234_5678_9ABC, U48::MAX];
        assert!(edges.iter().all(|&number| U48::new(number).get() == number));
        assert!([U48::MAX + 1, u64::MAX].iter().all(|&number| U48::new(number).get() == U48::MAX));
    }

    #[test]
    fn a_hard_deadline_is_exact_below_24_days_and_never_late() {
        let created = Clock::manual().0.now();
        let kept = |ms| {
            let deadline = HardSpan::between(created, Deadline::at_ms(created, ms)).after(created);
            deadline.ms_after(created)
        };
        for ms in [0, 1, 86_400_000, (1 << 31) - 1] {
            assert_eq!(kept(ms), Some(ms));
        }
        let whole = (1_u64 << 31) / 1_000 * 1_000;
        assert_eq!(kept(1 << 31), Some(whole));
        assert_eq!((kept(whole + 1_000), kept(whole + 1_999)), (Some(whole + 1_000), Some(whole + 1_000)));
        let longest = ((1 << 31) - 2) * 1_000;
        assert_eq!((kept(longest), kept(longest + 999)), (Some(longest), Some(longest)));
        assert_eq!((kept(longest + 1_000), kept(u64::MAX / 2)), (None, None));
        assert!(HardSpan::between(created, Deadline::NEVER).is_never());
        assert_eq!(HardSpan::between(created, Deadline::PASSED).after(created), Deadline::at_ms(created, 0));
    }
}
