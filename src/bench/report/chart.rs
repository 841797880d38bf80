//! Columns and curves as pictures.

use super::curves::Curve;
use super::svg::{escape, number};

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 250.0;
/// Room for labels: left, right, above, below.
const LEFT: f64 = 46.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 44.0;

/// One column of a chart.
pub(super) struct Column {
    pub(super) label: String,
    /// Second line below, such as how many.
    pub(super) note: String,
    pub(super) value: Option<f64>,
}

/// A plot of columns, each with its value above; `is_share` shows percent on a scale from 0 to at least 100.
pub(super) fn columns(label: &str, columns: &[Column], is_share: bool, class: &str) -> String {
    let largest = columns.iter().filter_map(|column| column.value).fold(0.0, f64::max);
    let axis = Axis::up_to(largest, is_share);
    let mut svg = open(label, &axis);
    let slot = (WIDTH - LEFT - RIGHT) / columns.len().max(1) as f64;
    let bar = (slot * 0.68).min(46.0);
    for (i, column) in columns.iter().enumerate() {
        let middle = LEFT + slot * (i as f64 + 0.5);
        if let Some(value) = column.value {
            let top = axis.y(value);
            svg.push_str(&format!(
                "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"2\"/><text class=\"value\" x=\"{}\" y=\"{}\">{}</text>",
                number(middle - bar / 2.0),
                number(top),
                number(bar),
                number((axis.y(0.0) - top).max(0.5)),
                number(middle),
                number(top - 5.0),
                axis.value(value)
            ));
        }
        svg.push_str(&format!(
            "<text class=\"tick\" x=\"{x}\" y=\"{}\">{}</text><text class=\"tick small\" x=\"{x}\" y=\"{}\">{}</text>",
            number(HEIGHT - BOTTOM + 17.0),
            escape(&column.label),
            number(HEIGHT - BOTTOM + 33.0),
            escape(&column.note),
            x = number(middle),
        ));
    }
    svg.push_str("</svg>");
    svg
}

/// A plot of curves over steps, all on one scale; curve `i` has class `series-i`.
pub(super) fn curves(label: &str, curves: &[&Curve]) -> String {
    let values = || curves.iter().flat_map(|curve| curve.points.iter());
    let is_share = curves.iter().all(|curve| curve.is_share);
    let axis = Axis::up_to(values().map(|(_, value)| *value).fold(0.0, f64::max), is_share);
    let last = values().map(|(step, _)| *step).max().unwrap_or(1).max(1);
    let x = |step: u64| LEFT + (WIDTH - LEFT - RIGHT) * step as f64 / last as f64;
    let mut svg = open(label, &axis);
    for i in 0..=4 {
        let step = last * i / 4;
        svg.push_str(&format!(
            "<text class=\"tick\" x=\"{}\" y=\"{}\">{step}</text>",
            number(x(step).min(WIDTH - RIGHT - 12.0)),
            number(HEIGHT - BOTTOM + 17.0)
        ));
    }
    svg.push_str(&format!(
        "<text class=\"tick small\" x=\"{}\" y=\"{}\">steps</text>",
        number((LEFT + WIDTH - RIGHT) / 2.0),
        number(HEIGHT - BOTTOM + 33.0)
    ));
    for (i, curve) in curves.iter().enumerate() {
        let points: Vec<String> = curve
            .points
            .iter()
            .map(|(step, value)| format!("{} {}", number(x(*step)), number(axis.y(*value))))
            .collect();
        svg.push_str(&format!("<path class=\"line series-{i}\" d=\"M{}\"/>", points.join("L")));
    }
    svg.push_str("</svg>");
    svg
}

/// The vertical scale.
struct Axis {
    top: f64,
    step: f64,
    is_share: bool,
}

impl Axis {
    fn up_to(largest: f64, is_share: bool) -> Self {
        let largest = if is_share { largest.max(1.0) } else { largest.max(1e-9) };
        // The coarsest of 1, 2, 5 times a power of ten that gives four lines or more.
        let power = 10_f64.powf((largest / 4.0).log10().floor());
        let step = [5.0, 2.0, 1.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| largest / step >= 3.999)
            .unwrap_or(power);
        let step = if is_share && largest <= 1.0 { 0.25 } else { step };
        Self { top: (largest / step - 1e-9).ceil() * step, step, is_share }
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value.clamp(0.0, self.top) / self.top
    }

    fn value(&self, value: f64) -> String {
        if self.is_share { format!("{:.0}", 100.0 * value) } else { format!("{value:.2}") }
    }

    fn tick(&self, value: f64) -> String {
        if self.is_share {
            format!("{:.0} %", 100.0 * value)
        } else {
            let decimals = (-self.step.log10().floor()).max(0.0) as usize;
            format!("{value:.decimals$}")
        }
    }
}

/// The picture with its horizontal lines.
fn open(label: &str, axis: &Axis) -> String {
    let mut svg = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape(label)
    );
    let lines = (axis.top / axis.step).round() as usize;
    for i in 0..=lines.min(20) {
        let value = axis.step * i as f64;
        let y = number(axis.y(value));
        svg.push_str(&format!(
            "<path class=\"grid\" d=\"M{LEFT} {y}H{}\"/><text class=\"axis\" x=\"{}\" y=\"{}\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 5.0,
            number(axis.y(value) + 4.0),
            axis.tick(value)
        ));
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        let axis = |largest, is_share| {
            let axis = Axis::up_to(largest, is_share);
            (axis.top, axis.step)
        };
        assert_eq!(axis(0.3, true), (1.0, 0.25));
        assert_eq!(axis(1.0, true), (1.0, 0.25));
        let (top, step) = axis(3.4, true);
        assert!((top - 3.5).abs() < 1e-9 && (step - 0.5).abs() < 1e-9, "{top} {step}");
        let (top, step) = axis(0.0123, false);
        assert!((top - 0.014).abs() < 1e-9 && (step - 0.002).abs() < 1e-9, "{top} {step}");
        assert!(axis(0.0, false).0 > 0.0);
    }
}
