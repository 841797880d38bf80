//! Markers that would cover each other are moved apart.

/// Rounds of pushing; enough for a few hundred markers to settle.
const ROUNDS: usize = 400;
/// Share of the way back home that a marker takes per round.
const HOMING: f64 = 0.02;

/// Moves points until they are about `distance` apart and at least half that from the edges.
///
/// Each stays as near to where it belongs as its neighbours allow. The same points give the same result.
pub(super) fn spread(
    home: &[(f64, f64)],
    distance: f64,
    width: f64,
    height: f64,
) -> Vec<(f64, f64)> {
    // Points at the very same place part in directions of their own.
    let mut points: Vec<(f64, f64)> = home
        .iter()
        .enumerate()
        .map(|(i, &(x, y))| {
            let angle = i as f64 * 2.399_963;
            (x + 0.01 * angle.cos(), y + 0.01 * angle.sin())
        })
        .collect();
    let margin = distance / 2.0;
    for round in 0..ROUNDS {
        // The last rounds only push, so that homing leaves no overlap.
        let homing = if round < ROUNDS * 3 / 4 { HOMING } else { 0.0 };
        for (point, home) in points.iter_mut().zip(home) {
            point.0 += homing * (home.0 - point.0);
            point.1 += homing * (home.1 - point.1);
        }
        for i in 0..points.len() {
            for j in i + 1..points.len() {
                let (dx, dy) = (points[j].0 - points[i].0, points[j].1 - points[i].1);
                let apart = dx.hypot(dy);
                if apart < distance && apart > 0.0 {
                    let push = (distance - apart) / 2.0 / apart;
                    points[i].0 -= push * dx;
                    points[i].1 -= push * dy;
                    points[j].0 += push * dx;
                    points[j].1 += push * dy;
                }
            }
        }
        for point in &mut points {
            point.0 = point.0.clamp(margin, (width - margin).max(margin));
            point.1 = point.1.clamp(margin, (height - margin).max(margin));
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crowded_markers_part_and_lonely_ones_stay() {
        let mut home = vec![(50.0, 50.0); 12];
        home.push((180.0, 180.0));
        let points = spread(&home, 10.0, 200.0, 200.0);
        for (i, a) in points.iter().enumerate() {
            for b in &points[i + 1..] {
                assert!((a.0 - b.0).hypot(a.1 - b.1) > 9.0, "{a:?} {b:?}");
            }
            assert!((a.0 - home[i].0).hypot(a.1 - home[i].1) < 25.0, "{a:?}");
        }
        assert!((points[12].0 - 180.0).hypot(points[12].1 - 180.0) < 0.1);
        assert_eq!(points, spread(&home, 10.0, 200.0, 200.0));
    }

    #[test]
    fn markers_stay_inside() {
        for (x, y) in spread(&[(0.0, 0.0), (0.0, 0.0), (100.0, 30.0)], 12.0, 100.0, 40.0) {
            assert!((6.0..=94.0).contains(&x) && (6.0..=34.0).contains(&y), "{x} {y}");
        }
    }
}
