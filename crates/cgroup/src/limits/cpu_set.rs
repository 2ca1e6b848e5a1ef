//! The processors that a VE may run on.

use std::path::Path;

use rustix::io::Errno;

use super::{Refusal, unlimited_or_unsupported};
use crate::error::FileError;
use crate::files::Directory;
use crate::group::VeGroup;
use crate::layout::{Controller, Home};
use crate::node::{enable, inherit_cpuset};

impl VeGroup {
    pub(super) fn apply_cpu_set(&self, processors: &[u32]) -> Result<(), Refusal> {
        match self.inner.layout.home(Controller::CpuSet) {
            None => unlimited_or_unsupported(processors.is_empty(), Controller::CpuSet),
            Some(Home::V2) => self.apply_cpu_set_v2(processors),
            Some(Home::V1(at)) => self.apply_cpu_set_v1(at, processors),
        }
    }

    pub(super) fn apply_cpu_set_v2(&self, processors: &[u32]) -> Result<(), Refusal> {
        let Some(directory) = &self.inner.v2 else {
            return Ok(());
        };
        let file = self.file("cpuset.cpus");
        if !directory.has(&file) {
            if processors.is_empty() {
                return Ok(());
            }
            if let Some(unified) = self.inner.layout.unified() {
                enable(&Directory::open(&unified.base)?, "cpuset")?;
            }
            enable(directory, "cpuset")?;
        }
        if !processors.is_empty() {
            return Ok(directory.write(&file, &list(processors))?);
        }
        // An empty line is "those of the group above", which the kernel takes from groups without
        // processes only (ENOSPC): with processes, name them.
        match directory.write(&file, "\n") {
            Err(error) if error.is(Errno::NOSPC) => {
                let above = directory.read(Path::new("cpuset.cpus.effective"))?;
                Ok(directory.write(&file, above.trim())?)
            }
            other => Ok(other?),
        }
    }

    /// On v1 the group is made at the first mask and stays until the VE's end, as taking all
    /// processes out of it again would gain nothing.
    pub(super) fn apply_cpu_set_v1(&self, at: usize, processors: &[u32]) -> Result<(), Refusal> {
        let Some(hierarchy) = self.inner.layout.hierarchies().get(at) else {
            return Ok(());
        };
        let file = self.file("cpuset.cpus");
        let value = |above: &Directory| match processors {
            [] => Ok(above.read(Path::new("cpuset.cpus"))?.trim().to_owned()),
            _ => Ok::<_, FileError>(list(processors)),
        };
        // Mounted together with others, it has been there from the beginning.
        if let Some(directory) = self.inner.v1.get(at).and_then(Option::as_ref) {
            return Ok(directory.write(&file, &value(directory)?)?);
        }
        let existing = self.inner.cpuset_group()?.filter(|group| group.has(&file));
        if let Some(directory) = existing {
            return Ok(directory.write(&file, &value(&directory)?)?);
        }
        if processors.is_empty() {
            return Ok(());
        }
        let directory = self.inner.make_cpuset_group(&hierarchy.mount_point)?;
        directory.make(&self.below)?;
        inherit_cpuset(&directory, &directory, &self.below)?;
        let masked = directory.write(&file, &list(processors));
        let moved = masked.and_then(|()| self.move_all(&directory));
        if let Err(error) = moved {
            // An empty group would catch the next process that enters, and only that.
            crate::remove::one(&directory, &self.below).ok();
            return Err(error.into());
        }
        Ok(())
    }

    /// Moves all processes of the VE into its group in a hierarchy, until none is left elsewhere: a
    /// process that forks while it is moved may leave its child behind.
    fn move_all(&self, directory: &Directory) -> Result<(), FileError> {
        const ROUNDS_MAX: u32 = 16;
        let file = self.file("cgroup.procs");
        for _ in 0..ROUNDS_MAX {
            let there = crate::process::pids(&directory.read(&file)?);
            let all = self.process_list()?;
            let left: Vec<_> = all.into_iter().filter(|pid| !there.contains(pid)).collect();
            if left.is_empty() {
                return Ok(());
            }
            for pid in left {
                match directory.write(&file, &pid.to_string()) {
                    Err(error) if error.is(Errno::SRCH) => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }
}

fn list(processors: &[u32]) -> String {
    processors
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(",")
}
