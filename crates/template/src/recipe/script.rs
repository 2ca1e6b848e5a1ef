//! What a sandbox does to carry out a recipe: one script for its `/bin/sh`.
//!
//! Its words follow those of the program that builds templates: lines that begin with `I: ` tell what goes on, the
//! first that begins with `E: ` says why it failed.

use std::fmt::Write as _;

use super::Recipe;
use super::setting::variable;
use crate::manifest::{Distribution, PackageManager};

/// Begins every script.
const HEAD: &str = r#"set -eu
umask 022
export LC_ALL=C.UTF-8 HOME=/root
say() { printf 'I: %s\n' "$1"; }
fail() { printf 'E: %s\n' "$1"; exit 1; }
"#;

/// Debian's own way to say that no service is to be started now (invoke-rc.d(8), policy-rc.d). The file that was there
/// comes back when the template is kept.
const NO_SERVICES: &str = r#"printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
"#;

/// Waits for a mirror in minutes, not in hours; asks nothing; writes without syncing, for a sandbox is thrown away
/// with the machine; and installs what was asked for, not what goes well with it.
const APT: &str = "apt-get -q -y -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 \
    -o Acquire::Retries=2 -o APT::Update::Error-Mode=any -o APT::Install-Recommends=false \
    -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-unsafe-io -o Dpkg::Options::=--force-confdef \
    -o Dpkg::Options::=--force-confold";

/// Lists and archives of packages are each day's own, and go before the template is read: what is not read needs no place
/// in the store.
const CLEAN_APT: &str = "find /var/lib/apt/lists /var/cache/apt -type f -delete\n";

/// Where apt is told of another mirror, in a file system that is not kept.
const SOURCES: &str = "/run/vessel-sources.list";

/// A text as one word of a shell.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

impl Recipe {
    /// The script that installs the recipe on a template of this distribution, with this manager of packages, from
    /// another mirror if there is one.
    #[must_use]
    pub fn script(
        &self,
        distribution: &Distribution,
        manager: PackageManager,
        mirror: Option<&str>,
    ) -> String {
        let id = distribution.id.as_deref().unwrap_or_default();
        let packages = self.packages_on.get(id).unwrap_or(&self.packages);
        let services = self.services_on.get(id).unwrap_or(&self.services);
        let mut script = HEAD.to_owned();
        if !packages.is_empty() {
            script.push_str(&install(packages, distribution, manager, mirror));
        }
        self.write_files(&mut script);
        let count = self.commands.len();
        for (index, command) in self.commands.iter().enumerate() {
            let number = index + 1;
            let first: String = command
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(100)
                .collect();
            let told = quoted(&format!("command {number} of {count}: {first}"));
            let failed = quoted(&format!("command {number} of the recipe failed: {first}"));
            let command = quoted(command);
            let _ = writeln!(
                script,
                "say {told}\n/bin/sh -e -c {command} </dev/null || fail {failed}"
            );
        }
        for service in services {
            let failed = quoted(&format!("the service `{service}` could not be enabled"));
            let service = quoted(service);
            let _ = writeln!(
                script,
                "if command -v systemctl >/dev/null; then systemctl enable {service} || fail {failed}\n\
                 elif command -v rc-update >/dev/null; then rc-update add {service} default || fail {failed}\n\
                 else fail {failed}; fi"
            );
        }
        self.offer(&mut script, services);
        if manager == PackageManager::Dpkg {
            script.push_str(CLEAN_APT);
        }
        script
    }

    fn write_files(&self, script: &mut String) {
        for file in &self.files {
            let failed = quoted(&format!("the file {} could not be written", file.path));
            let (path, content) = (quoted(&file.path), quoted(&file.content));
            let mode = file.mode.as_deref().unwrap_or("0644");
            let owner = quoted(file.owner.as_deref().unwrap_or("0:0"));
            let _ = writeln!(
                script,
                "mkdir -p \"$(dirname {path})\" && rm -f {path} && printf %s {content} >{path} \
                 && chown {owner} {path} && chmod {mode} {path} || fail {failed}"
            );
        }
    }

