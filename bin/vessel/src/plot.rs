//! A quantity over time, drawn in a terminal.
//!
//! ```text
//! cpu_cores: processors in use
//!  2 |                 ⣀⡀
//!    |      ⢀⡀        ⢸⣿⣧      ⢀
//!  0 |⣀⣀⣠⣤⣾⣿⣦⣀⣀⣀⣀⣸⣿⣿⣀⣀⣀⣀⣸
//!     10:20                 11:20
//! ```
//!
//! Each column is the largest mean of the steps in it, so that no peak is lost between columns. A
//! column without steps is empty; one with nothing but zeros shows the lowest dots.

/// Rows of dots in a character: braille has a grid of 2 by 4.
const DOTS: usize = 4;
/// Rows of characters of a plot.
pub(crate) const ROWS: usize = 6;

/// Values over time, one for each column of dots, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Columns(Vec<Option<f64>>);

impl Columns {
    /// Puts points (seconds, value) of a span into `count` columns.
    pub(crate) fn new(
        points: impl IntoIterator<Item = (f64, f64)>,
        (since, until): (f64, f64),
        count: usize,
    ) -> Self {
        let mut columns = vec![None; count];
        for (time, value) in points {
            let part = (time - since) / (until - since).max(1.0);
            if !(0.0..=1.0).contains(&part) {
                continue;
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a column of a terminal"
            )]
            // What is a whole number but for rounding is meant as one.
            let at = ((part * count as f64 + 1e-6) as usize).min(count.saturating_sub(1));
            if let Some(column) = columns.get_mut(at) {
                let largest: f64 = column.map_or(value, |other: f64| other.max(value));
                *column = Some(largest);
            }
        }
        Self(columns)
    }

    /// Fills columns between two that are one step apart with the earlier value, for a span that has fewer steps
    /// than columns.
    pub(crate) fn hold(mut self, columns_per_step: f64) -> Self {
        let mut held: Option<(f64, f64)> = None;
        for column in &mut self.0 {
            match (*column, &mut held) {
                (Some(value), _) => held = Some((value, columns_per_step - 1.0)),
                // A step of 2.2 columns lies over three of them now and then.
                (None, Some((value, left))) if *left > 1e-6 => {
                    *column = Some(*value);
                    *left -= 1.0;
                }
                (None, _) => held = None,
            }
        }
        self
    }

    /// The largest value.
    pub(crate) fn max(&self) -> Option<f64> {
        self.0.iter().flatten().copied().reduce(f64::max)
    }

    /// The rows of the plot from top to bottom, each half as many characters wide as there are columns.
    pub(crate) fn rows(&self, rows: usize, max: f64) -> Vec<String> {
        let heights: Vec<usize> = self
            .0
            .iter()
            .map(|value| value.map_or(0, |value| height(value, max, rows * DOTS)))
            .collect();
        (0..rows)
            .rev()
            .map(|row| {
                let line: String = heights
                    .chunks(2)
                    .map(|pair| cell(pair, row * DOTS))
                    .collect();
                line.trim_end_matches('\u{2800}').to_owned()
            })
            .collect()
    }
}

/// Dots of a value; one that is known has at least one.
fn height(value: f64, max: f64, dots: usize) -> usize {
    if max <= 0.0 {
        return 1;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "some dozens of dots; `as` saturates"
    )]
    let height = (value / max * dots as f64).round() as usize;
    height.clamp(1, dots)
}

/// The character for two columns, of which `below` dots are in the rows under it.
fn cell(pair: &[usize], below: usize) -> char {
    // Bits of the dots of each column from bottom to top (Unicode, "Braille Patterns").
    const BITS: [[u32; DOTS]; 2] = [[0x40, 0x04, 0x02, 0x01], [0x80, 0x20, 0x10, 0x08]];
    let mut code = 0x2800;
    for (bits, height) in BITS.iter().zip(pair) {
        for (dot, bit) in bits.iter().enumerate() {
            if *height > below + dot {
                code |= bit;
            }
        }
    }
    char::from_u32(code).unwrap_or(' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_largest_of_a_column_counts_and_a_gap_stays_one() {
        let points = [(0.0, 1.0), (1.0, 4.0), (9.0, 2.0), (11.0, 99.0)];
        let columns = Columns::new(points, (0.0, 10.0), 5);
        assert_eq!(
            columns,
            Columns(vec![Some(4.0), None, None, None, Some(2.0)])
        );
        assert_eq!(columns.max(), Some(4.0));
        assert_eq!(columns.rows(1, 4.0), ["⡇ ⡄".replace(' ', "\u{2800}")]);
    }

    #[test]
    fn a_step_fills_its_columns() {
        let columns = Columns(vec![Some(1.0), None, None, None, None, Some(2.0), None]);
        let held = columns.hold(3.0);
        assert_eq!(
            held.0,
            [
                Some(1.0),
                Some(1.0),
                Some(1.0),
                None,
                None,
                Some(2.0),
                Some(2.0)
            ]
        );
    }

    proptest! {
        #[test]
        fn steps_side_by_side_leave_no_hole(count in 2_usize..200, columns in 2_usize..400) {
            let all = columns.max(count);
            let (steps, wide) = (f64::from(u32::try_from(count).unwrap()), f64::from(u32::try_from(all).unwrap()));
            let points = (0..count).map(|at| (f64::from(u32::try_from(at).unwrap()), 1.0));
            let held = Columns::new(points, (0.0, steps), all).hold(wide / steps);
            prop_assert!(held.0.iter().all(Option::is_some), "{held:?}");
        }

        #[test]
        fn a_plot_is_never_wider_or_higher_than_it_may(
            points in prop::collection::vec((0.0_f64..100.0, -1.0_f64..1e12), 0..200),
            width in 1_usize..150, rows in 1_usize..10
        ) {
            let columns = Columns::new(points, (0.0, 100.0), width * 2);
            let lines = columns.rows(rows, columns.max().unwrap_or(0.0));
            prop_assert_eq!(lines.len(), rows);
            prop_assert!(lines.iter().all(|line| line.chars().count() <= width));
        }
    }
}
