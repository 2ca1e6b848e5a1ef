//! What is asked of a distribution's manager of packages, in the words of each: the one table of them.
//!
//! ```text
//! lists()   fetches lists of packages, and prints what would be fetched (apt only)
//!           ... archives that are there already are handed in ...
//! work()    installs or upgrades
//! clean()   takes away what was fetched
//! ```

use super::script::{HEAD, quoted};
use crate::manifest::{Distribution, PackageManager};

/// Debian's own way to say that no service is to be started now (invoke-rc.d(8), policy-rc.d). The file that was there
/// comes back when the template is kept.
const NO_SERVICES: &str = r#"printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
"#;

/// Waits for a mirror in minutes, not in hours; asks nothing; and keeps configuration files as they are.
const APT: &str = "apt-get -q -y -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 \
    -o Acquire::Retries=2 -o Dpkg::Use-Pty=0 \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold";

/// In a sandbox: without syncing, for it is thrown away with the machine; what was asked for, not what goes well with it; and
/// with all of its sources, or not at all.
const APT_SANDBOX: &str = " -o APT::Update::Error-Mode=any -o APT::Install-Recommends=false \
    -o Dpkg::Options::=--force-unsafe-io";

/// In a VE: its own timers may be at it just now.
const APT_VE: &str = " -o DPkg::Lock::Timeout=300";

/// Lists and archives of packages are each day's own, and go before the template is read: what is not read needs no place
/// in the store.
const CLEAN_APT: &str = "find /var/lib/apt/lists /var/cache/apt -type f -exec rm -f {} +\n";

/// Where apt keeps what it fetched, and looks before it fetches.
pub const ARCHIVES: &str = "/var/cache/apt/archives";

/// Where apt is told of another mirror, in a file system that is not kept.
const SOURCES: &str = "/run/vessel-sources.list";

/// Something to be done with packages, inside a VE or a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackageJob<'a> {
    /// What is to be done.
    pub task: PackageTask<'a>,
    /// Where.
    pub place: PackagePlace,
    /// What is installed there.
    pub distribution: &'a Distribution,
    /// What manages its packages.
    pub manager: PackageManager,
    /// Where packages come from, if not from where the files there say.
    pub mirror: Option<&'a str>,
}

/// What is to be done with packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackageTask<'a> {
    /// Install these.
    Install(&'a [String]),
    /// Bring all to their newest versions.
    Upgrade,
}

/// Where packages are worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackagePlace {
    /// A sandbox in which a template is made: no service starts, and nothing needs to survive a crash.
    Sandbox,
    /// A VE that runs: services start again as its distribution has it, and nothing is removed.
    Ve,
}

