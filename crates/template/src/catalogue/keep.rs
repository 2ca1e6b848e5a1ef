//! Keeping the files of a sandbox as a template: a stack of applications, or the next revision of a template.
//!
//! Two applications on one template are not merged. Most of what packages leave is merged easily (a folder of
//! links, a stanza for each package), and the rest is not: users that got the same number, caches that are
//! made of everything there is (`ld.so.cache`, fonts, icons), files that each maintainer's script changed in its own
//! way, alternatives, generated certificates. Whoever merges has to know every program. So the second application is
//! installed on the first, by its own packages, and what comes out is right by construction. It costs the time
//! of one installation per combination, once; on disk only what differs, for equal contents are one object.

use std::io::{BufReader, Read};
use std::path::Path;

use composefs::erofs::reader::erofs_to_filesystem;
use ve::Stack;

use super::make::compose;
use super::{Catalogue, CatalogueError, IMAGE, Staging};
use crate::error::ImportError;
use crate::manifest::{ApplicationSource, Manifest, Source, Update};
use crate::recipe::Recipe;
use crate::restore;
use crate::scrub;
use crate::session::{Session, Stage};
use crate::source::archive;
use crate::source::tar::End;
use crate::store::ObjectId;

/// What a sandbox has of its own, or got for the build, and what is therefore taken from the template below again.
const RESTORED: [&str; 4] = [
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/usr/sbin/policy-rc.d",
];

/// A stack that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepRequest {
    /// What it is.
    pub stack: Stack,
    /// What was done in the sandbox.
    pub work: KeepWork,
}

/// What was done in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeepWork {
    /// An application was installed on the stack below, by this recipe.
    Application(Box<Recipe>),
    /// The packages of this revision were upgraded.
    Update(Stack),
}

/// What became of the files of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// They are a template.
    Made(Box<Manifest>),
    /// No package is another than in the revision below, so there is no new one.
    Unchanged,
}

/// An application of a template that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The recipe that it was installed by.
    pub recipe: Recipe,
}

impl Catalogue {
    /// Takes the tar stream of a sandbox's files as a template. The sandbox had the stack below as its
    /// lower layer.
    ///
    /// # Errors
    /// Names what is wrong, and leaves the catalogue as it was.
    pub fn keep(
        &self,
        request: &KeepRequest,
        stream: impl Read,
        session: Session<'_>,
    ) -> Result<Kept, ImportError> {
        self.check_free(&request.stack)?;
        let kept = self.try_keep(request, stream, session);
        if !matches!(kept, Ok(Kept::Made(_))) {
            self.collect_after_failure();
        }
        kept
    }

    fn try_keep(
        &self,
        request: &KeepRequest,
        stream: impl Read,
        session: Session<'_>,
    ) -> Result<Kept, ImportError> {
        let stack = &request.stack;
        let below = match &request.work {
            KeepWork::Update(from) => Some(from.clone()),
            KeepWork::Application(_) => stack.parts().map(|(below, _)| below),
        };
        let below = below.ok_or_else(|| CatalogueError::NotFound {
            name: format!("an application of {stack}"),
        })?;
        let base = self.get(&below)?;
        let staging = Staging::create(self)?;
        let _lock = self.lock_for_adding(stack, session)?;
        let mut ingest = self.ingest(stack, Path::new("the sandbox"), session)?;
        session.stage(Stage::ReadTree);
        let stream = BufReader::with_capacity(128 << 10, stream);
        archive::read(stream, End::Mark, &mut ingest, &mut archive::Plain)?;
        scrub::build_leftovers(&mut ingest.tree);
        self.restore(&below, &mut ingest.tree)?;
        let source = match &request.work {
            KeepWork::Update(_) => base.source.clone(),
            KeepWork::Application(recipe) => Source::Applications {
                template: below.bare().to_string(),
                template_version: version_of_template(&base),
                applications: applications(&base, recipe),
            },
        };
        let mut composed = compose(self, stack, ingest, source)?;
        if let KeepWork::Update(from) = &request.work {
            let packages = composed.manifest.packages.changes_from(&base.packages);
            if packages.is_empty() {
                return Ok(Kept::Unchanged);
            }
            composed.manifest.update = Some(Update {
                from: from.to_string(),
                from_version: base.version,
                packages,
            });
        }
        let manifest = composed.publish(self, &staging, stack)?;
        Ok(Kept::Made(Box::new(manifest)))
    }

    /// Puts back what the stack below has at the paths that only the build changed.
    fn restore(&self, below: &Stack, tree: &mut crate::tree::Tree) -> Result<(), ImportError> {
        let path = self.entry(below).join(IMAGE);
        let bytes = std::fs::read(&path).map_err(CatalogueError::system("read", &path))?;
        let damaged = |error: &dyn std::fmt::Display| CatalogueError::Damaged {
            name: below.to_string(),
            what: format!("its image cannot be read: {error}"),
        };
        let filesystem = erofs_to_filesystem::<ObjectId>(&bytes)
            .map_err(|error| damaged(&format!("{error:#}")))?;
        for name in RESTORED {
            restore::restore(&filesystem, tree, name).map_err(|error| damaged(&error))?;
        }
        Ok(())
    }

    /// The recipe of an application, as the application's own template has it.
    ///
    /// # Errors
    /// As [`Catalogue::get`]; [`CatalogueError::Damaged`] if the template is of something else.
    pub fn application(&self, stack: &Stack) -> Result<Applied, CatalogueError> {
        let manifest = self.get(stack)?;
        match manifest.source {
            Source::Applications { applications, .. } => {
                let last = applications.into_iter().next_back();
                last.map(|last| Applied {
                    recipe: last.recipe,
                })
            }
            _ => None,
        }
        .ok_or_else(|| CatalogueError::Damaged {
            name: stack.to_string(),
            what: "it holds no recipe".to_owned(),
        })
    }
}

fn version_of_template(base: &Manifest) -> String {
    match &base.source {
        Source::Applications {
            template_version, ..
        } => template_version.clone(),
        _ => base.version.clone(),
    }
}

fn applications(base: &Manifest, recipe: &Recipe) -> Vec<ApplicationSource> {
    let mut applications = match &base.source {
        Source::Applications { applications, .. } => applications.clone(),
        _ => Vec::new(),
    };
    applications.push(ApplicationSource {
        name: recipe.name.clone(),
        recipe: recipe.clone(),
    });
    applications
}
