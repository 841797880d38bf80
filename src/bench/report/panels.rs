//! The maps of a report: the world with a dot per language, and regions with a labelled marker each.

use super::colour::Score;
use super::map::{Place, View};
use super::place::spread;
use super::svg::{escape, number};
use super::table::percent;
use super::{LanguageRow, Report};
use std::collections::BTreeMap;

/// Distance between dots of land, units of the picture.
const WORLD_PITCH: f64 = 5.4;
const REGION_PITCH: f64 = 6.6;
/// Width of a region's picture, and of its markers.
const REGION_WIDTH: f64 = 430.0;
const REGION_MARKER: f64 = 12.0;
const WORLD_WIDTH: f64 = 1000.0;
const WORLD_MARKER: f64 = 5.0;
/// A region is shown at least this large, degrees.
const LEAST_DEG: f64 = 22.0;

/// Name, west, east, south, north. A place belongs to the first that holds it; the last holds all.
const REGIONS: [(&str, f64, f64, f64, f64); 5] = [
    ("Europe", -26.0, 46.0, 34.0, 72.0),
    ("Africa and the Near East", -26.0, 55.0, -38.0, 34.0),
    ("Asia", 34.0, 180.0, -11.5, 84.0),
    ("Americas", -180.0, -26.0, -60.0, 84.0),
    ("Oceania and elsewhere", -180.0, 180.0, -90.0, 90.0),
];

/// A language on the map, all its clips together.
struct Marker {
    code: String,
    name: String,
    place: Place,
    clips: usize,
    cer: Option<f64>,
    lid: Option<f64>,
}

/// Pictures of a report.
pub(super) struct Maps {
    /// The world, empty where no language has a place.
    pub(super) world: String,
    /// Regions with languages, those with most first: name and picture.
    pub(super) regions: Vec<(&'static str, String)>,
    /// Languages without a place.
    pub(super) elsewhere: Vec<String>,
}

/// Draws the languages of a report where they are at home.
pub(super) fn maps(report: &Report) -> Maps {
    let mut by_code: BTreeMap<&str, Vec<&LanguageRow>> = BTreeMap::new();
    for row in &report.languages {
        by_code.entry(&row.code).or_default().push(row);
    }
    let mut elsewhere = Vec::new();
    let mut markers = Vec::new();
    for (code, rows) in by_code {
        let name = rows[0].name.clone().unwrap_or_else(|| code.to_owned());
        let Some(place) = rows[0].place else {
            elsewhere.push(name);
            continue;
        };
        let weighted = |value: fn(&LanguageRow) -> Option<f64>,
                        weight: fn(&LanguageRow) -> usize| {
            let (mut sum, mut total) = (0.0, 0);
            for row in &rows {
                if let Some(value) = value(row) {
                    sum += value * weight(row) as f64;
                    total += weight(row);
                }
            }
            (total > 0).then(|| sum / total as f64)
        };
        markers.push(Marker {
            code: code.to_owned(),
            name,
            place,
            clips: rows.iter().map(|row| row.clips).sum(),
            cer: weighted(|row| row.cer, |row| row.characters),
            lid: weighted(|row| row.lid_accuracy, |row| row.clips),
        });
    }
    if markers.is_empty() {
        return Maps { world: String::new(), regions: Vec::new(), elsewhere };
    }
    let mut regions: Vec<(&'static str, Vec<&Marker>)> =
        REGIONS.iter().map(|region| (region.0, Vec::new())).collect();
    for marker in &markers {
        let Place { latitude, longitude } = marker.place;
        let region = REGIONS.iter().position(|(_, west, east, south, north)| {
            (*west..=*east).contains(&longitude) && (*south..=*north).contains(&latitude)
        });
        regions[region.unwrap_or(REGIONS.len() - 1)].1.push(marker);
    }
    regions.sort_by_key(|(_, markers)| std::cmp::Reverse(markers.len()));
    let all: Vec<&Marker> = markers.iter().collect();
    Maps {
        world: world(&all),
        regions: regions
            .into_iter()
            .filter(|(_, markers)| !markers.is_empty())
            .map(|(name, markers)| (name, region(name, &markers)))
            .collect(),
        elsewhere,
    }
}

fn world(markers: &[&Marker]) -> String {
    let view = View::world(WORLD_WIDTH);
    let mut svg =
        open(&view, "map world", "World map with a dot for each language", WORLD_PITCH, 3.1);
    let home: Vec<(f64, f64)> = markers.iter().map(|marker| view.point(marker.place)).collect();
    for (marker, (x, y)) in
        markers.iter().zip(spread(&home, 2.0 * WORLD_MARKER, view.width, view.height))
    {
        svg.push_str(&format!(
            "<circle class=\"m {}\" cx=\"{}\" cy=\"{}\" r=\"{WORLD_MARKER}\"><title>{}</title></circle>",
            classes(marker),
            number(x),
            number(y),
            escape(&title(marker))
        ));
    }
    svg.push_str("</svg>");
    svg
}

fn region(name: &str, markers: &[&Marker]) -> String {
    let places: Vec<Place> = markers.iter().map(|marker| marker.place).collect();
    let view = View::around(&places, REGION_WIDTH, LEAST_DEG);
    let label = format!("Map of {name} with a labelled marker for each language");
    let mut svg = open(&view, "map", &label, REGION_PITCH, 3.6);
    let home: Vec<(f64, f64)> = places.iter().map(|place| view.point(*place)).collect();
    let spots = spread(&home, 2.0 * REGION_MARKER + 1.0, view.width, view.height);
    for ((x, y), (from_x, from_y)) in spots.iter().zip(&home) {
        if (x - from_x).hypot(y - from_y) > REGION_MARKER {
            svg.push_str(&format!(
                "<path class=\"lead\" d=\"M{} {}L{} {}\"/><circle class=\"home\" cx=\"{0}\" cy=\"{1}\" r=\"2\"/>",
                number(*from_x),
                number(*from_y),
                number(*x),
                number(*y)
            ));
        }
    }
    for (marker, (x, y)) in markers.iter().zip(spots) {
        svg.push_str(&format!(
            "<g class=\"m {}\"><title>{}</title><circle cx=\"{x}\" cy=\"{y}\" r=\"{REGION_MARKER}\"/><text x=\"{x}\" y=\"{}\">{}</text></g>",
            classes(marker),
            escape(&title(marker)),
            number(y + 3.6),
            escape(&marker.code),
            x = number(x),
            y = number(y),
        ));
    }
    svg.push_str("</svg>");
    svg
}

/// The picture up to its land.
fn open(view: &View, class: &str, label: &str, pitch: f64, dot: f64) -> String {
    format!(
        "<svg class=\"{class}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\"><path class=\"land\" stroke-width=\"{dot}\" stroke-dasharray=\"0 {pitch}\" d=\"{}\"/>",
        number(view.width),
        number(view.height),
        escape(label),
        view.land(pitch)
    )
}

/// Classes of both scores: the page chooses which of them colours.
fn classes(marker: &Marker) -> String {
    let class = |prefix: &str, score: Score, rate: Option<f64>| match rate {
        Some(rate) => format!("{prefix}{}", score.class(rate)),
        None => format!("{prefix}x"),
    };
    format!("{} {}", class("c", Score::Cer, marker.cer), class("l", Score::Lid, marker.lid))
}

fn title(marker: &Marker) -> String {
    format!(
        "{}: CER {} %, language named in {} % of {} clips",
        marker.name,
        percent(marker.cer),
        percent(marker.lid),
        marker.clips
    )
}