impl PackageJob<'_> {
    /// A script that fetches lists of packages, and prints to its standard output which archives [`PackageJob::script`]
    /// would fetch. It comes before that one. Nothing for managers that do both in one.
    #[must_use]
    pub fn lists(&self) -> Option<String> {
        if self.manager != PackageManager::Dpkg || self.is_empty() {
            return None;
        }
        let sources = self.mirror.map_or(String::new(), |mirror| {
            let codename = self.distribution.codename.as_deref().unwrap_or("stable");
            let line = quoted(&format!("deb {mirror} {codename} main"));
            format!("printf '%s\\n' {line} >{SOURCES}\n")
        });
        let (apt, verb) = (self.apt(), self.apt_verb());
        // What cannot be told is found out by the work itself, which then says so.
        Some(format!(
            "{HEAD}{sources}say 'fetching lists of packages'\n\
             {apt} update </dev/null || fail 'the lists of packages could not be fetched'\n\
             {apt} -o Acquire::ForceHash=SHA256 --print-uris {verb} </dev/null >&3 2>/dev/null || :\n"
        ))
    }

    /// A script that does it.
    #[must_use]
    pub fn script(&self) -> String {
        format!("{HEAD}{}", self.work())
    }

    /// A script that takes away what was fetched. Nothing where the work does so itself.
    #[must_use]
    pub fn clean(&self) -> Option<String> {
        (self.manager == PackageManager::Dpkg).then(|| match self.place {
            PackagePlace::Sandbox => format!("{HEAD}{CLEAN_APT}"),
            PackagePlace::Ve => format!("{HEAD}{} clean </dev/null\n", self.apt()),
        })
    }

    /// What a script has for it between its head and its end.
    pub(super) fn work(&self) -> String {
        if self.is_empty() {
            return String::new();
        }
        let (told, failed) = match self.task {
            PackageTask::Install(packages) => (
                quoted(&format!("installing {}", packages.join(", "))),
                quoted("the packages could not be installed"),
            ),
            PackageTask::Upgrade => (
                quoted("upgrading packages"),
                quoted("the packages could not be upgraded"),
            ),
        };
        match self.manager {
            PackageManager::Dpkg => {
                let begin = match self.place {
                    PackagePlace::Sandbox => NO_SERVICES,
                    PackagePlace::Ve => "",
                };
                let (apt, verb) = (self.apt(), self.apt_verb());
                format!("{begin}say {told}\n{apt} {verb} </dev/null || fail {failed}\n")
            }
            PackageManager::Apk => self.apk(&told, &failed),
            PackageManager::Pacman => {
                let verb = match self.task {
                    PackageTask::Install(_) => format!("-Sy --needed {}", self.words()),
                    PackageTask::Upgrade => "-Syu".to_owned(),
                };
                format!(
                    "say {told}\npacman --noconfirm {verb} </dev/null || fail {failed}\n\
                     rm -rf /var/cache/pacman/pkg\n"
                )
            }
            PackageManager::Rpm => self.rpm(&told, &failed),
            PackageManager::Unknown => {
                "fail 'no manager of packages was found in the template'\n".to_owned()
            }
        }
    }

    fn apk(&self, told: &str, failed: &str) -> String {
        let other = self.mirror.map_or(String::new(), |mirror| {
            format!(" --repository {}", quoted(mirror))
        });
        let verb = match self.task {
            PackageTask::Install(_) => format!("add --no-cache{other} {}", self.words()),
            PackageTask::Upgrade => format!("upgrade --no-cache{other}"),
        };
        format!("say {told}\napk {verb} </dev/null || fail {failed}\n")
    }

    fn rpm(&self, told: &str, failed: &str) -> String {
        let words = self.words();
        let [dnf, zypper, yum] = match self.task {
            PackageTask::Install(_) => [
                format!("--setopt=install_weak_deps=False install {words}"),
                format!("install --no-recommends {words}"),
                format!("install {words}"),
            ],
            PackageTask::Upgrade => {
                ["upgrade --refresh", "update --no-recommends", "update"].map(str::to_owned)
            }
        };
        format!(
            "say {told}\nif command -v dnf >/dev/null; then\n\
             dnf -y {dnf} </dev/null || fail {failed}\n\
             dnf clean all\nelif command -v zypper >/dev/null; then\n\
             zypper --non-interactive {zypper} </dev/null || fail {failed}\n\
             zypper clean\nelse yum -y {yum} </dev/null || fail {failed}\nyum clean all; fi\n"
        )
    }

    fn apt(&self) -> String {
        let place = match self.place {
            PackagePlace::Sandbox => APT_SANDBOX,
            PackagePlace::Ve => APT_VE,
        };
        let other = match self.mirror {
            Some(_) => {
                format!(" -o Dir::Etc::sourcelist={SOURCES} -o Dir::Etc::sourceparts=/dev/null")
            }
            None => String::new(),
        };
        format!("DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 {APT}{place}{other}")
    }

    fn apt_verb(&self) -> String {
        match (self.task, self.place) {
            (PackageTask::Install(_), _) => format!("install {}", self.words()),
            (PackageTask::Upgrade, PackagePlace::Sandbox) => "dist-upgrade".to_owned(),
            // What an owner installed is not removed because something else is newer.
            (PackageTask::Upgrade, PackagePlace::Ve) => "upgrade --with-new-pkgs".to_owned(),
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self.task, PackageTask::Install([]))
    }

    fn words(&self) -> String {
        let words = match self.task {
            PackageTask::Install(packages) => packages,
            PackageTask::Upgrade => &[],
        };
        let words: Vec<_> = words.iter().map(|package| quoted(package)).collect();
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANAGERS: [PackageManager; 5] = [
        PackageManager::Dpkg,
        PackageManager::Apk,
        PackageManager::Pacman,
        PackageManager::Rpm,
        PackageManager::Unknown,
    ];

    #[test]
    fn every_script_is_understood_by_a_shell() {
        let packages = ["b".to_owned(), "c'd".to_owned()];
        for manager in MANAGERS {
            for task in [PackageTask::Install(&packages), PackageTask::Upgrade] {
                for place in [PackagePlace::Sandbox, PackagePlace::Ve] {
                    for mirror in [None, Some("http://mirror.example.org/debian")] {
                        let job = PackageJob {
                            task,
                            place,
                            distribution: &Distribution::default(),
                            manager,
                            mirror,
                        };
                        let scripts = [job.lists(), Some(job.script()), job.clean()];
                        for script in scripts.into_iter().flatten() {
                            understood(&script);
                        }
                    }
                }
            }
        }
    }

    fn understood(script: &str) {
        let checked = std::process::Command::new("/bin/sh")
            .args(["-n", "-c", script])
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{words}\n{script}");
    }

    #[test]
    fn nothing_is_fetched_for_nothing() {
        let job = PackageJob {
            task: PackageTask::Install(&[]),
            place: PackagePlace::Sandbox,
            distribution: &Distribution::default(),
            manager: PackageManager::Dpkg,
            mirror: None,
        };
        assert_eq!((job.lists(), job.work()), (None, String::new()));
    }
}
