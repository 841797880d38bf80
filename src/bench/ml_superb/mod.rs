//! ML-SUPERB: the corpus as its releases lie on disk, and its published results.

pub mod published;
