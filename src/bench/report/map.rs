//! Land as dots, and where a place lies on it.

use super::svg::number;
use serde::Serialize;
use std::sync::LazyLock;

/// A place on the globe.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Place {
    /// Degrees, north positive, -90 to 90.
    pub latitude: f64,
    /// Degrees, east positive, -180 to 180.
    pub longitude: f64,
}

/// Coastlines as coarse polygons.
const TABLE: &str = include_str!("land.tsv");

struct Ring {
    is_land: bool,
    /// Longitude and latitude.
    corners: Vec<(f64, f64)>,
    west: f64,
    east: f64,
    south: f64,
    north: f64,
}

static RINGS: LazyLock<Vec<Ring>> = LazyLock::new(|| {
    TABLE
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let is_land = match fields.next()? {
                "land" => true,
                "water" => false,
                _ => return None,
            };
            let corners: Vec<(f64, f64)> = fields
                .nth(1)?
                .split(' ')
                .filter_map(|corner| {
                    let (longitude, latitude) = corner.split_once(',')?;
                    Some((longitude.parse().ok()?, latitude.parse().ok()?))
                })
                .collect();
            let bound = |pick: fn(&(f64, f64)) -> f64, of: fn(f64, f64) -> f64, start: f64| {
                corners.iter().map(pick).fold(start, of)
            };
            Some(Ring {
                is_land,
                west: bound(|c| c.0, f64::min, f64::INFINITY),
                east: bound(|c| c.0, f64::max, f64::NEG_INFINITY),
                south: bound(|c| c.1, f64::min, f64::INFINITY),
                north: bound(|c| c.1, f64::max, f64::NEG_INFINITY),
                corners,
            })
        })
        .collect()
});

impl Ring {
    fn contains(&self, place: Place) -> bool {
        let (x, y) = (place.longitude, place.latitude);
        if x < self.west || x > self.east || y < self.south || y > self.north {
            return false;
        }
        let previous = self.corners.iter().cycle().skip(self.corners.len().saturating_sub(1));
        let crossings = self.corners.iter().zip(previous).filter(|((x1, y1), (x2, y2))| {
            (*y1 > y) != (*y2 > y) && x < (x2 - x1) * (y - y1) / (y2 - y1) + x1
        });
        crossings.count() % 2 == 1
    }
}

/// Whether there is land, to about a degree.
fn is_land(place: Place) -> bool {
    let within = |land| RINGS.iter().any(|ring| ring.is_land == land && ring.contains(place));
    within(true) && !within(false)
}

/// How the globe becomes flat.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Projection {
    /// Equal Earth (Šavrič, Patterson and Jenny 2018): areas are true.
    EqualEarth,
    /// Degrees as they are, narrowed by the cosine of the latitude in the middle.
    Plain { narrowing: f64 },
}

impl Projection {
    /// Height of a latitude, north positive, in units of a radian at the equator.
    fn y(self, latitude: f64) -> f64 {
        match self {
            Self::EqualEarth => {
                let t = theta(latitude);
                let t2 = t * t;
                t * (1.340_264 + t2 * (-0.081_106 + t2 * t2 * (0.000_893 + 0.003_796 * t2)))
            }
            Self::Plain { .. } => latitude.to_radians(),
        }
    }

    /// Width of a degree of longitude at a latitude, in the same units.
    fn degree_width(self, latitude: f64) -> f64 {
        match self {
            Self::EqualEarth => {
                let t = theta(latitude);
                let t2 = t * t;
                let slope = 1.340_264
                    + t2 * (3.0 * -0.081_106 + t2 * t2 * (7.0 * 0.000_893 + 9.0 * 0.003_796 * t2));
                2.0 * 3_f64.sqrt() * t.cos() / (3.0 * slope) * 1_f64.to_radians()
            }
            Self::Plain { narrowing } => narrowing * 1_f64.to_radians(),
        }
    }
}

