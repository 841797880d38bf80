//! Weights of a checkpoint under our names, checked as a whole before any is read.

use super::error::ImportError;
use crate::model::checkpoint::{CheckpointFile, NamedTensor};
use crate::model::{Naming, Parameters, Place, Requirement};
use std::collections::BTreeSet;

/// A checkpoint whose names are understood.
pub(super) struct Weights {
    file: CheckpointFile,
    naming: Naming,
    used: BTreeSet<String>,
}

impl Weights {
    /// Recognises the names of `file`.
    pub(super) fn new(file: CheckpointFile) -> Result<Self, ImportError> {
        let naming = Naming::detect(&file.tensors().iter().map(NamedTensor::name))
            .ok_or_else(|| ImportError::NoEncoder { name: file.name().to_owned() })?;
        Ok(Self { file, naming, used: BTreeSet::new() })
    }

    /// Recognises the names of a file of adapters.
    pub(super) fn of_adapter(file: CheckpointFile) -> Result<Self, ImportError> {
        let naming = Naming::detect_adapter(&file.tensors().iter().map(NamedTensor::name));
        let naming = naming.ok_or_else(|| ImportError::Missing {
            name: file.name().to_owned(),
            missing: vec!["encoder.layers.0.adapter_layer.norm.weight".to_owned()],
        })?;
        Ok(Self { file, naming, used: BTreeSet::new() })
    }

    /// The file, when everything has been read.
    pub(super) fn into_file(self) -> CheckpointFile {
        self.file
    }

    /// The file.
    pub(super) fn file(&self) -> &CheckpointFile {
        &self.file
    }

    /// Whose names it uses.
    pub(super) fn naming(&self) -> &Naming {
        &self.naming
    }

    /// Where `ours` is and its shape there, if it is.
    fn find(&self, ours: &str) -> Option<(Place, Vec<usize>)> {
        self.naming.places(ours).into_iter().find_map(|place| {
            let mut shape = self.file.find(&place.name)?.shape().to_vec();
            if place.third.is_some() {
                let rows = shape.first_mut()?;
                *rows = rows.is_multiple_of(3).then_some(*rows / 3)?;
            }
            Some((place, shape))
        })
    }

    /// Shape of `ours`, if it is there.
    pub(super) fn shape(&self, ours: &str) -> Option<Vec<usize>> {
        self.find(ours).map(|(_, shape)| shape)
    }

    /// Reads what a model asks for into `parameters`; everything is checked before anything is
    /// read.
    pub(super) fn read(
        &mut self,
        asked: &[Requirement],
        parameters: &Parameters,
    ) -> Result<(), ImportError> {
        let name = || self.file.name().to_owned();
        let mut places = Vec::with_capacity(asked.len());
        let mut missing = Vec::new();
        for requirement in asked {
            match self.find(&requirement.name) {
                Some((place, found)) if found != requirement.shape => {
                    return Err(ImportError::Shape {
                        name: name(),
                        tensor: place.name,
                        found,
                        expected: requirement.shape.clone(),
                    });
                }
                Some((place, _)) => places.push(place),
                None => {
                    let theirs = self.naming.places(&requirement.name).into_iter().next();
                    missing.push(theirs.map_or(requirement.name.clone(), |place| place.name));
                }
            }
        }
        if !missing.is_empty() {
            return Err(ImportError::Missing { name: name(), missing });
        }
        for (requirement, place) in asked.iter().zip(places) {
            let mut values = self.file.values(&place.name)?;
            if let Some(third) = place.third {
                let n = values.len() / 3;
                values = values[third * n..(third + 1) * n].to_vec();
            }
            parameters
                .insert(&requirement.name, values, &requirement.shape)
                .map_err(|source| ImportError::Model { name: name(), source: Box::new(source) })?;
            self.used.insert(place.name);
        }
        Ok(())
    }

    /// Names of tensors that nothing has asked for.
    pub(super) fn unused(&self) -> Vec<String> {
        let tensors = self.file.tensors().iter().filter(|tensor| !self.file.is_scale(tensor));
        self.naming.unused(tensors.map(NamedTensor::name), &self.used)
    }
}
