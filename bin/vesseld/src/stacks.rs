//! Templates with applications, and next revisions of templates: the work in a sandbox, and keeping what comes out.
//!
//! The sandbox is a VE that the engine made for this, with all its walls. What it writes is read as every import is,
//! and what it says goes into the log of the build.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use engine::{BuildWork, FailureKind, Fault, ProgressSink, StackBuild};
use registry::VeRecord;
use template::manifest::{Manifest, PackageManager};
use template::{
    Applied, InvalidOption, KeepRequest, KeepWork, Kept, PackageJob, PackagePlace, PackageTask,
    Recipe, WantedArchive,
};
use ve::{Name, Options, Stack};

use crate::host::Host;
use crate::inside::{Inside, pipe};
use crate::mechanisms::NodeMechanisms;
use crate::package_cache;
use crate::templates::{self, fault_of_import};

/// What the init of a sandbox does: nothing, and it collects the processes that others left.
pub(crate) const IDLE: [&str; 3] = ["/bin/sh", "-c", "while :; do sleep 3600; done"];

fn fault(error: &(dyn std::error::Error + 'static)) -> Fault {
    Fault::from_error(error)
}

pub(crate) fn options_check(host: &Host, stack: &Stack, options: &Options) -> Result<(), Fault> {
    let applied = host.catalogue.application(stack).map_err(|e| fault(&e))?;
    let checked: Result<Options, InvalidOption> = applied.recipe.options(options);
    checked.map(drop).map_err(|error| {
        let hint = format!("`vessel template show {stack}` tells what it offers");
        fault(&error).of_kind(FailureKind::Usage).with_hint(hint)
    })
}

/// What is done in a sandbox, if it can be.
struct Plan {
    /// The recipe of an application; an update has none.
    recipe: Option<Recipe>,
    /// What the sandbox has below it.
    base: Manifest,
}

impl Plan {
    fn of(host: &Host, build: &StackBuild) -> Result<Self, Fault> {
        let usage = |error: &(dyn std::error::Error + 'static)| {
            let hint = "see the recipes that come with the node for examples";
            fault(error).of_kind(FailureKind::Usage).with_hint(hint)
        };
        let below = (build.below())
            .ok_or_else(|| Fault::new(format!("`{}` has no application", build.stack)))?;
        let recipe = match &build.work {
            BuildWork::Update { .. } => None,
            BuildWork::Application { recipe: Some(text) } => {
                Some(Recipe::parse(text).map_err(|error| usage(&error))?)
            }
            BuildWork::Application { recipe: None } => match build.stack.parts() {
                Some((_, top)) => Some(application(host, &build.stack.of_one(&top))?.recipe),
                None => None,
            },
        };
        let base = host.catalogue.get(&below).map_err(|e| fault(&e))?;
        if let Some(recipe) = &recipe {
            let fits = recipe.fits(&base.distribution);
            fits.map_err(|error| usage(&error))?;
        }
        Ok(Self { recipe, base })
    }

    fn job<'a>(&'a self, mirror: Option<&'a str>) -> PackageJob<'a> {
        let (distribution, manager) = (&self.base.distribution, self.base.packages.manager);
        match &self.recipe {
            Some(recipe) => recipe.job(distribution, manager, mirror),
            None => PackageJob {
                task: PackageTask::Upgrade,
                place: PackagePlace::Sandbox,
                distribution,
                manager,
                mirror,
            },
        }
    }

    fn script(&self, job: &PackageJob<'_>) -> String {
        match &self.recipe {
            Some(recipe) => recipe.script(job),
            None => job.script(),
        }
    }
}

/// An application as its own template keeps it, be it that of another revision.
pub(crate) fn application(host: &Host, own: &Stack) -> Result<Applied, Fault> {
    let all = host.catalogue.names().map_err(|error| fault(&error))?;
    let recipe = policy::stacks::recipe_of(&all, own).unwrap_or_else(|| own.clone());
    let applied = host.catalogue.application(&recipe);
    applied.map_err(|error| fault(&error))
}

pub(crate) fn build_check(host: &Host, build: &StackBuild) -> Result<(), Fault> {
    let plan = Plan::of(host, build)?;
    let packages = &plan.base.packages;
    if plan.recipe.is_none() && packages.list.is_empty() {
        let name = &plan.base.name;
        let message = match packages.manager {
            PackageManager::Unknown => format!("template `{name}` has no manager of packages"),
            _ => format!("the list of packages of template `{name}` cannot be read"),
        };
        return Err(Fault::new(message)
            .of_kind(FailureKind::Usage)
            .with_hint("import a newer tree under another name instead"));
    }
    let Some(mirror) = build.mirror.as_deref().filter(|mirror| !is_mirror(mirror)) else {
        return Ok(());
    };
    let message = format!("`{mirror}` is no mirror that a sandbox can reach");
    Err(Fault::new(message)
        .of_kind(FailureKind::Usage)
        .with_hint("give a URL like `http://deb.debian.org/debian`"))
}

fn is_mirror(text: &str) -> bool {
    let known = ["http://", "https://"];
    let begins = known
        .iter()
        .any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
    let plain = |c: char| c.is_ascii_alphanumeric() || ":/.-_~%+@[]".contains(c);
    begins && text.len() <= 500 && text.chars().all(plain)
}

/// Does the work of a build in a sandbox that runs. Nothing of it runs any more after this.
pub(crate) fn install(
    mechanisms: &NodeMechanisms,
    sandbox: &VeRecord,
    build: &StackBuild,
    sink: &dyn ProgressSink,
) -> Result<(), Fault> {
    let host = &mechanisms.0;
    let plan = Plan::of(host, build)?;
    let id = sandbox.spec.id;
    let subject = format!("building `{}`", build.stack);
    let log = log_file(host, &build.stack);
    let worked = templates::with_session(sink, |session| {
        let mut inside = Inside::new(host, id, subject, &log, session)?;
        work(&mut inside, build, &plan)
    });
    // What it left running would go on changing the files.
    let killed = mechanisms.kill_stray(id);
    worked.and(killed)
}

fn work(inside: &mut Inside<'_>, build: &StackBuild, plan: &Plan) -> Result<(), Fault> {
    let job = plan.job(build.mirror.as_deref());
    let template = build.stack.template();
    let mut wanted = Vec::new();
    if let Some(lists) = job.lists() {
        let answer = inside.run(&lists)?;
        wanted = WantedArchive::parse_all(&String::from_utf8_lossy(&answer));
        let moved = package_cache::hand_in(inside.host, inside.id, template, &wanted);
        inside.note_moved("taken from those kept for the template", moved);
    }
    inside.run(&plan.script(&job))?;
    if !wanted.is_empty() {
        let moved = package_cache::take_out(inside, template, &wanted);
        inside.note_moved("kept for the template", moved);
    }
    match job.clean() {
        Some(script) => inside.run(&script).map(drop),
        None => Ok(()),
    }
}

/// Keeps the files of a sandbox that has ended.
pub(crate) fn keep(
    host: &Host,
    sandbox: &VeRecord,
    build: &StackBuild,
    sink: &dyn ProgressSink,
) -> Result<(), Fault> {
    let plan = Plan::of(host, build)?;
    let work = match (plan.recipe, &build.work) {
        (Some(recipe), _) => KeepWork::Application(Box::new(recipe)),
        (None, BuildWork::Update { from }) => KeepWork::Update(from.clone()),
        (None, BuildWork::Application { .. }) => {
            return Err(Fault::new(format!("`{}` has no application", build.stack)));
        }
    };
    let id = sandbox.spec.id;
    let root = host.root_spec(id, &sandbox.spec.stack())?;
    let io = |error: io::Error| Fault::new(format!("no pipe to the sandbox: {error}"));
    let (stream, theirs) = pipe().map_err(io)?;
    let client = host.launcher.client();
    let task = client
        .pack_tree(id, &root, theirs.as_fd(), &runtime::CgroupEntry::default())
        .map_err(|error| fault(&error))?;
    drop(theirs);
    let request = KeepRequest {
        stack: build.stack.clone(),
        work,
    };
    let kept = templates::with_session(sink, |session| {
        host.catalogue.keep(&request, File::from(stream), session)
    });
    // The reader has let go of the stream, so its writer ends.
    let end = task.wait().map_err(|error| fault(&error))?;
    match (kept, end.message) {
        (Ok(Kept::Made(_) | Kept::Unchanged), _) => Ok(()),
        (Err(_), Some(message)) if end.code != 0 && !sink.cancelled() => {
            Err(Fault::new(format!("cannot read what was built: {message}")))
        }
        (Err(error), _) => Err(fault_of_import(&error)),
    }
}

pub(crate) fn log_file(host: &Host, stack: &Stack) -> PathBuf {
    host.root.join("log").join(format!("template-{stack}.log"))
}

/// The text of a recipe by its name: of the node's own, then of those that came with the program.
pub(crate) fn find_recipe(host: &Host, name: &Name) -> Result<Option<String>, Fault> {
    let program = std::env::current_exe().ok();
    let folder = program.as_deref().and_then(Path::parent);
    // As installed, and as built in a clone.
    let beside = ["../../share/vessel/recipes", "../../recipes"];
    let shipped = beside
        .into_iter()
        .filter_map(|path| Some(folder?.join(path)));
    for folder in std::iter::once(host.root.join("recipes")).chain(shipped) {
        let path = folder.join(format!("{name}.toml"));
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let message = format!("the recipe {} cannot be read: {error}", path.display());
                return Err(Fault::new(message));
            }
        }
    }
    Ok(None)
}
