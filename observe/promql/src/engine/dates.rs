//! Functions that read a Unix time as a date in UTC.

use super::column::Row;
use super::{Evaluator, Grid};
use crate::ast::Expr;
use crate::error::Error;
use crate::labels::Labels;
use crate::source::Value;

const DATES: &[&str] =
    &["day_of_month", "day_of_week", "day_of_year", "days_in_month", "hour", "minute", "month", "year"];

const SECONDS_PER_DAY: i64 = 86_400;

pub(super) fn is_date(name: &str) -> bool {
    DATES.contains(&name)
}

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Year, month and day of a day counted from 1970-01-01, by the calendar's 400-year cycle of 146 097 days
/// counted from a first of March.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn part(name: &str, seconds: f64) -> f64 {
    if !seconds.is_finite() {
        return f64::NAN;
    }
    let seconds = seconds.clamp(-6.0e13, 6.0e13) as i64;
    let (days, second) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
    let (year, month, day) = civil(days);
    let value = match name {
        "day_of_month" => day,
        "day_of_week" => (days + 4).rem_euclid(7),
        "day_of_year" => (1..month).map(|before| days_in(year, before)).sum::<i64>() + day,
        "days_in_month" => days_in(year, month),
        "hour" => second / 3600,
        "minute" => second / 60 % 60,
        "month" => month,
        _ => year,
    };
    value as f64
}

impl Evaluator<'_> {
    pub(super) fn date_call(
        &mut self,
        name: &str,
        arguments: &[Expr],
        grid: Grid,
    ) -> Result<Vec<Row>, Error> {
        let mut rows = match arguments.first() {
            Some(argument) => self.rows(argument, grid)?,
            None => {
                let column = grid.times().map(|time| Some(Value::Float((time / 1000) as f64))).collect();
                vec![Row { labels: Labels::default(), drops_name: false, column }]
            }
        };
        for row in &mut rows {
            row.map_floats(|_, value| part(name, value));
        }
        rows.retain(Row::has_values);
        Ok(rows)
    }
}
