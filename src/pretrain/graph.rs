//! Walking a stored graph to a near vector: hierarchical navigable small worlds (Malkov and
//! Yashunin 2016), step for step as faiss walks it, so that labels equal those of faiss.

use asr_kernels::nearest::squared_distance;

/// A graph over vectors, checked so that no walk leaves it.
#[derive(Debug, Clone)]
pub(super) struct Graph {
    /// Where the neighbours of each level begin and end within a node's.
    level_ends: Vec<usize>,
    /// Where the neighbours of each node begin.
    offsets: Vec<usize>,
    /// -1 where there are fewer than there may be.
    neighbours: Vec<i32>,
    entry: usize,
    max_level: usize,
    /// Candidates kept while searching the lowest level (`efSearch`).
    breadth: usize,
}

/// What a walk needs to remember; made once for many.
#[derive(Debug)]
pub(super) struct Walk {
    /// The walk in which each node was seen last.
    seen: Vec<u32>,
    walk: u32,
    candidates: Vec<Candidate>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    distance: f32,
    /// `None` once it was taken; its distance still counts.
    node: Option<usize>,
}

impl Graph {
    /// The graph that faiss stored: ends of the levels' neighbours, levels of each node, where
    /// its neighbours begin, all neighbours, the entry with its level, the breadth of searches.
    /// `None` if a walk could leave it.
    pub(super) fn new(
        level_ends: &[i32],
        levels: &[i32],
        offsets: &[u64],
        neighbours: Vec<i32>,
        (entry, max_level): (i32, i32),
        breadth: i32,
    ) -> Option<Self> {
        let count = levels.len();
        let level_ends: Vec<usize> =
            level_ends.iter().map(|&end| usize::try_from(end).ok()).collect::<Option<_>>()?;
        let offsets: Vec<usize> =
            offsets.iter().map(|&start| usize::try_from(start).ok()).collect::<Option<_>>()?;
        let levels: Vec<usize> =
            levels.iter().map(|&n| usize::try_from(n).ok()).collect::<Option<_>>()?;
        let is_sound = level_ends.first() == Some(&0)
            && level_ends.is_sorted()
            && offsets.len() == count + 1
            && offsets.first() == Some(&0)
            && offsets.last() == Some(&neighbours.len());
        if !is_sound {
            return None;
        }
        for (node, &n_levels) in levels.iter().enumerate() {
            let &end = level_ends.get(n_levels).filter(|_| n_levels > 0)?;
            if offsets[node].checked_add(end) != Some(offsets[node + 1]) {
                return None;
            }
            for level in 0..n_levels {
                let start = offsets[node];
                let here = &neighbours[start + level_ends[level]..start + level_ends[level + 1]];
                for &neighbour in here.iter().take_while(|&&neighbour| neighbour >= 0) {
                    // A neighbour on a level has that level itself.
                    levels.get(neighbour as usize).filter(|&&other| other > level)?;
                }
            }
        }
        let (entry, max_level) = (usize::try_from(entry).ok()?, usize::try_from(max_level).ok()?);
        let breadth = usize::try_from(breadth).ok().filter(|b| (1..=1 << 16).contains(b))?;
        levels.get(entry).filter(|&&n_levels| n_levels > max_level)?;
        Some(Self { level_ends, offsets, neighbours, entry, max_level, breadth })
    }

    /// Number of nodes.
    pub(super) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// A walk that remembers nothing yet.
    pub(super) fn walk(&self) -> Walk {
        Walk { seen: vec![0; self.len()], walk: 0, candidates: Vec::with_capacity(self.breadth) }
    }

    fn neighbours(&self, node: usize, level: usize) -> impl Iterator<Item = usize> + '_ {
        let start = self.offsets[node];
        let here =
            &self.neighbours[start + self.level_ends[level]..start + self.level_ends[level + 1]];
        here.iter().take_while(|&&neighbour| neighbour >= 0).map(|&neighbour| neighbour as usize)
    }

    /// The node found nearest to `frame` among `vectors` `(nodes, dim)`: most often, not
    /// always, the nearest there is.
    pub(super) fn nearest(&self, frame: &[f32], vectors: &[f32], walk: &mut Walk) -> usize {
        let dim = frame.len();
        let distance =
            |node: usize| squared_distance(frame, &vectors[node * dim..(node + 1) * dim]);
        let mut here = (distance(self.entry), self.entry);
        for level in (1..=self.max_level).rev() {
            loop {
                let before = here.1;
                for node in self.neighbours(before, level) {
                    let away = distance(node);
                    if away < here.0 {
                        here = (away, node);
                    }
                }
                if here.1 == before {
                    break;
                }
            }
        }
        walk.begin();
        walk.see(here.1);
        walk.push(here, self.breadth);
        let mut best = here;
        while let Some((away, node)) = walk.take() {
            if walk.below(away) >= self.breadth {
                break;
            }
            for node in self.neighbours(node, 0) {
                if !walk.see(node) {
                    continue;
                }
                let found = (distance(node), node);
                if found.0 < best.0 {
                    best = found;
                }
                walk.push(found, self.breadth);
            }
        }
        best.1
    }
}

