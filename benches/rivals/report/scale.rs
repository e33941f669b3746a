//! From values to places on an axis.

/// An axis: its range, where it lies on the drawing, and the values that are marked on it.
#[derive(Debug, Clone)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    /// The places of `low` and `high`.
    places: (f64, f64),
    pub(crate) ticks: Vec<f64>,
}

impl Scale {
    /// From at most `lowest` to at least `highest`, in round steps.
    pub(crate) fn linear(lowest: f64, highest: f64, places: (f64, f64)) -> Self {
        const STEPS: f64 = 5.0;
        // Values that are all the same have an axis nevertheless.
        let range = (highest - lowest).max(highest.abs() / 100.0).max(1e-6);
        let step = round_up(range / STEPS);
        let first = (lowest / step + 1e-9).floor();
        let last = (highest / step - 1e-9).ceil().max(first + 1.0);
        let ticks = (0..=(last - first) as usize).map(|number| (first + number as f64) * step).collect();
        Self { low: first * step, high: last * step, logarithmic: false, places, ticks }
    }

    /// From at most `lowest`, which must be above zero, to at least `highest`; marked at 1, 2 and 5 times the powers of
    /// ten, or at the powers alone where that would be crowded.
    pub(crate) fn logarithmic(lowest: f64, highest: f64, places: (f64, f64)) -> Self {
        const CROWDED: usize = 10;
        let (first, last) = (lowest.log10().floor() as i32, highest.log10().ceil() as i32);
        let of_decades = |digits: &[f64]| -> Vec<f64> {
            let marks = (first..=last).flat_map(|power| digits.iter().map(move |digit| digit * 10_f64.powi(power)));
            let marks: Vec<f64> = marks.collect();
            // The range ends at the marks that enclose the data.
            let start = marks.iter().rposition(|&mark| mark <= lowest).unwrap_or(0);
            let end = marks.iter().position(|&mark| mark >= highest).unwrap_or(marks.len() - 1).max(start + 1);
            marks[start..=end.min(marks.len() - 1)].to_vec()
        };
        let fine = of_decades(&[1.0, 2.0, 5.0]);
        let (low, high) = (fine[0], fine[fine.len() - 1]);
        let is_power = |mark: &f64| (mark.log10() - mark.log10().round()).abs() < 1e-9;
        let ticks = if fine.len() > CROWDED { fine.into_iter().filter(is_power).collect() } else { fine };
        Self { low, high, logarithmic: true, places, ticks }
    }

    /// Where `value` lies; one beyond the range lies at its end.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        let share = if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        let (start, end) = self.places;
        start + share * (end - start)
    }
}

/// The least of 1, 2 and 5 times a power of ten that is not below `value`.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let digit = [1.0, 2.0, 5.0, 10.0].into_iter().find(|digit| digit * power >= value * (1.0 - 1e-9));
    digit.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_steps_are_round_and_enclose() {
        let scale = Scale::linear(0.0, 87.0, (300.0, 0.0));
        assert_eq!(scale.ticks, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert!((scale.place(50.0) - 150.0).abs() < 1e-9);
        assert_eq!(Scale::linear(0.0, 0.5, (0.0, 1.0)).ticks.len(), 6);
        assert_eq!(Scale::linear(61.0, 84.9, (0.0, 1.0)).ticks, [60.0, 65.0, 70.0, 75.0, 80.0, 85.0]);
        for same in [0.0, 93.0] {
            let place = Scale::linear(same, same, (0.0, 1.0)).place(same);
            assert!((0.0..=1.0).contains(&place), "{same} lies at {place}");
        }
    }

    #[test]
    fn logarithmic_marks_enclose() {
        let scale = Scale::logarithmic(30.0, 900.0, (0.0, 100.0));
        assert_eq!(scale.ticks, [20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0]);
        assert!((scale.place(20.0), scale.place(1_000.0)) == (0.0, 100.0));
        assert_eq!(Scale::logarithmic(1.0, 1e6, (0.0, 1.0)).ticks.len(), 7);
        assert!(Scale::logarithmic(10.0, 10.0, (0.0, 1.0)).place(10.0).is_finite());
    }
}
