//! What can be asked of the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;
use policy::limits::Machine;
use registry::FirstBoot;
use ve::{Bytes, Name, Options, Revision, Setting, Stack, StackReference, VeId};

use crate::update::Update;

/// What the engine must know of its node to decide.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// The first number that its VEs may have.
    pub first_id: VeId,
    /// The last one.
    pub last_id: VeId,
    /// Ranges that addresses are given from: one address of each to a VE that asks for `auto`.
    pub ranges: Vec<IpNet>,
    /// What its machine has.
    pub machine: Machine,
}

/// A request to make a VE.
#[derive(Clone, Debug)]
pub struct CreateRequest {
    /// Its name.
    pub name: Name,
    /// Its template.
    pub template: Name,
    /// Which revision of that; without one the newest.
    pub revision: Option<Revision>,
    /// The applications on it, with what is chosen of what each offers.
    pub applications: BTreeMap<Name, Options>,
    /// What differs from the defaults.
    pub settings: Vec<Setting>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What its first start writes into it.
    pub first_boot: FirstBoot,
}

/// How a VE is to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopManner {
    /// Its processes are killed.
    Kill,
    /// Its init is asked; its processes are killed when this is over.
    Ask {
        /// How long to wait.
        timeout: Duration,
    },
}

/// Something asked of one VE.
#[derive(Clone, Debug)]
pub enum VeRequest {
    /// Run its init.
    Start,
    /// End its processes.
    Stop(StopManner),
    /// End its processes and run its init again.
    Restart(StopManner),
    /// Freeze its processes.
    Pause,
    /// Put its processes on disk.
    Suspend,
    /// Let them go on, from standing still or from disk.
    Resume,
    /// Give back files that are equal to its template's.
    Compact,
    /// Remove it.
    Delete {
        /// Also when it runs.
        force: bool,
    },
    /// Let it have other memory beyond its limit than it was given so far, as its rules of growth say.
    Grow {
        /// How much beyond its limit.
        given: Bytes,
        /// What called for it, for people.
        cause: String,
    },
    /// Put applications below its files, and take others away.
    Applications {
        /// Applications to add, with what is chosen of what each offers.
        add: BTreeMap<Name, Options>,
        /// Applications to take away.
        remove: BTreeSet<Name>,
    },
    /// Bring it to another version of its template.
    Update(Update),
    /// Change its settings.
    Set {
        /// The settings to change.
        settings: Vec<Setting>,
        /// Labels to set, or with `None` to take away.
        labels: BTreeMap<String, Option<String>>,
    },
}

/// Something asked of the catalogue of templates.
#[derive(Clone, Debug)]
pub enum TemplateRequest {
    /// Build one from a distribution's packages.
    Build {
        /// Its name.
        name: Name,
        /// The distribution's release, as `debian-12`.
        suite: String,
        /// Packages beyond the usual ones.
        packages: Vec<String>,
        /// Where the packages come from, if not from the distribution's own servers.
        mirror: Option<String>,
    },
    /// Make one out of a root file system that exists.
    Import {
        /// Its name.
        name: Name,
        /// The file or folder, or `oci:PATH[:TAG]` for an image of an OCI layout.
        source: String,
    },
    /// Read every file of one, and compare it with what was recorded.
    Verify {
        /// Its name, with applications.
        name: Stack,
    },
    /// Remove those that no VE uses.
    Remove {
        /// Its name, with applications; without a revision all of them.
        name: StackReference,
    },
    /// Build an application on another template.
    Application(StackBuild),
    /// Make the next revision of one, if any of its packages is to be had in a newer version.
    Update {
        /// Its name.
        name: Name,
        /// Where the packages come from, if not from where it says itself.
        mirror: Option<String>,
    },
}

/// A stack to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackBuild {
    /// What it will be.
    pub stack: Stack,
    /// What is done for it.
    pub work: BuildWork,
    /// Where packages come from, if not from where the template below says.
    pub mirror: Option<String>,
}