impl Walk {
    fn begin(&mut self) {
        self.candidates.clear();
        self.walk = self.walk.wrapping_add(1);
        if self.walk == 0 {
            self.seen.fill(0);
            self.walk = 1;
        }
    }

    /// Whether a node is seen for the first time.
    fn see(&mut self, node: usize) -> bool {
        std::mem::replace(&mut self.seen[node], self.walk) != self.walk
    }

    /// Adds a candidate; of more than `breadth` the farthest goes, taken or not.
    fn push(&mut self, (distance, node): (f32, usize), breadth: usize) {
        let candidate = Candidate { distance, node: Some(node) };
        if self.candidates.len() < breadth {
            self.candidates.push(candidate);
            return;
        }
        let farthest = self.candidates.iter_mut().max_by(|a, b| a.distance.total_cmp(&b.distance));
        if let Some(farthest) = farthest.filter(|farthest| distance < farthest.distance) {
            *farthest = candidate;
        }
    }

    /// Takes the nearest candidate that was not taken yet.
    fn take(&mut self) -> Option<(f32, usize)> {
        let left = self.candidates.iter_mut().filter(|candidate| candidate.node.is_some());
        let nearest = left.min_by(|a, b| a.distance.total_cmp(&b.distance))?;
        Some((nearest.distance, nearest.node.take()?))
    }

    /// How many candidates, taken or not, are nearer than `distance`.
    fn below(&self, distance: f32) -> usize {
        self.candidates.iter().filter(|candidate| candidate.distance < distance).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four nodes on a line, each linked to its neighbours; node 0 also has a level above,
    /// without a neighbour there.
    fn line() -> [Vec<i32>; 2] {
        let levels = vec![2, 1, 1, 1];
        let neighbours = vec![1, -1, -1, 0, 2, 1, 3, 2, -1];
        [levels, neighbours]
    }

    fn graph(levels: &[i32], neighbours: &[i32], entry: (i32, i32)) -> Option<Graph> {
        let mut offsets = vec![0_u64];
        for &n in levels {
            offsets.push(offsets[offsets.len() - 1] + [0, 2, 3][n.clamp(0, 2) as usize]);
        }
        Graph::new(&[0, 2, 3], levels, &offsets, neighbours.to_vec(), entry, 2)
    }

    #[test]
    fn a_walk_along_a_line_arrives() {
        let [levels, neighbours] = line();
        let graph = graph(&levels, &neighbours, (0, 1)).expect("sound");
        let vectors = [0.0, 1.0, 2.0, 3.0];
        let mut walk = graph.walk();
        for (frame, want) in [(-1.0, 0), (1.2, 1), (2.4, 2), (7.0, 3), (0.4, 0)] {
            assert_eq!(graph.nearest(&[frame], &vectors, &mut walk), want, "{frame}");
        }
        assert!(graph.nearest(&[f32::NAN], &vectors, &mut walk) < 4);
    }

    #[test]
    fn graphs_that_could_be_left_are_refused() {
        let [levels, neighbours] = line();
        for (at, wrong) in [(0, 4), (5, 100), (2, 1)] {
            let mut changed = neighbours.clone();
            changed[at] = wrong;
            assert!(graph(&levels, &changed, (0, 1)).is_none(), "neighbour {at}: {wrong}");
        }
        for entry in [(4, 0), (-1, 0), (1, 1), (0, 2), (0, -1)] {
            assert!(graph(&levels, &neighbours, entry).is_none(), "entry {entry:?}");
        }
        for wrong in [-1, 0, 3] {
            assert!(graph(&[2, 1, wrong, 1], &neighbours, (0, 1)).is_none(), "levels {wrong}");
        }
        assert!(graph(&levels, &neighbours[..8], (0, 1)).is_none());
        assert!(Graph::new(&[], &[], &[0], Vec::new(), (0, 0), 2).is_none());
    }
}
