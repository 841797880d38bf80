//! Places on Earth as vectors: the closed form of the 299 geolocation features of
//! lang2vec/URIEL (Littell et al. 2017) and its inverse.
//!
//! Anchor `k` of 1 to 299 lies at `z = -1 + 2k/299` on a spiral of golden angles; a place is
//! its great-circle distance to every anchor, as a share of half the circumference.

use std::f64::consts::PI;
use std::sync::LazyLock;

/// Length of a geolocation vector.
pub const LOCATION_DIM: usize = 299;

/// A place, degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GeoPoint {
    /// Degrees north, -90 to 90.
    pub latitude: f64,
    /// Degrees east, -180 to 180.
    pub longitude: f64,
}

impl GeoPoint {
    /// The unit vector from the centre of the Earth.
    fn direction(self) -> [f64; 3] {
        let (latitude, longitude) = (self.latitude.to_radians(), self.longitude.to_radians());
        [latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()]
    }

    /// Great-circle distance in degrees, 0 to 180.
    #[must_use]
    pub fn degrees_to(self, other: Self) -> f64 {
        dot(self.direction(), other.direction()).clamp(-1.0, 1.0).acos().to_degrees()
    }
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Unit vectors of the anchors.
static ANCHORS: LazyLock<Vec<[f64; 3]>> = LazyLock::new(|| {
    let golden_angle = 180.0 * (3.0 - 5.0_f64.sqrt());
    (1..=LOCATION_DIM)
        .map(|k| {
            let z = -1.0 + 2.0 * k as f64 / LOCATION_DIM as f64;
            let place = GeoPoint {
                latitude: z.asin().to_degrees(),
                longitude: 180.0 - k as f64 * golden_angle,
            };
            place.direction()
        })
        .collect()
});

/// The inverse of the 3 × 3 matrix of the anchors' products, for least squares.
static INVERSE: LazyLock<[[f64; 3]; 3]> = LazyLock::new(|| {
    let mut m = [[0.0; 3]; 3];
    for anchor in ANCHORS.iter() {
        for (row, a) in m.iter_mut().zip(anchor) {
            for (value, b) in row.iter_mut().zip(anchor) {
                *value += a * b;
            }
        }
    }
    // Of a symmetric matrix the cofactors are the adjugate.
    let cofactor = |i: usize, j: usize| {
        let (r, s) = ((i + 1) % 3, (i + 2) % 3);
        let (c, d) = ((j + 1) % 3, (j + 2) % 3);
        m[r][c] * m[s][d] - m[r][d] * m[s][c]
    };
    let determinant: f64 = (0..3).map(|j| m[0][j] * cofactor(0, j)).sum();
    std::array::from_fn(|i| std::array::from_fn(|j| cofactor(j, i) / determinant))
});

/// The geolocation vector of `place`: 299 values from 0 to 1, rounded to four decimals as the
/// published ones are.
#[must_use]
pub fn location_vector(place: GeoPoint) -> Vec<f32> {
    let point = place.direction();
    ANCHORS
        .iter()
        .map(|&anchor| {
            let share = dot(point, anchor).clamp(-1.0, 1.0).acos() / PI;
            ((share * 1e4).round() / 1e4) as f32
        })
        .collect()
}

/// The place that fits `vector`, as [`location_vector`] makes it or a model predicts it, best
/// (least squares on the cosines of the angles); `None` where it points nowhere.
#[must_use]
pub fn place_of(vector: &[f32]) -> Option<GeoPoint> {
    if vector.len() != LOCATION_DIM {
        return None;
    }
    let mut sum = [0.0; 3];
    for (anchor, &value) in ANCHORS.iter().zip(vector) {
        let cosine = (PI * f64::from(value).clamp(0.0, 1.0)).cos();
        for (s, a) in sum.iter_mut().zip(anchor) {
            *s += cosine * a;
        }
    }
    let point: [f64; 3] = std::array::from_fn(|i| dot(INVERSE[i], sum));
    place_at(point, 1e-6)
}

/// The middle of places with weights: the direction of the weighted mean of their unit
/// vectors; `None` without any, or where they cancel out.
#[must_use]
pub fn mean_place(places: impl Iterator<Item = (GeoPoint, f64)>) -> Option<GeoPoint> {
    let mut sum = [0.0; 3];
    let mut total = 0.0;
    for (place, weight) in places {
        total += weight;
        for (s, d) in sum.iter_mut().zip(place.direction()) {
            *s += weight * d;
        }
    }
    place_at(sum, 1e-6 * total)
}

/// The place in the direction of `point`, if that is longer than `shortest`.
fn place_at(point: [f64; 3], shortest: f64) -> Option<GeoPoint> {
    let length = dot(point, point).sqrt();
    (length > shortest).then(|| GeoPoint {
        latitude: (point[2] / length).clamp(-1.0, 1.0).asin().to_degrees(),
        longitude: point[1].atan2(point[0]).to_degrees(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn english_lies_where_the_published_vectors_put_it() {
        let vector = location_vector(GeoPoint { latitude: 53.0, longitude: -1.0 });
        assert_eq!(vector.len(), 299);
        assert_eq!(vector[..4], [0.7665, 0.7924, 0.8278, 0.7214]);
        assert_eq!(vector[296..], [0.1579, 0.2240, 0.2056]);
    }

    #[test]
    fn a_place_is_found_again() {
        for (latitude, longitude) in
            [(0.0, 0.0), (53.0, -1.0), (-38.29, 176.54), (90.0, 0.0), (-41.0, -179.9)]
        {
            let place = GeoPoint { latitude, longitude };
            let found = place_of(&location_vector(place)).expect("points somewhere");
            assert!(place.degrees_to(found) < 0.02, "{place:?} found at {found:?}");
        }
        assert_eq!(place_of(&[0.5; LOCATION_DIM]), None);
        assert_eq!(place_of(&[0.1]), None);
    }

    #[test]
    fn the_middle_lies_on_the_great_circle() {
        let at = |latitude, longitude| GeoPoint { latitude, longitude };
        let middle = mean_place([(at(0.0, 170.0), 1.0), (at(0.0, -170.0), 1.0)].into_iter());
        assert!(middle.expect("a place").degrees_to(at(0.0, 180.0)) < 1e-9);
        let opposite = [(at(0.0, 0.0), 1.0), (at(0.0, 180.0), 1.0)];
        assert_eq!(mean_place(opposite.into_iter()), None);
        assert_eq!(mean_place(std::iter::empty()), None);
    }
}