/// What is done in a sandbox to make a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildWork {
    /// Its last application is installed on the stack below.
    Application {
        /// The application's recipe, as its text; without one that of its own template.
        recipe: Option<String>,
    },
    /// The packages of this revision of the template are upgraded.
    Update {
        /// That revision.
        from: Stack,
    },
}

impl StackBuild {
    /// What the sandbox has below it; nothing where there is no application to install.
    #[must_use]
    pub fn below(&self) -> Option<Stack> {
        match &self.work {
            BuildWork::Application { .. } => self.stack.parts().map(|(below, _)| below),
            BuildWork::Update { from } => Some(from.clone()),
        }
    }
}

/// Any request.
#[derive(Clone, Debug)]
pub enum Request {
    /// Make a VE.
    Create(CreateRequest),
    /// Something asked of a VE, by name or number.
    Ve {
        /// The VE's name or number.
        reference: String,
        /// What is asked.
        request: VeRequest,
    },
    /// Something asked of the catalogue.
    Template(TemplateRequest),
}

impl VeRequest {
    /// The verb, as the journal and the CLI write it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop(_) => "stop",
            Self::Restart(_) => "restart",
            Self::Pause => "pause",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Compact => "compact",
            Self::Applications { .. } => "applications",
            Self::Delete { .. } => "delete",
            Self::Grow { .. } => "grow",
            Self::Update(_) => "update",
            Self::Set { .. } => "set",
        }
    }

    /// What is asked, in one line for people who read the journal.
    pub(crate) fn summary(&self) -> String {
        match self {
            Self::Start | Self::Pause | Self::Suspend | Self::Resume | Self::Compact => {
                String::new()
            }
            Self::Stop(manner) | Self::Restart(manner) => match manner {
                StopManner::Kill => "kill".to_owned(),
                StopManner::Ask { timeout } => format!("timeout {}s", timeout.as_secs()),
            },
            Self::Update(update) => {
                format!(
                    "timeout {}s, to {}",
                    update.stop_timeout.as_secs(),
                    update.to
                )
            }
            Self::Grow { given, cause } => format!("{given} beyond the limit: {cause}"),
            Self::Delete { force } => if *force { "force" } else { "" }.to_owned(),
            Self::Applications { add, remove } => add
                .keys()
                .map(|name| format!("+{name}"))
                .chain(remove.iter().map(|name| format!("-{name}")))
                .collect::<Vec<_>>()
                .join(", "),
            Self::Set { settings, labels } => settings
                .iter()
                .map(|setting| setting.key().to_string())
                .chain(labels.keys().map(|label| format!("label {label}")))
                .collect::<Vec<_>>()
                .join(", "),
        }
    }
}

impl TemplateRequest {
    /// What it is about: the template's name, with its applications, as people write it.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::Build { name, .. } | Self::Import { name, .. } | Self::Update { name, .. } => {
                name.to_string()
            }
            Self::Verify { name } => name.to_string(),
            Self::Remove { name } => name.to_string(),
            Self::Application(build) => build.stack.to_string(),
        }
    }

    /// What all that is asked of one template, whatever its revision, has in common.
    pub(crate) fn lane(&self) -> StackReference {
        match self {
            Self::Build { name, .. } | Self::Import { name, .. } | Self::Update { name, .. } => {
                name.clone().into()
            }
            Self::Verify { name } => name.clone().into(),
            Self::Remove { name } => name.clone(),
            Self::Application(build) => build.stack.clone().into(),
        }
        .of_any_revision()
    }

    /// What is asked, in one line for people who read the journal.
    pub(crate) fn summary(&self) -> String {
        match self {
            // A recipe is long, and kept with what it makes.
            Self::Application(build) => format!("application {}", build.stack),
            request => format!("{request:?}"),
        }
    }

    /// The verb, as the journal and the CLI write it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Build { .. } | Self::Application(_) => "template-build",
            Self::Import { .. } => "template-import",
            Self::Verify { .. } => "template-verify",
            Self::Remove { .. } => "template-remove",
            Self::Update { .. } => "template-update",
        }
    }
}
