//! `install`: puts what was built where a host's own things do not lie, and `uninstall`.
//!
//! ```text
//! /usr/local/lib/vessel/         the programs and CRIU's plugin, which look for each other there
//! /usr/local/bin/vessel          links to the programs
//! /usr/local/sbin/vesseld
//! /usr/local/share/              recipes of applications, completion for bash, manual pages
//! /etc/systemd/system/           the node as a service, and its end before the host's
//! ```
//!
//! Nothing is started or enabled: what to type next is printed. The last file that is written
//! names all others, and `uninstall` removes those and nothing else.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::up::PARTS;
use crate::workspace::Workspace;
use crate::{completion, process};

/// Folder of the programs.
pub(crate) const PROGRAMS: &str = "usr/local/lib/vessel";

/// Links: where, and to what.
const LINKS: [(&str, &str); 2] = [
    ("usr/local/bin/vessel", "../lib/vessel/vessel"),
    ("usr/local/sbin/vesseld", "../lib/vessel/vesseld"),
];

/// Units: where they lie here, and their folder there.
const UNITS: [&str; 2] = [
    "bin/vesseld/vesseld.service",
    "bin/vesseld/vessel-shutdown.service",
];
const UNITS_FOLDER: &str = "etc/systemd/system";

/// Recipes: where they lie here, and there.
const RECIPES: [&str; 2] = ["recipes", "usr/local/share/vessel/recipes"];

const COMPLETION: &str = "usr/local/share/bash-completion/completions/vessel";
const MANUAL: &str = "usr/local/share/man/man1";

/// Names every other file, one a line.
const LIST: &str = "usr/local/lib/vessel/installed";

const NEXT: &str = "
What to type next:

  systemctl daemon-reload
  systemctl enable --now vesseld vessel-shutdown
  vessel doctor
  vessel init --pool-size 40G
  vessel template build debian-12

`make uninstall` takes the files away again; the node is removed by `vessel node destroy`.";

/// Builds and installs below `/`, or below the folder that is given, as for a package.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let root = below(arguments)?;
    process::need_root("installing")?;
    completion::run(workspace)?;
    let count = install(workspace, &root)?;
    println!("{count} files are below {}", root.display());
    if root == Path::new("/") {
        println!("{NEXT}");
    }
    Ok(())
}

/// Puts what was built below `root`; how many files that are.
pub(crate) fn install(workspace: &Workspace, root: &Path) -> Result<usize> {
    let mut installed = Installed {
        root: root.to_owned(),
        paths: Vec::new(),
    };
    let built = workspace.target().join("release");
    for (_, name) in PARTS {
        installed.copy(&built.join(name), &format!("{PROGRAMS}/{name}"), 0o755)?;
    }
    for (place, target) in LINKS {
        installed.link(place, target)?;
    }
    for unit in UNITS {
        let name = unit.rsplit('/').next().unwrap_or(unit);
        let place = format!("{UNITS_FOLDER}/{name}");
        installed.copy(&workspace.root().join(unit), &place, 0o644)?;
    }
    let share = workspace.target().join("share");
    installed.copy(&share.join("completions/vessel.bash"), COMPLETION, 0o644)?;
    installed.copy_all(&share.join("man"), MANUAL)?;
    let [here, there] = RECIPES;
    installed.copy_all(&workspace.root().join(here), there)?;
    installed.finish()
}

/// Removes what was installed. The service must not run: it would go on with programs that are gone.
pub(crate) fn remove(arguments: &[String]) -> Result<()> {
    let root = below(arguments)?;
    process::need_root("uninstalling")?;
    if root == Path::new("/") && process::succeeds(&mut systemctl(&["is-active", "vesseld"])) {
        bail!("the node runs: `systemctl disable --now vesseld vessel-shutdown` first");
    }
    let list = root.join(LIST);
    let text = fs::read_to_string(&list)
        .with_context(|| format!("nothing is installed: cannot read {}", list.display()))?;
    for line in text.lines() {
        gone(&root.join(line))?;
    }
    gone(&list)?;
    // Refused while something else is in it.
    let [_, recipes] = RECIPES;
    for folder in [PROGRAMS, recipes, "usr/local/share/vessel"] {
        let _ = fs::remove_dir(root.join(folder));
    }
    println!("{} files are gone", text.lines().count());
    Ok(())
}

/// The folder that arguments name.
fn below(arguments: &[String]) -> Result<PathBuf> {
    match arguments {
        [] => Ok(PathBuf::from("/")),
        [folder] => std::path::absolute(folder).with_context(|| format!("no folder `{folder}`")),
        [_, more, ..] => bail!("one folder is enough; what is `{more}`?"),
    }
}

fn systemctl(words: &[&str]) -> Command {
    let mut command = Command::new("systemctl");
    command.args(words);
    command
}

fn gone(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// What was put below a root so far.
struct Installed {
    root: PathBuf,
    paths: Vec<String>,
}

impl Installed {
    /// A program that runs is not written to: the new file takes its name.
    fn copy(&mut self, from: &Path, place: &str, mode: u32) -> Result<()> {
        let path = self.prepare(place)?;
        let new = path.with_extension("new");
        fs::copy(from, &new).with_context(|| format!("cannot copy {}", from.display()))?;
        fs::set_permissions(&new, fs::Permissions::from_mode(mode))
            .with_context(|| format!("cannot set the mode of {}", new.display()))?;
        fs::rename(&new, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    fn copy_all(&mut self, from: &Path, place: &str) -> Result<()> {
        let found = fs::read_dir(from).with_context(|| format!("no {}", from.display()))?;
        for file in found {
            let file = file.with_context(|| format!("cannot list {}", from.display()))?;
            let place = format!("{place}/{}", file.file_name().display());
            self.copy(&file.path(), &place, 0o644)?;
        }
        Ok(())
    }

    fn link(&mut self, place: &str, target: &str) -> Result<()> {
        let path = self.prepare(place)?;
        gone(&path)?;
        symlink(target, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    fn prepare(&mut self, place: &str) -> Result<PathBuf> {
        let path = self.root.join(place);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        self.paths.push(place.to_owned());
        Ok(path)
    }

    fn finish(self) -> Result<usize> {
        let list = self.root.join(LIST);
        let text: String = self.paths.iter().map(|path| format!("{path}\n")).collect();
        fs::write(&list, text).with_context(|| format!("cannot write {}", list.display()))?;
        Ok(self.paths.len())
    }
}