    /// Puts `configure` and the unit that runs it once into the template.
    fn offer(&self, script: &mut String, services: &[String]) {
        let Some(configure) = &self.configure else {
            return;
        };
        let name = &self.name;
        let defaults: String = self
            .settings
            .iter()
            .map(|(setting, offered)| {
                format!("{}={}\n", variable(setting), quoted(&offered.default))
            })
            .collect();
        let export = match self
            .settings
            .keys()
            .map(|setting| variable(setting))
            .collect::<Vec<_>>()
        {
            names if names.is_empty() => String::new(),
            names => format!("export {}\n", names.join(" ")),
        };
        let configure = format!(
            "#!/bin/sh\n# Applies the settings of the application {name}, at the VE's first start with it.\nset -eu\n\
             {defaults}settings=/etc/vessel/applications/{name}.env\n\
             if [ -r \"$settings\" ]; then . \"$settings\"; fi\n{export}{configure}\n\
             mkdir -p /var/lib/vessel/configured\n: >/var/lib/vessel/configured/{name}\n"
        );
        let unit = format!(
            "[Unit]\nDescription=Settings of the application {name}\n\
             ConditionPathExists=!/var/lib/vessel/configured/{name}\n\
             Before={}\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
             ExecStart=/usr/lib/vessel/configure/{name}\n\n[Install]\nWantedBy=multi-user.target\n",
            services.join(" ")
        );
        let (configure, unit) = (quoted(&configure), quoted(&unit));
        let failed = quoted("settings of an application need systemd in its template");
        let _ = writeln!(
            script,
            "command -v systemctl >/dev/null || fail {failed}\nmkdir -p /usr/lib/vessel/configure\n\
             printf %s {configure} >/usr/lib/vessel/configure/{name}\n\
             chmod 755 /usr/lib/vessel/configure/{name}\n\
             printf %s {unit} >/usr/lib/systemd/system/vessel-configure-{name}.service\n\
             systemctl enable vessel-configure-{name}.service"
        );
    }
}

fn install(
    packages: &[String],
    distribution: &Distribution,
    manager: PackageManager,
    mirror: Option<&str>,
) -> String {
    let words: Vec<_> = packages.iter().map(|package| quoted(package)).collect();
    let words = words.join(" ");
    let told = quoted(&format!("installing {}", packages.join(", ")));
    let failed = quoted("the packages could not be installed");
    let mirrored = mirror.map(quoted);
    match manager {
        PackageManager::Dpkg => {
            let codename = distribution.codename.as_deref().unwrap_or("stable");
            let sources = mirror.map_or(String::new(), |mirror| {
                let line = quoted(&format!("deb {mirror} {codename} main"));
                format!("printf '%s\\n' {line} >{SOURCES}\n")
            });
            let other = match mirror {
                Some(_) => {
                    format!(" -o Dir::Etc::sourcelist={SOURCES} -o Dir::Etc::sourceparts=/dev/null")
                }
                None => String::new(),
            };
            format!(
                "{NO_SERVICES}{sources}say 'fetching lists of packages'\n\
                 {APT}{other} update </dev/null || fail 'the lists of packages could not be fetched'\n\
                 say {told}\n{APT}{other} install {words} </dev/null || fail {failed}\n"
            )
        }
        PackageManager::Apk => {
            let other = mirrored.map_or(String::new(), |mirror| format!(" --repository {mirror}"));
            format!("say {told}\napk add --no-cache{other} {words} </dev/null || fail {failed}\n")
        }
        PackageManager::Pacman => format!(
            "say {told}\npacman -Sy --noconfirm --needed {words} </dev/null || fail {failed}\n\
             rm -rf /var/cache/pacman/pkg\n"
        ),
        PackageManager::Rpm => format!(
            "say {told}\nif command -v dnf >/dev/null; then\n\
             dnf -y --setopt=install_weak_deps=False install {words} </dev/null || fail {failed}\n\
             dnf clean all\nelif command -v zypper >/dev/null; then\n\
             zypper --non-interactive install --no-recommends {words} </dev/null || fail {failed}\n\
             zypper clean\nelse yum -y install {words} </dev/null || fail {failed}\nyum clean all; fi\n"
        ),
        PackageManager::Unknown => {
            "fail 'no manager of packages was found in the template: leave packages out of the recipe'\n"
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_single_words_of_a_shell() {
        for text in ["", "plain", "it's", "$(reboot)", "`x`", "a\nb", "\\'", "''"] {
            let echoed = std::process::Command::new("/bin/sh")
                .args(["-c", &format!("printf %s {}", quoted(text))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(echoed.stdout).unwrap(), text);
        }
    }

    #[test]
    fn every_script_is_understood_by_a_shell() {
        let text = "name = 'a'\npackages = ['b', 'c']\ncommands = [\"echo it's\", 'true']\n\
                    services = ['a.service']\nconfigure = 'echo $PORT'\n\
                    [[files]]\npath = \"/etc/a'b\"\ncontent = \"'\\n$x\"\n\
                    [settings.port]\ndescription = 'd'\nkind = 'port'\ndefault = '80'";
        let recipe = Recipe::parse(text).unwrap();
        for manager in [
            PackageManager::Dpkg,
            PackageManager::Apk,
            PackageManager::Pacman,
            PackageManager::Rpm,
            PackageManager::Unknown,
        ] {
            for mirror in [None, Some("http://mirror.example.org/debian")] {
                let script = recipe.script(&Distribution::default(), manager, mirror);
                let checked = std::process::Command::new("/bin/sh")
                    .args(["-n", "-c", &script])
                    .output()
                    .unwrap();
                let words = String::from_utf8_lossy(&checked.stderr);
                assert!(checked.status.success(), "{words}\n{script}");
            }
        }
    }
}