fn theta(latitude: f64) -> f64 {
    (3_f64.sqrt() / 2.0 * latitude.to_radians().sin()).asin()
}

/// A part of the globe as a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct View {
    projection: Projection,
    /// Longitude of the vertical middle.
    middle: f64,
    north: f64,
    south: f64,
    /// Units of the picture per unit of the projection.
    scale: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl View {
    /// All inhabited land, `width` units wide.
    pub(super) fn world(width: f64) -> Self {
        let (projection, north, south) = (Projection::EqualEarth, 83.5, -56.0);
        // At the equator nothing but the Pacific lies beyond 164 degrees from the middle.
        let scale = width / (328.0 * projection.degree_width(0.0));
        let height = scale * (projection.y(north) - projection.y(south));
        // Cut in the Bering Strait, so that no land is.
        Self { projection, middle: 11.0, north, south, scale, width, height }
    }

    /// The places and some of their surroundings, `width` units wide; at least `least` degrees each way.
    pub(super) fn around(places: &[Place], width: f64, least: f64) -> Self {
        const MARGIN_DEG: f64 = 3.5;
        let bounds = |pick: fn(&Place) -> f64, low: f64, high: f64| {
            let from = places.iter().map(pick).fold(f64::INFINITY, f64::min) - MARGIN_DEG;
            let to = places.iter().map(pick).fold(f64::NEG_INFINITY, f64::max) + MARGIN_DEG;
            let grow = ((least - (to - from)) / 2.0).max(0.0);
            ((from - grow).max(low), (to + grow).min(high))
        };
        let (mut west, mut east) = bounds(|p| p.longitude, -180.0, 180.0);
        let (mut south, mut north) = bounds(|p| p.latitude, -60.0, 84.0);
        let narrowing = ((south + north) / 2.0).to_radians().cos().max(0.2);
        // Neither a strip nor a tower.
        let (wide, high) = ((east - west) * narrowing, north - south);
        if high < 0.62 * wide {
            let grow = (0.62 * wide - high) / 2.0;
            (south, north) = (south - grow, north + grow);
        } else if high > 1.05 * wide {
            let grow = (high / 1.05 - wide) / 2.0 / narrowing;
            (west, east) = (west - grow, east + grow);
        }
        let projection = Projection::Plain { narrowing };
        let scale = width / ((east - west) * projection.degree_width(0.0));
        let height = scale * (projection.y(north) - projection.y(south));
        Self { projection, middle: (west + east) / 2.0, north, south, scale, width, height }
    }

    /// Where a place lies in the picture: to the right, down.
    pub(super) fn point(&self, place: Place) -> (f64, f64) {
        let latitude = place.latitude.clamp(-90.0, 90.0);
        let mut longitude = (place.longitude - self.middle).rem_euclid(360.0);
        if longitude > 180.0 {
            longitude -= 360.0;
        }
        let x = self.width / 2.0 + longitude * self.projection.degree_width(latitude) * self.scale;
        let y = (self.projection.y(self.north) - self.projection.y(latitude)) * self.scale;
        (x, y)
    }

    /// The place at a point of the picture, if it is on the globe.
    fn place(&self, x: f64, y: f64) -> Option<Place> {
        let height = self.projection.y(self.north) - y / self.scale;
        let (mut low, mut high) = (-90.0, 90.0);
        for _ in 0..40 {
            let middle = (low + high) / 2.0;
            if self.projection.y(middle) < height { low = middle } else { high = middle }
        }
        let latitude = (low + high) / 2.0;
        let degrees =
            (x - self.width / 2.0) / (self.scale * self.projection.degree_width(latitude));
        (degrees.abs() <= 180.0).then(|| Place {
            latitude,
            longitude: (self.middle + degrees + 180.0).rem_euclid(360.0) - 180.0,
        })
    }

    /// Land as a path of rows for a dashed line: with a dash of 0 and round ends every `pitch` units is a dot.
    pub(super) fn land(&self, pitch: f64) -> String {
        let mut path = String::new();
        let rows = (self.height / (pitch * 0.866)) as usize;
        for row in 0..=rows {
            let y = pitch / 2.0 + row as f64 * pitch * 0.866;
            let first = if row % 2 == 0 { pitch / 2.0 } else { pitch };
            let columns = ((self.width - first) / pitch) as usize;
            let mut start = None;
            for column in 0..=columns + 1 {
                let x = first + column as f64 * pitch;
                let dotted =
                    column <= columns && y < self.height && self.place(x, y).is_some_and(is_land);
                match (dotted, start) {
                    (true, None) => start = Some(x),
                    (false, Some(from)) => {
                        // A little longer, so that rounding does not lose the last dot.
                        let length = x - pitch - from + 0.2;
                        path.push_str(&format!("M{} {}h{length:.1}", number(from), number(y)));
                        start = None;
                    }
                    _ => {}
                }
            }
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coastlines_are_well_formed() {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(RINGS.len(), lines.count());
        for ring in RINGS.iter() {
            assert!(ring.corners.len() >= 3);
            assert!(ring.west >= -180.0 && ring.east <= 180.0);
            assert!(ring.south >= -56.0 && ring.north <= 84.0);
        }
    }

    #[test]
    fn towns_are_on_land_and_seas_are_not() {
        let at = |latitude, longitude| is_land(Place { latitude, longitude });
        for (name, latitude, longitude) in [
            ("Paris", 48.9, 2.4),
            ("Warsaw", 52.2, 21.0),
            ("Nairobi", -1.3, 36.8),
            ("Delhi", 28.6, 77.2),
            ("Beijing", 39.9, 116.4),
            ("Denver", 39.7, -105.0),
            ("Manaus", -3.1, -60.0),
            ("Alice Springs", -23.7, 133.9),
            ("Birmingham", 52.5, -1.9),
            ("Ankara", 39.9, 32.9),
            ("Reykjavik", 64.3, -20.5),
        ] {
            assert!(at(latitude, longitude), "{name}");
        }
        for (name, latitude, longitude) in [
            ("Atlantic", 30.0, -40.0),
            ("Black Sea", 43.2, 34.0),
            ("Caspian Sea", 40.5, 51.0),
            ("Baltic Sea", 57.5, 19.9),
            ("Adriatic", 42.9, 15.5),
            ("Bay of Bengal", 15.0, 88.0),
            ("Hudson Bay", 59.0, -86.0),
            ("North Sea", 56.0, 3.0),
        ] {
            assert!(!at(latitude, longitude), "{name}");
        }
    }

    #[test]
    fn places_return_from_the_picture() {
        let greenwich = Place { latitude: 51.5, longitude: 0.0 };
        let views = [View::world(900.0), View::around(&[greenwich], 400.0, 20.0)];
        for view in views {
            for latitude in [-50.0, 0.0, 45.0, 70.0] {
                for longitude in [-20.0, 0.0, 30.0] {
                    let (x, y) = view.point(Place { latitude, longitude });
                    let back = view.place(x, y).expect("on the globe");
                    assert!((back.latitude - latitude).abs() < 1e-6, "{back:?}");
                    assert!((back.longitude - longitude).abs() < 1e-6, "{back:?}");
                }
            }
        }
    }

    #[test]
    fn a_fifth_of_the_picture_is_land() {
        let view = View::world(900.0);
        let points = (0..90).flat_map(|i| (0..40).map(move |j| (i, j)));
        let (mut land, mut all) = (0, 0);
        for (i, j) in points {
            let place = view.place(10.0 * f64::from(i) + 5.0, view.height / 40.0 * f64::from(j));
            if let Some(place) = place {
                all += 1;
                land += usize::from(is_land(place));
            }
        }
        // Without Antarctica 28 percent of what is shown; an equal-area picture must agree.
        let share = f64::from(land as u32) / f64::from(all);
        assert!((0.24..0.34).contains(&share), "{share}");
    }
}
